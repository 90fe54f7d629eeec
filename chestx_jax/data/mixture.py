"""Where training samples come from: files with weights, drawn as a pure function of (seed, number)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chestx_jax.config import bounded
from chestx_jax.data.reader import read_samples
from chestx_jax.data.schema import Sample
from chestx_jax.errors import UserError


@dataclass(frozen=True)
class SourceConfig:
    """One file of RadR records. Reasoning sources get the instruction sentence and a think block as target; the
    others have the bare answer as target. With `seen` the answer names what each visual token shows ("clear edema …")
    and its words are the targets at the film's own tokens, which trains a vision tower from random weights."""

    path: str = ""  # relative to the job's data root
    weight: float = bounded(1.0, min=0.0)
    reasoning: bool = True
    seen: bool = False
    image_root: str = ""  # relative to the data root; empty: the file's own folder


@dataclass(frozen=True)
class Source:
    """A source read into memory: its records (small: images stay on disk)."""

    samples: tuple[Sample, ...]
    weight: float
    reasoning: bool
    seen: bool


def read_source(config: SourceConfig, root: str | Path) -> Source:
    """The samples of a source; raises UserError for an unreadable or empty file."""
    path = Path(root, config.path)
    image_root = Path(root, config.image_root) if config.image_root else None
    samples = tuple(read_samples(path, image_root))
    if not samples:
        raise UserError(f"{path} holds no records: check the path or write the data set again.")
    return Source(samples, config.weight, config.reasoning, config.seen)


def draw(sources: Sequence[Source], seed: int, number: int) -> tuple[Source, Sample]:
    """The `number`-th training sample: a source by weight, then one of its samples uniformly, with replacement (the
    release's SFT sampling). Depends on nothing but its arguments, so that any place in the stream can be resumed."""
    random = np.random.default_rng((seed, number))
    weights = np.array([source.weight for source in sources])
    source = sources[random.choice(len(sources), p=weights / weights.sum())]
    return source, source.samples[random.integers(len(source.samples))]
