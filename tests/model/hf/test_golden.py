"""Stored results of transformers, for machines without torch (tests/golden/make.py writes them)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chestx_jax.model.qwen_vl import forward, logits
from chestx_jax.rollout.sampling import SamplingConfig, Vocabulary
from chestx_jax.tokens.rows import RowsConfig, pack, prompts
from tests.golden.make import CASES, NEW, parameters
from tests.helpers.paths import GOLDEN
from tests.helpers.sampling import generate
from tests.helpers.tiny_models import EOS, PAD, VOCABULARY, examples, image_spec, tiny


@pytest.fixture(scope="module", params=CASES)
def case(request):
    config = tiny(**CASES[request.param])
    with np.load(GOLDEN / f"{request.param}.npz") as stored:
        golden = dict(stored)
    return config, jax.tree.map(jnp.asarray, parameters(config)), golden


def test_logits_are_the_stored_ones(case):
    config, params, golden = case
    rows = examples(image_spec(config).patch_pixels)
    shape = RowsConfig(max(len(row.ids) for row in rows), 3, 120)
    batch = jax.tree.map(jnp.asarray, pack([[row] for row in rows], shape, image_spec(config)))
    run = jax.jit(lambda params: logits(config, params, forward(config, params, batch.tokens, batch.images)))
    scores = np.asarray(run(params))
    for i, row in enumerate(rows):
        np.testing.assert_allclose(scores[i, len(row.ids) - 1], golden[f"last_{i}"], atol=1e-4, rtol=1e-4)


def test_greedy_tokens_are_the_stored_ones(case):
    config, params, golden = case
    rows = examples(image_spec(config).patch_pixels)
    batch = prompts(rows, RowsConfig(max(len(row.ids) for row in rows), 3, 120), range(len(rows)), image_spec(config))
    allowed = np.ones(VOCABULARY, bool)
    allowed[[EOS, PAD]] = False  # transformers was made to generate all tokens
    vocabulary = Vocabulary(allowed=jnp.asarray(allowed), stop_ids=jnp.asarray([EOS, PAD], jnp.int32))
    sampling = SamplingConfig(temperature=0.0, length=NEW, group=1)
    rollout = generate(config, sampling, params, batch, vocabulary)
    for i in range(len(rows)):
        assert np.asarray(rollout.ids[i]).tolist() == golden[f"greedy_{i}"].tolist()
