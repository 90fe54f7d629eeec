"""M-RoPE positions against transformers, and rows that put every sample's tokens where they belong."""

import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.errors import UserError
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.positions import mrope
from chestx_jax.tokens.rows import RowsConfig, encode, pack, prompts
from chestx_jax.tokens.tokenizer import load_tokenizer, special_ids, train_tokenizer

PAD = 9
SPEC = ImageSpec(patch_size=1)  # patches of one pixel
grids_of = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)).map(lambda g: (2 * g[0], 2 * g[1])), max_size=3)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["Is there an effusion? The lungs are clear."] * 9, folder, 300)
    return load_tokenizer(folder)


def sample_ids(grids, gaps):
    ids = [1] * gaps[0]
    for (rows, columns), gap in zip(grids, gaps[1:], strict=False):
        ids += [PAD] * (rows * columns // 4) + [1] * gap
    return np.array(ids, np.int32)


@pytest.mark.parametrize(
    "family", ["qwen2_vl.modeling_qwen2_vl.Qwen2VLModel", "qwen3_vl.modeling_qwen3_vl.Qwen3VLModel"]
)
@settings(max_examples=40)
@given(grids=grids_of, gaps=st.lists(st.integers(1, 7), min_size=4, max_size=4))
def test_positions_equal_get_rope_index(family, grids, gaps):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    from types import SimpleNamespace

    module, _, name = family.rpartition(".")
    kind = getattr(importlib.import_module(f"transformers.models.{module}"), name)
    ids = sample_ids(grids, gaps)
    model = SimpleNamespace(config=SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2)))
    model.get_vision_position_ids = lambda *args, **named: kind.get_vision_position_ids(model, *args, **named)
    grid_thw = torch.tensor([[1, *grid] for grid in grids]) if grids else None
    kinds = torch.tensor(ids == PAD).int()[None]
    expected, _ = kind.get_rope_index(model, torch.tensor(ids)[None].long(), kinds, grid_thw)
    np.testing.assert_array_equal(mrope(ids, grids, PAD, 2), expected[:, 0].T.numpy())


def test_positions_of_a_known_sample():
    positions = mrope(np.array([1, 1, PAD, PAD, PAD, PAD, PAD, PAD, 1]), [(4, 6)], PAD, 2)
    assert positions.tolist() == [
        [0, 0, 0], [1, 1, 1],
        [2, 2, 2], [2, 2, 3], [2, 2, 4], [2, 3, 2], [2, 3, 3], [2, 3, 4],
        [5, 5, 5],
    ]  # fmt: skip


def test_placeholders_must_match_the_images():
    with pytest.raises(UserError, match="1 image placeholders, its 1 images fill 4"):
        mrope(np.array([1, PAD, 1]), [(4, 4)], PAD, 2)
    with pytest.raises(UserError, match="2 image placeholders, its 0 images fill 0"):
        mrope(np.array([1, PAD, PAD]), [], PAD, 2)
    with pytest.raises(UserError, match="broken up"):
        mrope(np.array([PAD, PAD, 1, PAD, PAD]), [(4, 4)], PAD, 2)


def made(tokenizer, grids, target="Clear.", seed=0):
    rng = np.random.default_rng(seed)
    images = [(rng.integers(0, 256, (r * c, 3), np.uint8), (r, c)) for r, c in grids]
    return encode(tokenizer, special_ids(tokenizer), "Is it clear?", images, True, target)


def test_encode_weighs_the_target_alone(tokenizer):
    example = made(tokenizer, [(4, 4)])
    special = special_ids(tokenizer)
    learned = example.ids[example.weights == 1]
    assert tokenizer.decode(learned[:-1]) == "Clear."
    assert learned[-1] == special.im_end
    prompt = made(tokenizer, [(4, 4)], target=None)
    assert not prompt.weights.any()
    np.testing.assert_array_equal(prompt.ids, example.ids[example.weights == 0])
    assert tokenizer.decode(prompt.ids).endswith("<|im_start|>assistant\n")
    assert example.visual.max() == 3
    assert ((example.visual >= 0) == (example.ids == special.image_pad)).all()


@settings(max_examples=30)
@given(plan=st.lists(st.lists(grids_of, max_size=3), min_size=1, max_size=3))
def test_packing_keeps_every_sample_whole(tokenizer, plan):
    rows = [[made(tokenizer, grids, seed=10 * b + i) for i, grids in enumerate(row)] for b, row in enumerate(plan)]
    length = max((sum(len(example.ids) for example in row) for row in rows), default=0) + 3
    batch = pack(rows, RowsConfig(length, 9, 64), SPEC)
    for b, row in enumerate(rows):
        visual = batch.images.patches[b].reshape(9 * 64 // 4, 4, 3)  # merged tokens in the order the model sees them
        where = batch.images.positions[b].reshape(9 * 64 // 4, 4, 2)
        valid = batch.images.valid[b].reshape(-1, 4)
        used = np.zeros(len(valid), bool)
        for segment, example in enumerate(row, start=1):
            here = batch.tokens.segments[b] == segment
            np.testing.assert_array_equal(batch.tokens.ids[b, here], example.ids)
            np.testing.assert_array_equal(batch.tokens.positions[b, here], example.positions)
            np.testing.assert_array_equal(batch.weights[b, here], example.weights)
            index = batch.tokens.visual[b, here]
            index = index[index >= 0]
            if example.images:
                np.testing.assert_array_equal(
                    visual[index].reshape(-1, 3), np.concatenate([v for v, _ in example.images])
                )
                np.testing.assert_array_equal(
                    where[index].reshape(-1, 2), np.concatenate([p for _, p in example.images])
                )
            assert valid[index].all()
            assert not used[index].any()
            used[index] = True
        np.testing.assert_array_equal(used, valid.all(-1))
        padding = batch.tokens.segments[b] == 0
        assert padding.sum() == length - sum(len(example.ids) for example in row)
        assert (batch.tokens.visual[b, padding] == -1).all()
        assert not batch.weights[b, padding].any()


def test_prompts_are_rows_of_one(tokenizer):
    examples = [made(tokenizer, [(4, 4)], None), made(tokenizer, [], None)]
    got = prompts(examples, RowsConfig(200, 1, 16), [7, -1], SPEC)
    assert got.length.tolist() == [len(example.ids) for example in examples]
    assert got.index.tolist() == [7, -1]
    assert (got.tokens.segments.sum(axis=1) == got.length).all()


def test_what_does_not_fit_is_refused(tokenizer):
    example = made(tokenizer, [(4, 4), (4, 6)])
    with pytest.raises(UserError, match="tokens"):
        pack([[example]], RowsConfig(10, 2, 24), SPEC)
    with pytest.raises(UserError, match="image slots"):
        pack([[example]], RowsConfig(500, 1, 24), SPEC)
    with pytest.raises(UserError, match="24 patches"):
        pack([[example]], RowsConfig(500, 2, 16), SPEC)
