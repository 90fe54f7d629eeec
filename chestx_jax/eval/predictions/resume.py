"""Predictions of a set of samples by any model, kept in a file: written as they come, never computed twice."""

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from chestx_jax.data.questions import question_key
from chestx_jax.data.schema import Sample
from chestx_jax.errors import UserError
from chestx_jax.eval.predictions.records import Prediction, append_predictions, from_sample, read_predictions
from chestx_jax.files import drop_torn_line

# All that evaluation knows of a model. Predictions come in any order; samples whose film cannot be read are left out.
# It is called with an empty list where nothing is missing.
Predict = Callable[[Sequence[Sample]], Iterator[Prediction]]


def predict_missing(
    path: str | Path,
    samples: Sequence[Sample],
    predict: Predict,
    log: Callable[[str], None] = lambda text: None,
    model: str = "",
) -> list[Prediction]:
    """Predictions of `samples` in their order: those in the file at `path`, and those of `predict` for the rest.

    An answer in the file is that of a sample if id, question and the names of the films are; what it is compared with
    (gold answer, report, steps) is the sample's, which may have changed since.

    Args:
      path: JSON lines of predictions; kept when a run dies, so that the next predicts only what is missing.
      log: gets the progress, with the time left, every few seconds.
      model: the name noted in the file.

    Raises:
      UserError: the file holds predictions of other samples, or of another model.
    """
    path = Path(path)
    drop_torn_line(path)
    known = {_key(p): p for p in read_predictions(path)} if path.exists() and path.stat().st_size else {}
    missing = [sample for sample in samples if _sample_key(sample) not in known]
    if known and len(missing) == len(samples) > 0:
        raise UserError(f"{path} holds predictions of other samples; give another --out, or the data it was made with")
    others = sorted({prediction.model for prediction in known.values()} - {"", model})
    if model and others:
        raise UserError(f"{path} holds answers of {', '.join(others)}; give another --out for those of {model}")
    started = logged = arrived = time.monotonic()
    named = (replace(prediction, model=model) for prediction in predict(missing))
    for count, prediction in enumerate(append_predictions(path, named)):
        known[_key(prediction)] = prediction
        now = time.monotonic()
        # A batch arrives at once: its first prediction shows how long those before it took, compiling included.
        if not count:
            logged = now
        elif now - logged > 5:
            left = (arrived - started) / count * (len(missing) - count) - (now - arrived)
            log(f"{len(known)} of {len(samples)} answered, {max(left, 0):.0f} s left")
            logged = now
        arrived = now
    return [_of_sample(known[key], sample) for sample in samples if (key := _sample_key(sample)) in known]


def _key(prediction: Prediction) -> Hashable:
    return prediction.sample_id, question_key(prediction.question), *map(_name, prediction.images)


def _sample_key(sample: Sample) -> Hashable:
    return sample.id, question_key(sample.question), *map(_name, sample.images)


def _name(image: str) -> str:
    return Path(image).name


def _of_sample(prediction: Prediction, sample: Sample) -> Prediction:
    """The prediction with everything but what the model gave taken from the sample."""
    given = ("truncated", "tokens", "probability", "model")
    return from_sample(sample, prediction.pred, **{name: getattr(prediction, name) for name in given})
