"""A loaded model's predictions for samples: greedy answers, a batch at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple

from chestx_jax.data.bad_records import BadRecords, attempt
from chestx_jax.data.pipeline import encode_prompt
from chestx_jax.data.schema import Sample
from chestx_jax.eval.predictions.records import Prediction, from_sample
from chestx_jax.inference.answers import Generate, answer_batch, bucket, row_sharding
from chestx_jax.inference.loaded_model import LoadedModel
from chestx_jax.multihost import all_max, local_row_indices
from chestx_jax.tokens.rows import Example, RowsConfig, checked_size


def predict(
    model: LoadedModel,
    samples: Sequence[Sample],
    generate_for: Callable[[RowsConfig], Generate],
    batch: int,
    bad: BadRecords,
    rows: RowsConfig | None = None,
) -> Iterator[Prediction]:
    """One prediction per sample, in order; a sample whose film cannot be read is counted in `bad` and left out.

    Args:
      generate_for: the generation program for a shape of the batch's rows.
      batch: prompts of a batch, over all processes. Each prepares its own rows, and all get every prediction.
      rows: the shape of every batch; None: the bucket of each batch's prompts.

    Raises:
      UserError: more samples are bad than `bad` allows.
    """

    def encode(number: int) -> Example | None:
        sample = samples[number]
        prompt = lambda: encode_prompt(model.encoder, sample.question, sample.images)  # noqa: E731
        record = attempt(lambda: checked_size(prompt(), rows) if rows else prompt(), 0, number, sample.name)
        if record.problem:
            bad.add(number, sample.name, record.problem)
        return record.value

    own_rows = local_row_indices(row_sharding(model, batch), batch)
    blank = encode_prompt(model.encoder, "", ())  # for a process that has no sample in a batch
    for start in range(0, len(samples), batch):
        numbers = [start + row for row in own_rows if start + row < len(samples)]
        encoded = {number: encode(number) for number in numbers}
        readable = {number: example for number, example in encoded.items() if example is not None}
        examples = readable or {-1: blank}
        most_readable, *bucket_sizes = all_max((len(readable), *astuple(bucket(examples.values()))))
        if not most_readable:
            continue
        shape = rows or RowsConfig(*bucket_sizes)
        for number, answer in answer_batch(model, generate_for(shape), examples, shape, batch).items():
            measured = {"tokens": len(answer.ids), "probability": answer.probability}
            yield from_sample(samples[number], answer.text, truncated=not answer.finished, **measured)
