"""Greedy answers to a list of records: the only way that a job's tests see a model."""

from collections.abc import Iterator, Sequence

import numpy as np

from chestx_jax import sharding
from chestx_jax.data.schema import Sample
from chestx_jax.eval.predictions.records import Prediction, from_sample
from chestx_jax.multihost import all_gather, local_row_indices
from chestx_jax.recipes import EvaluationConfig
from chestx_jax.training.run_context import RunContext, on_devices


def answers(
    context: RunContext, config: EvaluationConfig, params, samples: Sequence[Sample], blind: bool = False
) -> Iterator[Prediction]:
    """One prediction per sample, in order; a record whose film cannot be read is left out (and logged).

    Of several processes each prepares its own rows of a batch, and all of them get every prediction.
    """
    program = context.programs["test/generate"]
    step = on_devices(context, 0)
    own = local_row_indices(program.in_shardings[1].index, config.batch)
    for asked in context.prompts_once(samples, config.batch, config.rows, blind, own):
        prompts = sharding.put(asked.prompts, program.in_shardings[1])
        rollout = context.functions["test/generate"](params, prompts, context.vocabulary, step)
        index, rollout = all_gather((prompts.index, rollout))
        texts = context.texts(rollout.ids, rollout.length)
        for row in np.argsort(index, kind="stable"):
            if index[row] >= 0:
                yield from_sample(
                    samples[index[row]],
                    texts[row],
                    truncated=not bool(rollout.finished[row]),
                    tokens=int(rollout.length[row]),
                )
