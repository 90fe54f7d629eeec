"""Several processes answering one set of samples: each prepares its share, all compute, the primary writes the file.

The processes of a slice must run the same programs in the same order, so the primary, which alone reads the file of
predictions, tells the others which samples it lacks. On a single process nothing here does anything.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Bool

from chestx_jax import multihost
from chestx_jax.data.schema import Sample
from chestx_jax.eval.predictions.records import Prediction
from chestx_jax.eval.predictions.resume import Predict, predict_missing


def predict_on_all_processes(
    path: str | Path, samples: Sequence[Sample], predict: Predict, log: Callable[[str], None]
) -> list[Prediction]:
    """`predict_missing` on the primary process, with the help of the others, which get what was missing alone."""
    if multihost.is_primary():
        return predict_missing(path, samples, coordinate(samples, predict), log)
    return participate(samples, predict)


def coordinate(samples: Sequence[Sample], predict: Predict) -> Predict:
    """`predict` for the primary process: tells the participants which of `samples` are missing before it begins."""
    if jax.process_count() == 1:
        return predict

    def coordinated(missing: Sequence[Sample]) -> Iterator[Prediction]:
        multihost_utils.broadcast_one_to_all(missing_mask(samples, missing))
        return predict(missing)

    return coordinated


def participate(samples: Sequence[Sample], predict: Predict) -> list[Prediction]:
    """Predicts with the primary process, on every other one, the samples that it says are missing; returns them."""
    mask = multihost_utils.broadcast_one_to_all(np.zeros(len(samples), bool))
    return list(predict([sample for sample, missing in zip(samples, mask, strict=True) if missing]))


def missing_mask(samples: Sequence[Sample], missing: Sequence[Sample]) -> Bool[np.ndarray, " samples"]:
    """Which of `samples` are among `missing`."""
    keys = {(sample.id, sample.question) for sample in missing}
    return np.array([(sample.id, sample.question) in keys for sample in samples], bool)
