"""Files written whole or not at all: into a neighbour first, then moved into place."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_json(path: str | Path, document: Any) -> None:
    """Writes JSON whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def write_lines(path: str | Path, documents: Sequence[Any]) -> None:
    """Writes JSON lines whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n" for document in documents)
    os.replace(partial, path)
