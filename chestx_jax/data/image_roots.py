"""Where a collection's films are: a folder, or rules that map the paths written in its records to folders."""

import re
from dataclasses import dataclass
from pathlib import Path

from chestx_jax.errors import UserError


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
