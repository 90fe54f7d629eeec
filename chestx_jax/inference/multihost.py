"""Several processes answering one set of samples: each prepares its share, all compute, the first keeps the book.

The processes of a slice must run the same programs in the same order, so the first, which alone reads and writes the
file of predictions, tells the others which samples it lacks. On a single process nothing here does anything.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from chestx_jax import multihost
from chestx_jax.data.schema import Sample
from chestx_jax.eval.predictions.records import Prediction
from chestx_jax.eval.predictions.resume import Predict, predict_missing


def coordinate(samples: Sequence[Sample], predict: Predict) -> Predict:
    """`predict` for the first process: it tells those that follow which of `samples` it asks, and asks with them."""
    if jax.process_count() == 1:
        return predict

    def lead(missing: Sequence[Sample]) -> Iterator[Prediction]:
        multihost_utils.broadcast_one_to_all(missing_mask(samples, missing))
        return predict(missing)

    return lead


def participate(samples: Sequence[Sample], predict: Predict) -> list[Prediction]:
    """What every process but the first does while the first answers `samples`; returns what was answered meanwhile."""
    asked = multihost_utils.broadcast_one_to_all(np.zeros(len(samples), bool))
    return list(predict([sample for sample, wanted in zip(samples, asked, strict=True) if wanted]))


def missing_mask(samples: Sequence[Sample], missing: Sequence[Sample]) -> np.ndarray:
    """bool[samples]: which of them `missing` holds."""
    wanted = {(sample.id, sample.question) for sample in missing}
    return np.array([(sample.id, sample.question) in wanted for sample in samples], bool)


def predict_on_all_processes(
    path: str | Path, samples: Sequence[Sample], predict: Predict, say: Callable[[str], None]
) -> list[Prediction]:
    """`predict_missing` on the first process; the others help, and get the predictions that were missing."""
    if multihost.is_primary():
        return predict_missing(path, samples, coordinate(samples, predict), say)
    return participate(samples, predict)
