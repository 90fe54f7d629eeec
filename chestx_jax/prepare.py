"""`python -m chestx_jax.prepare --source=NAME --raw=DIR --out=DIR`: small films and a file of studies of a public set.

[--size=448] [--aspect=keep] [--views=frontal] [--workers=N] [--limit=N]. The same command goes on after a kill.
"""

import os
import sys
from pathlib import Path
from typing import Any

from absl import flags

from chestx_jax import cli
from chestx_jax.config import to_dataclass
from chestx_jax.sources.prepare import PrepareConfig, prepare

SOURCE = flags.DEFINE_string("source", None, "the set: mimic_cxr, chexpert, nih, openi …", required=True)
RAW = flags.DEFINE_string("raw", None, "folder of the set as it was downloaded", required=True)
OUT = flags.DEFINE_string("out", None, "folder to make, or to go on with", required=True)
SIZE = flags.DEFINE_integer("size", 448, "pixels of a film's side, of the longer one with --aspect=keep")
ASPECT = flags.DEFINE_enum("aspect", "keep", ["keep", "squash"], "squash films to squares, as the paper does, or not")
VIEWS = flags.DEFINE_list("views", ["frontal"], "frontal, PA, AP, lateral, other, unknown or all")
WORKERS = flags.DEFINE_integer("workers", os.cpu_count() or 1, "processes that read films", lower_bound=1)
LIMIT = flags.DEFINE_integer("limit", 0, "studies to read; 0: all")


def main(_: list[str]) -> None:
    fields = {"source": SOURCE.value, "size": SIZE.value, "aspect": ASPECT.value, "limit": LIMIT.value}
    config = to_dataclass(PrepareConfig, {**fields, "views": VIEWS.value}, "prepare")
    about = prepare(config, Path(RAW.value or ""), Path(OUT.value or ""), WORKERS.value or 1, sys.stderr)
    for line in _lines(about):
        print(line)


def _lines(about: dict[str, Any], indent: str = "") -> list[str]:
    """The counts as an indented list."""
    lines = []
    for name, value in about.items():
        if not isinstance(value, dict):
            lines.append(f"{indent}{name}: {value}")
        elif value.keys() == {"count", "first"}:
            lines.append(f"{indent}{name}: {value['count']} (first: {value['first']})")
        elif value:
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
    return lines


if __name__ == "__main__":
    cli.run(main)
