"""Where a collection's films are: a folder, or rules that map the paths written in its records to folders; and how the
films of a moved collection are found."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from chestx_jax.data.fields import FieldError
from chestx_jax.errors import UserError

SPOT = 1024  # films of a file that are looked for at the start of a run, at most


@dataclass(frozen=True)
class ImageRoots:
    """`rules` are (pattern of a path's beginning, what replaces it); `folder` is for paths that none of them fits."""

    folder: Path
    rules: tuple[tuple[re.Pattern[str], str], ...] = ()

    def path(self, image: str) -> Path:
        """The path of an image as its record writes it; an absolute one that no rule fits stands for itself."""
        for pattern, replacement in self.rules:
            match = pattern.match(image)
            if match:
                parts = iter(match.groups())
                folder = "".join(next(parts) if part == "*" else part for part in re.split(r"(\*)", replacement))
                return Path(folder, image[match.end() :].lstrip("/"))
        return self.folder / image


def parse_image_root(text: str | Path | None, folder: Path) -> ImageRoots:
    """Reads `DIR`, or comma-separated rules `FROM=TO`: a path that begins with FROM has that beginning replaced by TO.

    A `*` in FROM stands for any text without a slash, and one in TO for what it stood for: "/data/*/files=/mnt/*".
    The first rule that fits counts. None is `folder`. Raises UserError for a rule without both sides, or with more
    stars in TO than in FROM.
    """
    if text is None or "=" not in str(text):
        return ImageRoots(folder if text is None else Path(text))
    return ImageRoots(folder, tuple(_rule(rule) for rule in str(text).split(",")))


def _rule(rule: str) -> tuple[re.Pattern[str], str]:
    begins, equals, to = rule.partition("=")
    if not (begins.strip() and equals and to.strip()) or to.count("*") > begins.count("*"):
        raise UserError(
            f'image_root rule "{rule}" is not of the form FROM=TO, with no more stars in TO than in FROM: '
            'write a folder, or rules such as "/data/*/files=/mnt/*".'
        )
    return re.compile(re.escape(begins.strip()).replace(r"\*", "([^/]*)")), to.strip()


@dataclass(frozen=True)
class Films:
    """Finds the films of a file's records. `written`: the paths of each record, as the records write them.

    A path is looked for where the roots place it, else by its ends, the longest first, in the roots' folder. An end
    that several of the written paths share stands for none of them: it would give the film of one patient to another.

    With `check` "some", films are taken to be in their places where `SPOT` of them, evenly spread, are: a look at each
    of a large collection on a mounted bucket would take longer than the start of the run.
    """

    roots: ImageRoots
    written: Sequence[Sequence[str]] = field(repr=False)
    check: Literal["all", "some", "none"] = "all"  # "none": paths are placed without a look at the file system

    def find(self, image: str) -> str:
        """The path of a film. Raises FieldError where there is none."""
        path = self.roots.path(image)
        if self.check == "none" or (self.check == "some" and self._in_place) or _is_file(path):
            return str(path)
        for end in _ends(image):
            candidate = self.roots.folder.joinpath(*end)
            if _is_file(candidate):
                if self._paths_by_end[end] > 1:
                    raise FieldError(
                        "image_path",
                        f"{image} does not exist (looked for {path}; {candidate} does, but {self._paths_by_end[end]} "
                        f"paths of these records end in {Path(*end)})",
                        "set the image root so that each path leads to its own film",
                    )
                return str(candidate)
        raise FieldError(
            "image_path", f"{image} does not exist (looked for {path})", "set the source's image root, or fix the path"
        )

    @cached_property
    def _in_place(self) -> bool:
        images = [image for images in self.written for image in images]
        step = -(-len(images) // SPOT) or 1
        return all(_is_file(self.roots.path(image)) for image in images[::step])

    @cached_property
    def _paths_by_end(self) -> Counter[tuple[str, ...]]:
        """How many different written paths have each end."""
        paths: Iterable[str] = {str(Path(image)) for images in self.written for image in images}
        return Counter(end for path in paths for end in [Path(path).parts, *_ends(path)])


def _ends(image: str) -> Iterator[tuple[str, ...]]:
    parts = Path(image).parts
    return (parts[start:] for start in range(1, len(parts)))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a NUL
        return False
