"""The one exception a user is meant to read: what is wrong, where, and how to mend it, in a sentence."""


class UserError(Exception):
    """Bad input. The doors print its message alone and exit with status 2; nothing half-written is left behind."""
