"""The phantom's former place: `python -m chestx_jax.data.phantom` names the command that took over."""

import sys

from chestx_jax.errors import UserError

MOVED = "chestx_jax.data.phantom is now chestx_jax.phantom: run python -m chestx_jax.phantom with the same arguments."

if __name__ == "__main__":
    print(f"error: {MOVED}", file=sys.stderr)
    sys.exit(2)

raise UserError(MOVED)
