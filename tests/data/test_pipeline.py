"""What the loops read: nothing dropped, nothing reordered, resumed anywhere, bad records counted, blind when asked."""

import itertools
import json
from dataclasses import replace

import grain
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from chestx_jax.buckets import LengthsConfig, smallest_bucket
from chestx_jax.data.augment import AugmentConfig
from chestx_jax.data.mixture import Source, SourceConfig, draw, read_source
from chestx_jax.data.packing import PackedBatches, fits
from chestx_jax.data.pipeline import supervised_batches
from chestx_jax.data.reward_targets import reward_targets
from chestx_jax.errors import UserError
from chestx_jax.model.pixels import normalise
from chestx_jax.tokens.film_cache import FilmCache
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.rows import Example, RowsConfig
from tests.helpers.streams import COUNT, LENGTHS, LEXICON, ROWS, prompting, same, supervised


@pytest.mark.parametrize("iterator", [supervised, prompting])
def test_films_of_any_shape_share_rows_of_one_size(folder, samples, encoder, iterator):
    """With aspect "keep" films have grids of their own; each fills the beginning of its slot."""
    shapes = [(56, 56), (28, 112), (84, 28), (200, 90), (40, 140)]
    for number, shape in enumerate(shapes):
        Image.new("L", shape, 40 * number + 20).save(folder / f"shape-{number}.png")
    shaped = [
        replace(sample, images=(str(folder / f"shape-{number % 5}.png"),)) for number, sample in enumerate(samples)
    ]
    image = ImageSpec(min_pixels=784, max_pixels=56 * 56, temporal_patch_size=1)
    batch = next(iterator(shaped, encoder._replace(image=image)))
    images, tokens = (
        (batch.prompts if iterator is prompting else batch).images,
        (getattr(batch, "prompts", batch)).tokens,
    )
    assert images.patches.shape[2:] == (ROWS.patches, image.patch_pixels)
    assert images.patches.dtype == np.uint8
    counts = images.valid.sum(-1)
    assert set(counts[counts > 0].tolist()) > {16}
    for row, slot in zip(*np.nonzero(counts), strict=True):
        count = counts[row, slot]
        assert images.valid[row, slot, :count].all()
        visual = tokens.visual[row] // (ROWS.patches // 4) == slot
        assert visual[tokens.visual[row] >= 0].sum() == count // 4
        grid = images.positions[row, slot, :count].max(0) + 1
        assert grid.prod() == count


# Packing


def bare(tokens, slots, mark):
    """An example of so many tokens and image slots; its ids tell it from all others."""
    text = np.full(tokens, mark, np.int32)
    film = (np.zeros((4, 3), np.float32), np.zeros((4, 2), np.int32))
    return Example(text, np.zeros((tokens, 3), np.int32), text, np.ones(tokens, np.float32), (film,) * slots)


@settings(max_examples=30)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 2)), min_size=1, max_size=20),
    count=st.integers(1, 4),
)
def test_packing_drops_and_reorders_nothing(sizes, count):
    """Every batch is a stretch of the stream, each row in its order; it is closed only by what fits nowhere in it."""
    rows = RowsConfig(length=20, image_slots=2)
    stream = [bare(*size, mark) for mark, size in enumerate(sizes)]
    parent = grain.MapDataset.source(stream).repeat().to_iter_dataset(grain.ReadOptions(1, 4))
    batches = iter(PackedBatches(parent, count, rows, lambda packed: packed))
    number = 0
    for _ in range(4):
        packed = next(batches)
        assert len(packed) == count
        marks = [[int(example.ids[0]) for example in row] for row in packed]
        many = sum(map(len, marks))
        stretch = [(number + i) % len(sizes) for i in range(many)]
        assert sorted(mark for row in marks for mark in row) == sorted(stretch)
        left = list(stretch)
        for row in marks:  # each row is a subsequence of the stretch
            place = iter(left)
            assert all(mark in place for mark in row)
        for row in packed:
            assert sum(len(example.ids) for example in row) <= rows.length
            assert sum(len(example.images) for example in row) <= rows.image_slots
        number += many
        assert not any(fits(row, stream[number % len(sizes)], rows) for row in packed)


# Resuming


@pytest.mark.parametrize("make", [supervised, prompting])
def test_resumed_anywhere_the_stream_is_the_same(make, samples, encoder):
    """States go through JSON, as in a checkpoint, and fit a fresh iterator of the same configuration."""
    batches = make(samples, encoder)
    states = [json.dumps(batches.get_state())]
    stream = []
    for _ in range(7):
        stream.append(next(batches))
        states.append(json.dumps(batches.get_state()))
    for place in range(len(stream)):
        again = make(samples, encoder)
        if place % 2:  # also from an iterator that has been read already
            next(again)
        again.set_state(json.loads(states[place]))
        for wanted in stream[place : place + 3]:
            same(next(again), wanted)


@pytest.mark.parametrize("make", [supervised, prompting])
def test_the_seed_decides(make, samples, encoder):
    one, same_seed, other = (next(make(samples, encoder, seed=seed)) for seed in (1, 1, 2))
    same(one, same_seed)
    with pytest.raises(AssertionError):
        same(one, other)


@pytest.mark.parametrize("make", [supervised, prompting])
def test_a_batch_takes_the_smallest_bucket_that_holds_it(make, samples, encoder, monkeypatch):
    """And holds what it would hold in rows of the limit."""
    bucketed = list(itertools.islice(make(samples, encoder), 8))
    monkeypatch.setitem(make.__globals__, "LENGTHS", LengthsConfig(rows=(ROWS.length,), image_slots=(3,)))
    taken = set()
    for small, large in zip(bucketed, itertools.islice(make(samples, encoder), 8), strict=True):
        small, large = (batch.prompts if make is prompting else batch for batch in (small, large))
        used = (large.tokens.segments != 0).sum(1).max(), large.images.valid.any(2).sum(1).max()
        buckets = (100, 130, 200, ROWS.length), (1, 2, 3)
        tokens, slots = map(smallest_bucket, used, buckets)
        assert small.tokens.ids.shape[1] == tokens
        assert small.images.valid.shape[1] == slots
        taken.add((tokens, slots))
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y[:, : x.shape[1]]), small.tokens, large.tokens)
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y[:, : x.shape[1]]), small.images, large.images)
        assert large.images.valid[:, slots:].sum() == large.tokens.segments[:, tokens:].sum() == 0
    assert len(taken) > 1


# What the batches hold


def test_blind_films_are_of_one_tone_and_nothing_else_changes(samples, encoder):
    seeing, blind = next(supervised(samples, encoder)), next(supervised(samples, encoder._replace(blind=True)))
    values, valid = np.asarray(normalise(blind.images, frames=1)), blind.images.valid
    assert np.abs(values[valid]).max() < 0.5 / 255 / 0.25  # the mean, to the nearest of 256 tones
    assert np.abs(np.asarray(normalise(seeing.images, frames=1))[valid]).max() > 1
    same(seeing.replace(images=seeing.images.replace(patches=blind.images.patches)), blind)


@pytest.mark.parametrize("make", [supervised, prompting])
def test_a_film_is_augmented_anew_each_time(make, samples, encoder):
    """In each epoch otherwise, and not at all by default; a film whose regions are the targets stays as it is."""

    def film(batch):
        return getattr(batch, "prompts", batch).images.patches[0, 0].tobytes()

    one = [replace(samples[1], answer="clear " * 4)]
    plain = encoder._replace(augment=AugmentConfig())
    shown, bare = ([film(batch) for batch in itertools.islice(make(one, e, count=1), 6)] for e in (encoder, plain))
    assert len(set(shown)) == 6
    assert len(set(bare)) == 1
    for targets, count in (("regions", 1), ("film", 3)):
        source = Source(tuple(one), targets=targets)
        batches = supervised_batches([source], encoder, 1, ROWS, LENGTHS, 0, 0.0)
        assert len({film(batch) for batch in itertools.islice(batches, 3)}) == count


@pytest.mark.parametrize("make", [supervised, prompting])
def test_threads_and_a_cache_change_no_batch(make, samples, encoder, tmp_path):
    """Films are cached as they are before they are augmented; the second time all of them come from there."""
    keeping = encoder._replace(cache=FilmCache(tmp_path / "cache", 2**20))
    plain = make(samples, encoder)
    kept = [make(samples, keeping, threads=threads) for threads in (1, 5, 0)]
    for _ in range(2 * COUNT):
        expected = next(plain)
        for batches in kept:
            same(next(batches), expected)
    assert sum(path.is_file() for path in (tmp_path / "cache").rglob("*")) == COUNT


def test_every_record_once_an_epoch_shuffled_anew(samples, encoder):
    batches = prompting(samples, encoder, count=1)
    numbers = [samples.index(next(batches).samples[0]) for _ in range(3 * COUNT)]
    epochs = [tuple(numbers[start : start + COUNT]) for start in range(0, 3 * COUNT, COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len(set(epochs)) == 3


def test_a_prompt_is_its_place_in_the_data(samples, encoder):
    """A record that comes twice is two prompts, in one batch as in another; a place is the same after a restart."""
    batches = prompting(samples[:3], encoder)
    seen = [next(batches) for _ in range(3)]
    assert [batch.prompts.index.tolist() for batch in seen] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert all(len(set(batch.samples)) == 3 for batch in seen)
    again = prompting(samples[:3], encoder)
    again.set_state(batches.get_state())
    assert next(again).prompts.index.tolist() == [12, 13, 14, 15]


def test_prompts_come_with_their_reward_targets(samples, encoder):
    batches = prompting(samples, encoder)
    for _ in range(3):
        prompt_batch = next(batches)
        expected = reward_targets(LEXICON, prompt_batch.samples, 4)
        jax.tree.map(np.testing.assert_array_equal, prompt_batch.targets, expected)
        assert prompt_batch.targets.letters.tolist() == ["_AB".index(s.answer) for s in prompt_batch.samples]
        assert ((prompt_batch.prompts.tokens.segments != 0).sum(1) == prompt_batch.prompts.length).all()


@settings(max_examples=8)
@given(plan=st.lists(st.tuples(st.sampled_from([1, 2, 4]), st.integers(1, 2)), min_size=1, max_size=3))
@pytest.mark.parametrize("make", [supervised, prompting])
def test_any_number_of_processes_reads_the_same_batches(make, broken, encoder, plan):
    """Each lays out its rows; whatever their number, all go on from one place, over bad records and epochs."""
    whole = make(broken, encoder, 1.0, count=4)
    place = whole.get_state()
    for processes, steps in plan:
        parts = [make(broken, encoder, 1.0, own_rows=range(p, 4, processes), count=4) for p in range(processes)]
        for part in parts:
            part.set_state(json.loads(json.dumps(place)))
        for _ in range(steps):
            wanted = next(whole)
            for number, part in enumerate(parts):
                one, all_rows = (getattr(batch, "prompts", batch) for batch in (next(part), wanted))
                for own, rows in zip(jax.tree.leaves(one), jax.tree.leaves(all_rows), strict=True):
                    np.testing.assert_array_equal(own, rows[number::processes])
        place = whole.get_state()
        assert all(json.dumps(part.get_state()) == json.dumps(place) for part in parts)


def test_draws_follow_the_weights():
    sources = [
        Source(tuple("ab"), 3.0, True),
        Source(tuple("xyz"), 1.0, False),
        Source(("never",), 0.0, True),
    ]
    drawn = [draw(sources, 5, number) for number in range(4000)]
    assert drawn[:50] == [draw(sources, 5, number) for number in range(50)]
    assert drawn[:50] != [draw(sources, 6, number) for number in range(50)]
    share = lambda texts: np.mean([sources[source].records[record] in texts for source, record in drawn])  # noqa: E731
    assert share("ab") == pytest.approx(0.75, abs=0.03)
    assert [share(one) for one in "ab"] == pytest.approx([0.375] * 2, abs=0.03)
    assert [share(one) for one in "xyz"] == pytest.approx([1 / 12] * 3, abs=0.03)
    assert share(("never",)) == 0


def test_nothing_to_train_on_is_said_at_once(samples, encoder, tmp_path):
    for sources in ([], [Source(samples, 0.0, True)]):
        with pytest.raises(UserError, match="weight above 0"):
            supervised_batches(sources, encoder, 2, ROWS, LENGTHS, 0, 0.0)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match=r"empty\.jsonl"):
        read_source(SourceConfig(path="empty.jsonl"), tmp_path)
