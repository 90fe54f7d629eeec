"""The phantom's command line.

python -m chestx_jax.phantom write --out DIR [--seed 0] [--size 112]
python -m chestx_jax.phantom contact_sheet --out sheet.png [--seed 0] [--label Edema]
"""

import argparse
import sys

from chestx_jax.config import to_dataclass
from chestx_jax.errors import UserError
from chestx_jax.phantom.dataset import PhantomSpec, write_phantom
from chestx_jax.phantom.drawing.contact_sheet import ROWS, contact_sheet


def main(arguments: list[str]) -> int:
    """Exit status of the command `arguments`: 0, or 2 with one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m chestx_jax.phantom", description="Draw phantom chest films.")
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write", help="write the whole set: films, reports, questions")
    sheet = commands.add_parser("contact_sheet", help="draw a contact sheet: several films of each label")
    for command, target in ((write, "folder to write"), (sheet, "PNG file to write")):
        command.add_argument("--out", required=True, help=target)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--size", type=int, default=112, help="pixels of a film's side")
    write.add_argument("--processes", type=int, default=0, help="drawing processes; 0 is one per core")
    sheet.add_argument("--columns", type=int, default=6)
    sheet.add_argument("--label", action="append", choices=ROWS, help="only this row (may be given again)")
    options = parser.parse_args(arguments)
    try:
        spec = to_dataclass(PhantomSpec, {"seed": options.seed, "size": options.size}, "phantom")
        if options.command == "write":
            write_phantom(options.out, spec, options.processes, _print_progress)
        else:
            contact_sheet(options.label or ROWS, options.columns, options.seed, options.size).save(options.out)
    except (UserError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


def _print_progress(done: int, total: int) -> None:
    print(f"\r{done}/{total} films", end="\n" if done == total else "", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
