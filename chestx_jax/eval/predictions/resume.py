"""Answering a set of samples, whatever answers: a prediction is written as it comes, and none is asked for twice."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from chestx_jax.data.schema import Sample
from chestx_jax.errors import UserError
from chestx_jax.eval.predictions.records import Prediction, append_predictions, read_predictions
from chestx_jax.files import drop_torn_line

# The only way an evaluator sees a model. It may answer in any order and leave samples out (films that cannot be read);
# it is handed an empty list where nothing is missing.
Predict = Callable[[Sequence[Sample]], Iterator[Prediction]]


def predict_missing(
    path: str | Path,
    samples: Sequence[Sample],
    predict: Predict,
    say: Callable[[str], None] = lambda text: None,
    model: str = "",
) -> list[Prediction]:
    """Predictions of `samples` in their order, those in the file at `path` and those still to be asked for.

    Args:
      path: JSON lines of predictions; kept when a run dies, so that the next asks only for what is missing.
      samples: what to answer. predict: answers the samples it is handed.
      say: told the progress, with the time left, every few seconds.
      model: who answers; noted in the file.

    Raises:
      UserError: the file holds predictions of other samples, or of another model.
    """
    path = Path(path)
    drop_torn_line(path)
    known = {_key(p): p for p in read_predictions(path)} if path.exists() and path.stat().st_size else {}
    missing = [sample for sample in samples if (sample.id, sample.question) not in known]
    if missing and len(known) and not any((s.id, s.question) in known for s in samples):
        raise UserError(f"{path} holds predictions of other samples; give another --out, or the data it was made with")
    others = sorted({prediction.model for prediction in known.values()} - {"", model})
    if model and others:
        raise UserError(f"{path} holds answers of {', '.join(others)}; give another --out for those of {model}")
    started = told = arrived = time.monotonic()
    named = (replace(prediction, model=model) for prediction in predict(missing))
    for count, prediction in enumerate(append_predictions(path, named)):
        known[_key(prediction)] = prediction
        now = time.monotonic()
        # A batch arrives at once: the first of one says how long those before it took, compiling included.
        if not count:
            told = now
        elif now - told > 5:
            left = (arrived - started) / count * (len(missing) - count) - (now - arrived)
            say(f"{len(known)} of {len(samples)} answered, {max(left, 0):.0f} s left")
            told = now
        arrived = now
    return [known[key] for sample in samples if (key := (sample.id, sample.question)) in known]


def _key(prediction: Prediction) -> tuple[str, str]:
    return prediction.sample_id, prediction.question
