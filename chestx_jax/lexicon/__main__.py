"""`python -m chestx_jax.lexicon --check`: problems of the lexicon, one a line; exit status 1 if there are any."""

import argparse
import sys

from chestx_jax.errors import UserError
from chestx_jax.lexicon.check import find_problems
from chestx_jax.lexicon.lexicon import load


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m chestx_jax.lexicon", description=__doc__)
    parser.add_argument("--check", action="store_true", help="look for unreachable phrases, unused names and cycles")
    options = parser.parse_args(arguments)
    try:
        lexicon = load()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    sizes = {
        "concepts": sum(not concept.general for concept in lexicon.concepts),
        "entities": len(lexicon.entities),
        "predicates": len(lexicon.predicates),
        "phrases": len(lexicon.phrases),
        "lexemes": len(set(lexicon.lexemes.values())),
        "spellings": len(lexicon.lexemes),
    }
    print(", ".join(f"{count} {name}" for name, count in sizes.items()))
    if not options.check:
        return 0
    problems = find_problems(lexicon)
    print("\n".join(problems) or "no problems")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
