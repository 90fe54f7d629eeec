"""Films small enough to travel inside a page: grey JPEG data URLs, each once, smaller if the sum is too large."""

from collections.abc import Iterable

from chestx_jax.errors import UserError
from chestx_jax.tokens.data_urls import jpeg_url

BUDGET = 12_000_000  # bytes of data URLs a page may spend on films
LADDER = ((168, 70), (168, 45), (112, 45), (84, 35), (56, 30))  # (longer side in pixels, JPEG quality)


def data_urls(paths: Iterable[str], budget: int = BUDGET) -> dict[str, str]:
    """Data URL by path, at the best size of the ladder at which all fit the budget; unreadable films are left out.

    The size is chosen on a sample of the films, since neighbours on the ladder differ by a factor and films do not.
    """
    distinct = sorted(set(paths))
    if not distinct:
        return {}
    probe = distinct[:: max(1, len(distinct) // 16)]
    size, quality = next(
        (step for step in LADDER if _total(probe, *step) * len(distinct) / len(probe) <= budget), LADDER[-1]
    )
    urls = ((path, _data_url(path, size, quality)) for path in distinct)
    return {path: url for path, url in urls if url}


def _total(paths: list[str], size: int, quality: int) -> int:
    return sum(len(_data_url(path, size, quality)) for path in paths)


def _data_url(path: str, size: int, quality: int) -> str:
    """Empty for a film that cannot be read: a page shows a note in its place."""
    try:
        return jpeg_url(path, size, "L", quality=quality, optimize=True)
    except UserError:
        return ""
