"""Length buckets: the static shapes that batches of uneven length are padded to.

A program is compiled for fixed shapes. Padding every batch to its limit computes several times what the tokens need;
compiling for every length never ends. So a batch takes the smallest of a few lengths that holds it, each of them is
compiled when the first batch needs it, and what is computed differs from the fully padded result by rounding alone.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from chestx_jax.config import bounded
from chestx_jax.errors import UserError
from chestx_jax.multihost import all_max

FLOOR = 64  # tokens: below it, a batch's time hardly depends on its length


@dataclass(frozen=True)
class LengthsConfig:
    """The lengths that batches are padded to, ascending; the limit itself (`rows.length`, `sampling.length`,
    `rows.image_slots`) always is one. Left empty: 64, 96, 128, 192, 256, 384, 512 … tokens, and every number of image
    slots. To pad to the limit always, give the limit alone."""

    rows: tuple[int, ...] = bounded((), min=1)  # tokens of a row: a prompt, or SFT's packed samples
    image_slots: tuple[int, ...] = bounded((), min=1)
    completions: tuple[int, ...] = bounded((), min=1)  # tokens

    def __post_init__(self) -> None:
        for name, lengths in vars(self).items():
            if list(lengths) != sorted(set(lengths)):
                raise UserError(f"{name} is {lengths}: write each length once, in ascending order.")


def token_buckets(limit: int, chosen: Sequence[int] = ()) -> tuple[int, ...]:
    """Ascending lengths in tokens, the last of them `limit`: those `chosen`, else powers of two and the midpoints
    between them. Raises UserError for one above the limit."""
    powers = [FLOOR << i for i in range(limit.bit_length())]
    default = [length for power in powers for length in (power, power * 3 // 2) if length < limit]
    return _with_limit(limit, chosen or default)


def slot_buckets(limit: int, chosen: Sequence[int] = ()) -> tuple[int, ...]:
    """Ascending numbers of image slots, the last of them `limit`: those `chosen`, else all. Raises UserError for one
    above the limit."""
    return _with_limit(limit, chosen or range(1, limit))


def _with_limit(limit: int, lengths: Sequence[int]) -> tuple[int, ...]:
    if max(lengths, default=0) > limit:
        raise UserError(f"lengths holds {max(lengths)} and the limit is {limit}: leave it out, or raise the limit.")
    return tuple(sorted({*lengths, limit}))


def smallest_bucket(size: int, buckets: Sequence[int]) -> int:
    """The smallest of the ascending `buckets` that holds `size`. Raises ValueError where none does."""
    if size > buckets[-1]:
        raise ValueError(f"no bucket of {tuple(buckets)} holds {size}")
    return buckets[bisect_left(buckets, size)]


def agreed_buckets(sizes: Sequence[int], buckets: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """`smallest_bucket` of each size, in step with its buckets, after the maximum over all processes: all of them
    compile and run the same shapes. Every process must call it, at the same point."""
    return tuple(map(smallest_bucket, all_max(sizes), buckets))


class BucketUse:
    """How often each program ran in each of its buckets; the first run of a bucket is when it is compiled."""

    def __init__(self) -> None:
        self.runs: Counter[tuple[str, tuple[int, ...]]] = Counter()

    def add(self, program: str, bucket: tuple[int, ...]) -> bool:
        """Counts a run of `program` in `bucket`; True for the first."""
        self.runs[program, bucket] += 1
        return self.runs[program, bucket] == 1

    def __str__(self) -> str:
        """One line a program: "grpo/gradients ran in 2 buckets: 128+1+96 (40 times), 192+2+96 (5 times)"."""
        lines = []
        for name in dict.fromkeys(program for program, _ in self.runs):
            runs = sorted((bucket, count) for (program, bucket), count in self.runs.items() if program == name)
            listed = ", ".join(f"{'+'.join(map(str, bucket))} ({count} times)" for bucket, count in runs)
            lines.append(f"{name} ran in {len(runs)} bucket{'s' * (len(runs) > 1)}: {listed}")
        return "\n".join(lines)
