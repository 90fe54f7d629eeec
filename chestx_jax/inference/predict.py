"""A loaded model's predictions for samples: greedy answers, as many at a time as the sampler has slots."""

from collections.abc import Iterator, Sequence

from chestx_jax.buckets import BucketUse, LengthsConfig
from chestx_jax.data.bad_records import Attempt, BadRecords, attempt
from chestx_jax.data.pipeline import encode_prompt
from chestx_jax.data.schema import Sample
from chestx_jax.eval.predictions.records import Prediction, from_sample
from chestx_jax.inference.answers import answer_window, bucket, window_places
from chestx_jax.inference.loaded_model import LoadedModel
from chestx_jax.multihost import all_max
from chestx_jax.programs.generation import WINDOW
from chestx_jax.rollout.loop import Sampler
from chestx_jax.tokens.reading import map_ahead, thread_count
from chestx_jax.tokens.rows import RowsConfig, checked_size


def predict(
    model: LoadedModel,
    samples: Sequence[Sample],
    sampler: Sampler,
    bad: BadRecords,
    rows: RowsConfig | None = None,
    lengths: LengthsConfig | None = None,
    use: BucketUse | None = None,
    threads: int = 0,
) -> Iterator[Prediction]:
    """One prediction per sample, in order; a sample whose film cannot be read is counted in `bad` and left out.

    Args:
      sampler: answers as many prompts at a time as it has slots, over all processes. Each process prepares its own
        rows of a few times as many, and all get every prediction.
      rows: what prompts may have of tokens, image slots and patches; None: whatever they need.
      lengths: the buckets that each window's prompts are padded to; None: the default ones.
      use: counts the windows in each bucket.
      threads: read the films of the next window while this one is answered (0: one a core).

    Raises:
      UserError: more samples are bad than `bad` allows.
    """

    def encode(number: int) -> Attempt:
        sample = samples[number]
        prompt = lambda: encode_prompt(model.encoder, sample.question, sample.images)  # noqa: E731
        return attempt(lambda: checked_size(prompt(), rows) if rows else prompt(), 0, number, sample.name)

    window = WINDOW * sampler.slots
    places = window_places(model, window)
    blank = encode_prompt(model.encoder, "", ())  # for a process that has no sample in a window
    starts = range(0, len(samples), window)
    own = ([start + place for place in sorted(places) if start + place < len(samples)] for start in starts)
    for start, attempts in zip(starts, map_ahead(encode, own, thread_count(threads)), strict=True):
        numbers = [start + place for place in places]
        for record in attempts:
            if record.problem:
                bad.add(record.number, record.name, record.problem)
        encoded = {record.number: record.value for record in attempts}
        readable = [example for example in encoded.values() if example is not None]
        (most_readable,) = all_max((len(readable),))
        if not most_readable:
            continue
        shape = bucket(readable or [blank], rows, lengths)
        if use is not None:
            use.add("prefill", (shape.length, shape.image_slots))
        examples = [encoded.get(number) for number in numbers]
        if not readable:
            examples, numbers = [blank] * len(examples), [-1] * len(examples)
        for number, answer in answer_window(model, sampler, examples, numbers, shape):
            measured = {"tokens": len(answer.ids), "probability": answer.probability}
            yield from_sample(samples[number], answer.text, truncated=not answer.finished, **measured)
