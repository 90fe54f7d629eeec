"""`python -m chestx_jax.lexicon --check`: clashes and dead entries of the lexicon; exit status 1 if there are any."""

import argparse
import sys

from chestx_jax.errors import UserError
from chestx_jax.lexicon.check import problems
from chestx_jax.lexicon.lexicon import load


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m chestx_jax.lexicon", description=__doc__)
    parser.add_argument("--check", action="store_true", help="look for phrases that cannot match, twins and cycles")
    options = parser.parse_args(arguments)
    try:
        lexicon = load()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    counted = sum(not concept.general for concept in lexicon.concepts)
    print(f"{counted} concepts, {len(lexicon.entities)} entities, {len(lexicon.predicates)} predicates, ", end="")
    print(
        f"{len(lexicon.phrases)} phrases, {len(set(lexicon.lexemes.values()))} lexemes, {len(lexicon.lexemes)} spellings"  # noqa: E501
    )
    if not options.check:
        return 0
    found = problems(lexicon)
    print("\n".join(found) or "no clashes")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
