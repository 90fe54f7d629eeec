"""Files written whole or not at all: into a neighbour first, then moved into place.

A process killed at any moment leaves the old file or the new one, never half of one; of lines that are appended it
tears at most the last, which the next writer cuts off.
"""

import contextlib
import json
import math
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from chestx_jax.errors import UserError


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A neighbour of the file `path` to write to; moved onto it at the end, removed if the writing fails."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two writers of one path (threads or processes that share a cache) do not write to one neighbour.
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty neighbour of `folder` to fill, called `NAME.partial`; moved into its place at the end, removed if the
    filling fails. An earlier folder is moved aside first and deleted last; what a kill left of an earlier call is put
    right before this one starts."""
    folder = Path(folder)
    partial, earlier = partial_folder(folder), folder.with_name(f".{folder.name}.replaced")
    _restore(folder, partial, earlier)
    try:
        partial.mkdir(parents=True)
        yield partial
        if folder.exists():
            os.replace(folder, earlier)
        os.replace(partial, folder)
    finally:
        _restore(folder, partial, earlier)


def partial_folder(folder: Path) -> Path:
    """Where `replacing_folder` has a folder filled, for the processes that help the one that calls it."""
    return folder.with_name(f"{folder.name}.partial")


def _restore(folder: Path, partial: Path, earlier: Path) -> None:
    """Undoes a replacement that did not finish: an earlier folder comes back into its place, a partial one goes."""
    if earlier.exists() and not folder.exists():
        os.replace(earlier, folder)
    for leftover in (earlier, partial):
        shutil.rmtree(leftover, ignore_errors=True)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8 text whole or not at all; a lone surrogate becomes its escape."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_sidecars(folder: str | os.PathLike[str], contents: Mapping[str, str | Path]) -> None:
    """Writes files into `folder` by their names: texts, and copies of the files at paths."""
    for name, content in contents.items():
        if isinstance(content, Path):
            write_bytes(Path(folder, name), content.read_bytes())
        else:
            write_text(Path(folder, name), content)


def write_json(path: str | os.PathLike[str], document: Any) -> None:
    """Writes a JSON document whole or not at all; NaN and infinities become null."""
    write_text(path, json.dumps(_finite(document), indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: str | os.PathLike[str], documents: Iterable[Any]) -> None:
    """Writes one JSON document a line as they come, whole or not at all; NaN and infinities become null."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(map(_line, documents))


def append_json_lines(path: str | os.PathLike[str], documents: Iterable[Any]) -> None:
    """Appends one JSON document a line, in one write to a file opened for it alone: a kill tears the last line at most,
    and a mounted bucket keeps what was written."""
    if lines := "".join(map(_line, documents)):
        with Path(path).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(lines)


def read_json(path: str | os.PathLike[str], fix: str) -> Any:
    """The document of a JSON file. Raises UserError naming the file and the `fix` where it cannot be read."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {fix}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): {fix}.") from error


def read_json_object(path: str | os.PathLike[str], fix: str) -> dict[str, Any]:
    """The object of a JSON file. Raises UserError as `read_json` does, and for a document of another kind."""
    document = read_json(path, fix)
    if not isinstance(document, dict):
        raise UserError(f"{path} holds {type(document).__name__} in place of a JSON object: {fix}.")
    return document


def complete_lines(path: str | os.PathLike[str]) -> list[bytes]:
    """The lines of a file without their ends; a last line torn by a kill is left out, a missing file has none."""
    return Path(path).read_bytes().split(b"\n")[:-1] if Path(path).is_file() else []


def drop_torn_line(path: str | os.PathLike[str]) -> None:
    """Cuts off a last line without its end, which a kill leaves, so that the next line starts clean."""
    size = sum(len(line) + 1 for line in complete_lines(path))
    if Path(path).is_file() and size < Path(path).stat().st_size:
        os.truncate(path, size)


def _line(document: Any) -> str:
    return json.dumps(_finite(document), ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    """The document with null for NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
