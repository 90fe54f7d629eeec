"""What every door does: parse the command line, make one call, and turn bad input into one sentence and status 2."""

import errno
import os
import sys
from collections.abc import Callable, Sequence

from absl import app, flags

from chestx_jax.config import check_overrides, load_config, nearest
from chestx_jax.errors import UserError


def run(main: Callable[[list[str]], int | None], positional: bool = False) -> None:
    """`app.run(main)` for users: flag errors, `UserError` and a full disk print one sentence and exit with 2.

    `main` gets the arguments that the flags left over (the program's name first); only `positional` allows others.
    """

    def guarded(arguments: list[str]) -> int | None:
        try:
            if len(arguments) > 1 and not positional:
                raise UserError(f"There is nothing to do with {arguments[1]!r}: every option is written --name=value.")
            return main(arguments)
        except UserError as error:
            return _refuse(error)
        except Exception as error:
            if not _is_full(error):
                raise
            file = getattr(error, "filename", None)
            name = f" while writing {file}" if file else ""
            return _refuse(UserError(f"The disk is full{name}: free some space and run the same command again."))

    app.run(guarded, flags_parser=_parse)


def _is_full(error: Exception) -> bool:
    """Whether a disk or a quota had no room; checkpoints are written by TensorStore, which says so in words only."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT))


def check_config_flags(arguments: Sequence[str], name: str = "config") -> None:
    """Check `--config=FILE` and every `--config.a.b` of a command line, before ml_collections reports in tracebacks.

    Raises: UserError for a missing file or an unknown field, with the nearest right one.
    """
    files = [_value(arguments, i) for i, argument in enumerate(arguments) if _flag(argument) == name]
    prefixes = (f"{name}.", f"no{name}.")  # `--noconfig.a.b` sets a bool to False
    overrides = [_flag(a).partition(".")[2] for a in arguments if _flag(a).startswith(prefixes)]
    if files:
        check_overrides(load_config(files[-1]), overrides, name)


def _parse(arguments: list[str]) -> list[str]:
    try:
        ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
        if "config" in flags.FLAGS:
            check_config_flags(ours)
        return flags.FLAGS(arguments)
    except flags.UnrecognizedFlagError as error:
        near = nearest(error.flagname.partition(".")[0], flags.FLAGS)
        hint = f"did you mean --{near}?" if near else "--help lists the flags."
        sys.exit(_refuse(UserError(f"There is no flag --{error.flagname}: {hint}")))
    except (UserError, flags.Error) as error:
        sys.exit(_refuse(error))


def _refuse(error: Exception) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


def _flag(argument: str) -> str:
    """The flag's name in `--name=value`, `--name` or `-name`; empty for anything else."""
    return argument.lstrip("-").partition("=")[0] if argument.startswith("-") else ""


def _value(arguments: Sequence[str], index: int) -> str:
    """The value of the flag at `index`, written `--name=value` or `--name value`."""
    _, equals, value = arguments[index].partition("=")
    return value if equals else "".join(arguments[index + 1 : index + 2])
