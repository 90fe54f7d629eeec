"""What a reasoning is worth against a report: one text for people, or a file of them.

`--text … --report …`: each step with its findings, their values, verdicts and reasons. `--batch IN --out OUT`: JSON
lines (`chestx_jax/rewards/batch.py`); run again, it goes on.
"""

import argparse
import sys
from pathlib import Path

from chestx_jax.errors import UserError
from chestx_jax.lexicon import load
from chestx_jax.rewards import priors
from chestx_jax.rewards.batch import score_file
from chestx_jax.rewards.explain import as_json, as_text, explain
from chestx_jax.rewards.texts import Item


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m chestx_jax.rewards", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", help="the reasoning, or @FILE")
    parser.add_argument("--report", action="append", default=[], help="the report, or @FILE; twice for two films")
    parser.add_argument("--question", default="", help="the question that the text answers, or @FILE")
    parser.add_argument("--batch", type=Path, help="a file of JSON lines to score")
    parser.add_argument("--out", type=Path, help="where the scores of --batch go")
    parser.add_argument("--rule", choices=("additive", "paper"), default="additive")
    parser.add_argument("--priors", type=Path, help="a table of priors that a job left in its folder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--think-only", action="store_true", help="read the think block alone, as training does")
    parser.add_argument("--no-colour", action="store_true")
    options = parser.parse_args(arguments)
    if bool(options.text) == bool(options.batch) or bool(options.batch) != bool(options.out):
        parser.error("give --text (with --report), or --batch and --out")
    try:
        lexicon = load()
        table = priors.load(options.priors, lexicon) if options.priors else None
        if options.batch:
            print(f"{score_file(options.batch, options.out, lexicon, options.rule, table)} lines in {options.out}")
            return 0
        item = Item(_read(options.text), tuple(map(_read, options.report)), _read(options.question))
        steps = explain(lexicon, item, rule=options.rule, table=table, think_only=options.think_only)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
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
