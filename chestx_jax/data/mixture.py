"""Where training samples come from: files with weights, drawn as a pure function of (seed, number)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from chestx_jax.config import bounded
from chestx_jax.data.reader import Problem, read_most
from chestx_jax.data.schema import Sample

Targets = Literal["text", "regions", "film"]


@dataclass(frozen=True)
class SourceConfig:
    """One file of RadR records. Reasoning sources get the instruction sentence and a think block as target; the
    others have the bare answer as target. Where the `targets` are not in the text, the answer's words stand at the
    film's own tokens, which trains a vision tower with little text: `regions`, a word for what each visual token shows
    ("clear edema …"); `film`, words about the whole film ("present absent …", a label each), at its last tokens."""

    path: str = ""  # relative to the job's data root
    weight: float = bounded(1.0, min=0.0)
    reasoning: bool = True
    targets: Targets = "text"
    image_root: str = ""  # relative to the data root; empty: the file's own folder


@dataclass(frozen=True)
class Source:
    """A source read into memory: its records (small: images stay on disk). A bad record keeps its place, so that the
    draws do not change when it is fixed."""

    records: tuple[Sample | Problem, ...]
    weight: float = 1.0
    reasoning: bool = True
    targets: Targets = "text"

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The records that can be used."""
        return tuple(record for record in self.records if isinstance(record, Sample))


def read_source(config: SourceConfig, root: str | Path, max_bad: float = 0.0) -> Source:
    """The records of a source; those that are bad are logged. Raises UserError for an unreadable or empty file, and
    where more than the share `max_bad` of its records are bad."""
    path = Path(root, config.path)
    image_root = Path(root, config.image_root) if config.image_root else None
    return Source(tuple(read_most(path, image_root, max_bad)), config.weight, config.reasoning, config.targets)


def draw(sources: Sequence[Source], seed: int, number: int) -> tuple[int, int]:
    """The `number`-th training record, as the numbers of its source and of the record in it: a source by weight, then
    one of its records uniformly, with replacement (the release's SFT sampling). Depends on nothing but its arguments,
    so that any place in the stream can be resumed."""
    random = np.random.default_rng((seed, number))
    weights = np.array([source.weight for source in sources])
    source_number = int(random.choice(len(sources), p=weights / weights.sum()))
    return source_number, int(random.integers(len(sources[source_number].records)))
