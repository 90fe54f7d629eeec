"""Every family against transformers in torch: visual features, logits, gradients and greedy tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from chestx_jax.model import hf
from chestx_jax.model.hf.names import canonical, weights
from chestx_jax.model.qwen_vl import forward, init, logits
from chestx_jax.rollout.sampling import SamplingConfig, Vocabulary
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.rows import RowsConfig, pack, prompts
from tests.helpers.processor import pixel_values
from tests.helpers.sampling import generate
from tests.helpers.tiny_models import EOS, IMAGE_PAD, PAD, TOKEN_IDS, example, examples, image_spec, tiny

torch = pytest.importorskip("torch", exc_type=ImportError)

CASES = {
    "qwen2-vl 4/2 untied": {"family": "qwen2_vl"},
    "qwen2-vl 7/1 tied": {"family": "qwen2_vl", "heads": 7, "kv_heads": 1, "tied": True},
    "qwen2.5-vl 8/8 untied": {"family": "qwen2_5_vl", "heads": 8, "kv_heads": 8, "head_width": 8},
    "qwen2.5-vl 4/2 tied": {"family": "qwen2_5_vl", "tied": True},
    "qwen3-vl 4/2 untied": {"family": "qwen3_vl"},
    "qwen3-vl 7/1 tied": {"family": "qwen3_vl", "heads": 7, "kv_heads": 1, "tied": True, "deepstack": (1,)},
    "qwen3-vl 4/4 wide heads": {
        "family": "qwen3_vl",
        "kv_heads": 4,
        "head_width": 32,
        "width": 48,
        "layers": 3,
        "deepstack": (0, 1, 2),
    },
    "qwen3-vl 6/3 tied, narrow heads": {
        "family": "qwen3_vl",
        "heads": 6,
        "kv_heads": 3,
        "head_width": 8,
        "width": 64,
        "tied": True,
        "layers": 4,
        "deepstack": (1, 2),
    },
    "qwen3-vl 8/2 without DeepStack": {"family": "qwen3_vl", "heads": 8, "deepstack": ()},
}


@pytest.fixture(scope="module", params=CASES, ids=list(CASES))
def pair(request, tmp_path_factory):
    """Our configuration and random parameters, and transformers' model of the folder they were exported to."""
    import transformers

    config = tiny(**CASES[request.param])
    params = jax.tree.map(
        lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), init(config, jax.random.key(0))
    )
    folder = tmp_path_factory.mktemp("model") / "model"
    hf.save(folder, config, params, TOKEN_IDS, {})
    model = getattr(transformers, config.architecture.transformers).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return config, params, model.eval()


def torch_inputs(rows):
    """The rows as transformers' inputs: right-padded, the images of all rows in one list."""
    length = max(len(row.ids) for row in rows)
    ids = np.full((len(rows), length), PAD)
    mask = np.zeros((len(rows), length), int)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)], mask[i, : len(row.ids)] = row.ids, 1
    images = [image for row in rows for image in row.images]
    inputs = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": (ids == IMAGE_PAD).astype(int)}
    if images:
        inputs["pixel_values"] = np.concatenate([pixel_values(patches, ImageSpec()) for patches, _ in images])
        inputs["image_grid_thw"] = np.array([[1, *(positions.max(0) + 1)] for _, positions in images])
    return {name: torch.tensor(value) for name, value in inputs.items()}


def batch_of(config, rows, extra=0):
    length = max(len(row.ids) for row in rows) + extra
    return jax.tree.map(jnp.asarray, pack([[row] for row in rows], RowsConfig(length, 3, 120), image_spec(config)))


def our_logits(config, params, batch):
    hidden = forward(config, params, batch.tokens, batch.images)
    return logits(config, params, hidden)


def test_logits_agree_row_by_row(pair):
    config, params, model = pair
    rows = examples(image_spec(config).patch_pixels)
    batch = batch_of(config, rows, extra=3)
    ours = np.asarray(jax.jit(our_logits, static_argnums=0)(config, params, batch))
    with torch.no_grad():
        theirs = model(**torch_inputs(rows)).logits.numpy()
    for i, row in enumerate(rows):
        np.testing.assert_allclose(ours[i, : len(row.ids)], theirs[i, : len(row.ids)], atol=1e-4, rtol=1e-4)
    assert np.abs(theirs).max() > 0.5


def test_visual_tokens_agree(pair):
    from chestx_jax.model.qwen_vl import QwenVL

    config, params, model = pair
    row = examples(image_spec(config).patch_pixels)[1]
    batch, inputs = batch_of(config, [row]), torch_inputs([row])
    ours = QwenVL(config).apply({"params": params}, batch.images, method=lambda module, images: module.vision(images))
    with torch.no_grad():
        theirs = model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
    index = np.asarray(batch.tokens.visual[0])
    expected = [theirs.pooler_output, *(getattr(theirs, "deepstack_features", None) or [])]
    features = [ours.tokens, *([] if ours.deepstack is None else ours.deepstack)]
    assert len(features) == 1 + (len(config.vision.deepstack_layers) if config.architecture.deepstack else 0)
    for feature, parts in zip(features, expected, strict=True):
        wanted = torch.cat(parts).numpy()
        np.testing.assert_allclose(np.asarray(feature)[0, index[index >= 0]], wanted, atol=1e-4, rtol=1e-4)
        assert np.abs(wanted).max() > 0.1


def test_gradients_of_the_supervised_loss_agree(pair):
    config, params, model = pair
    rows = examples(image_spec(config).patch_pixels)
    batch = batch_of(config, rows)

    def loss(params):
        scores = jax.nn.log_softmax(our_logits(config, params, batch)[:, :-1])
        picked = jnp.take_along_axis(scores, batch.tokens.ids[:, 1:, None], axis=-1)[..., 0]
        return -(picked * batch.weights[:, 1:]).sum() / batch.weights[:, 1:].sum()

    value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    model.zero_grad()
    scores = model(**torch_inputs(rows)).logits[:, :-1].log_softmax(-1)
    picked = scores.gather(-1, torch.tensor(np.asarray(batch.tokens.ids))[:, 1:, None].long())[..., 0]
    learned = torch.tensor(np.asarray(batch.weights))[:, 1:]
    theirs = -(picked * learned).sum() / learned.sum()
    theirs.backward()
    assert abs(float(value) - theirs.item()) < 1e-5 * abs(theirs.item())
    flat = flatten_dict(gradients)
    torch_gradients = {canonical(name): tensor.grad for name, tensor in model.named_parameters()}
    for weight in weights(config):
        for layer, name in enumerate(weight.names):
            ours = np.asarray(flat[weight.path][layer] if weight.layers else flat[weight.path])
            expected = torch_gradients[name].numpy()
            error = np.linalg.norm(weight.to_tensor(ours) - expected)
            assert error <= 1e-3 * np.linalg.norm(expected) + 1e-7, name


def test_greedy_tokens_agree(pair):
    """The generation engine, prefill and cached decoding, on one image or several: twenty completions of 64 tokens
    of one model, six of the others."""
    config, params, model = pair
    new, count = 64, 20 if config.family == "qwen2_vl" and not config.tied else 6
    pixels, grids = image_spec(config).patch_pixels, [(4, 4), (6, 8)]
    rows = examples(image_spec(config).patch_pixels)
    rows += [example(grids[: 1 + seed % 2], [4, 3, 5 + seed], seed, pixels) for seed in range(4, count)]
    shape = RowsConfig(max(len(row.ids) for row in rows), 3, 120)
    prompt_batch = prompts(rows, shape, range(len(rows)), image_spec(config))
    vocabulary = Vocabulary(allowed=jnp.ones(config.vocab_size, bool), stop_ids=jnp.asarray([EOS, PAD], jnp.int32))
    sampling = SamplingConfig(temperature=0.0, length=new, group=1)
    rollout = generate(config, sampling, params, prompt_batch, vocabulary)
    for i, row in enumerate(rows):
        with torch.no_grad():
            theirs = model.generate(
                **torch_inputs([row]), max_new_tokens=new, do_sample=False, pad_token_id=PAD, eos_token_id=[EOS, PAD]
            )
        assert np.asarray(rollout.ids[i, : rollout.length[i]]).tolist() == theirs[0, len(row.ids) :].tolist()
