"""`python -m chestx_jax.rewards --text … --report …`: each step with its findings, their verdicts and the reasons."""

import argparse
import sys
from pathlib import Path

from chestx_jax.errors import UserError
from chestx_jax.lexicon.lexicon import load
from chestx_jax.rewards.explain import as_json, as_text, explain


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m chestx_jax.rewards", description=__doc__)
    parser.add_argument("--text", required=True, help="the reasoning, or @FILE")
    parser.add_argument("--report", action="append", default=[], help="the report, or @FILE; twice for two films")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--think-only", action="store_true", help="read the think block alone, as training does")
    parser.add_argument("--no-colour", action="store_true")
    options = parser.parse_args(arguments)
    try:
        text, reports = _read(options.text), [_read(report) for report in options.report]
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    steps = explain(load(), text, reports, think_only=options.think_only)
    print(as_json(steps) if options.json else as_text(steps, sys.stdout.isatty() and not options.no_colour))
    return 0


def _read(value: str) -> str:
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The file {value[1:]} cannot be read ({error}): pass a UTF-8 text file.") from error


if __name__ == "__main__":
    sys.exit(main())
