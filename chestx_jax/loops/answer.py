"""Greedy answers to a list of records: the only way that evaluators see a model."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from chestx_jax import sharding
from chestx_jax.data.schema import Sample
from chestx_jax.eval.records import Prediction, from_sample
from chestx_jax.loops.setting import Setting, on_devices
from chestx_jax.recipes import EvaluationConfig


def answers(
    setting: Setting, config: EvaluationConfig, params, samples: Sequence[Sample], blind: bool = False
) -> Iterator[Prediction]:
    """One prediction per sample, in order; a record whose film cannot be read is left out (and logged)."""
    program = setting.programs["test/generate"]
    step = on_devices(setting, 0)
    for asked in setting.prompts_once(samples, config.batch, config.rows, blind):
        prompts = sharding.put(asked.prompts, program.in_shardings[1])
        rollout = jax.device_get(setting.functions["test/generate"](params, prompts, setting.vocabulary, step))
        texts = setting.texts(rollout.ids, rollout.length)
        for row in np.flatnonzero(asked.prompts.index >= 0):
            yield from_sample(
                asked.samples[row],
                texts[row],
                truncated=not bool(rollout.finished[row]),
                tokens=int(rollout.length[row]),
            )
