"""Where files lie in a raw folder: downloads nest the same tree at different depths, gzipped or not."""

import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from chestx_jax.errors import UserError

# What an archive of which bytes were changed may raise.
_DAMAGED = (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError)
_DEPTHS = ("", "*/", "*/*/")


def find(raw: Path, *names: str) -> Path | None:
    """The first of `names` (patterns; each also with `.gz`) in the folder or up to two folders below it; of several
    matches the last by name, so that of two versions the newer is taken."""
    for depth in _DEPTHS:
        for name in names:
            for pattern in (f"{depth}{name}", f"{depth}{name}.gz"):
                if matches := sorted(raw.glob(pattern)):
                    return matches[-1]
    return None


def require(raw: Path, *names: str) -> Path:
    """As `find`, raising UserError where there is none of them."""
    path = find(raw, *names)
    if path is None:
        raise UserError(f"{raw} holds no {' or '.join(names)}: give the folder of the whole set as --raw.")
    return path


def files_below(folder: Path, raw: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Stem and path relative to `raw` of every file below a folder with one of the suffixes, in the order of paths."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in suffixes and not name.startswith("."):
                yield stem, Path(parent, name).relative_to(raw).as_posix()


def open_archive(path: Path) -> zipfile.ZipFile:
    """Raises UserError for an archive that is cut short."""
    try:
        return zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise UserError(f"{path} is no whole zip archive: download it again.") from error


def read_member(archive: zipfile.ZipFile, name: str) -> str:
    """A text of an archive with plain line ends. Raises UserError where it is damaged."""
    try:
        return archive.read(name).decode("utf-8", "replace").replace("\r\n", "\n")
    except _DAMAGED as error:
        raise UserError(f"{archive.filename} is damaged at {name}: download it again.") from error
