"""What the loops read: nothing dropped, nothing reordered, resumed anywhere, bad records counted, blind when asked."""

import itertools
import json
import logging
from dataclasses import replace
from functools import partial

import grain
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from chestx_jax.data.mixture import Source, SourceConfig, draw, read_source
from chestx_jax.data.packing import PackedBatches, fits
from chestx_jax.data.pipeline import BadRecords, Encoder, prompt_batches, supervised_batches
from chestx_jax.data.reward_targets import reward_targets
from chestx_jax.data.schema import Sample
from chestx_jax.errors import UserError
from chestx_jax.lexicon import load
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.rows import Example, RowsConfig
from chestx_jax.tokens.tokenizer import load_tokenizer, special_ids, train_tokenizer
from tests.helpers.bad_films import write_bad_films

ROWS = RowsConfig(length=320, image_slots=3, patches=16)
COUNT = 11  # records
LEXICON = load()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer, and films of distinct grey."""
    folder = tmp_path_factory.mktemp("records")
    train_tokenizer(["Is there an effusion? The lungs are clear. No edema."] * 9, folder / "tokenizer", 320)
    for number in range(COUNT):
        Image.new("L", (56, 56), 20 * number + 10).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def encoder(folder):
    tokenizer = load_tokenizer(folder / "tokenizer")
    return Encoder(
        tokenizer, special_ids(tokenizer), ImageSpec(aspect="squash", height=56, width=56, temporal_patch_size=1)
    )


@pytest.fixture(scope="module")
def samples(folder):
    """Records of unequal length, one without a film, some with two."""
    films = [[], *([number] if number % 3 else [number, 0] for number in range(1, COUNT))]
    return tuple(
        Sample(
            id=f"record-{number}",
            task="binary",
            question="Is there an effusion? " * (1 + number % 3),
            answer="AB"[number % 2],
            images=tuple(str(folder / f"{film}.png") for film in films[number]),
            steps=("The lungs are clear.",) * (1 + number % 4),
            reports=("No edema.",),
            source="made up",
        )
        for number in range(COUNT)
    )


@pytest.fixture(scope="module")
def broken(samples):
    """The same records, every fifth with a film that is not there."""
    lost = ("/nowhere/film.png",)
    return tuple(replace(sample, images=lost) if number % 5 == 2 else sample for number, sample in enumerate(samples))


def supervised(samples, encoder, bad=None, seed=0, shard=(0, 1)):
    sources = [Source(samples, 3.0, True, False), Source(samples, 1.0, False, False)]
    return supervised_batches(sources, encoder, 2, ROWS, seed, bad or BadRecords(0.0), shard)


def prompting(samples, encoder, bad=None, seed=0, shard=(0, 1), count=4):
    return prompt_batches(
        samples, encoder, count, ROWS, seed, bad or BadRecords(0.0), partial(reward_targets, LEXICON, slots=4), shard
    )


def same(one, other):
    """Whether two batches hold the same arrays and records."""
    jax.tree.map(np.testing.assert_array_equal, getattr(one, "prompts", one), getattr(other, "prompts", other))
    assert getattr(one, "samples", None) == getattr(other, "samples", None)


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
    assert images.patches.shape[1:] == (ROWS.image_slots, ROWS.patches, image.patch_values)
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
def test_resumed_over_bad_records_the_stream_is_the_same(make, broken, encoder):
    batches = make(broken, encoder, BadRecords(1.0))
    states, stream = [], []
    for _ in range(5):
        states.append(json.dumps(batches.get_state()))
        stream.append(next(batches))
    for place in range(len(stream)):
        again = make(broken, encoder, BadRecords(1.0))
        again.set_state(json.loads(states[place]))
        same(next(again), stream[place])


@pytest.mark.parametrize("make", [supervised, prompting])
def test_the_seed_decides(make, samples, encoder):
    one, same_seed, other = (next(make(samples, encoder, seed=seed)) for seed in (1, 1, 2))
    same(one, same_seed)
    with pytest.raises(AssertionError):
        same(one, other)


# Bad records


@pytest.mark.parametrize("make", [supervised, prompting])
def test_a_bad_record_is_skipped_and_counted(make, broken, encoder, caplog):
    bad = BadRecords(1.0)
    with caplog.at_level(logging.WARNING):
        batches = make(broken, encoder, bad)
        seen = [next(batches) for _ in range(4)]
    assert set(bad.ids) <= {"record-2", "record-7"}
    assert bad.ids
    assert "record-2 skipped" in caplog.text or "record-7 skipped" in caplog.text
    if make is prompting:
        assert not {2, 7} & {int(number) for prompt_batch in seen for number in prompt_batch.prompts.index}


@pytest.mark.parametrize("make", [supervised, prompting])
def test_a_record_that_no_row_holds_is_a_bad_record(make, samples, encoder, caplog):
    wordy = replace(samples[3], question="Is there an effusion? " * 200)
    many = replace(samples[4], images=samples[4].images * 4)
    bad = BadRecords(1.0)
    with caplog.at_level(logging.WARNING):
        batches = make((*samples[:3], wordy, many), encoder, bad)
        for _ in range(4):
            next(batches)
    assert set(bad.ids) == {"record-3", "record-4"}
    assert "a row holds 320, 3 and 16" in caplog.text


@pytest.mark.filterwarnings("ignore")  # of pydicom and Pillow, about the films
@pytest.mark.parametrize("make", [supervised, prompting])
def test_whatever_is_wrong_with_a_film_its_record_is_a_bad_one(make, samples, encoder, tmp_path):
    """Each film broken in its own way; the run goes on with the good ones."""
    pytest.importorskip("pydicom", exc_type=ImportError)
    films = write_bad_films(tmp_path)
    spoilt = [replace(samples[3], id=name, images=(str(path),)) for name, path in films.items()]
    bad = BadRecords(1.0)
    keeping = encoder._replace(image=ImageSpec(temporal_patch_size=1, max_pixels=56 * 56))
    batches = make((*samples, *spoilt), keeping, bad)
    for _ in range(40):
        next(batches)
    assert set(bad.ids) == set(films)


def test_too_many_bad_records_stop_the_run(broken, encoder):
    batches = prompting(broken, encoder, BadRecords(0.05), count=1)
    with pytest.raises(UserError, match=r"\d+ of \d+ records are bad.*raise max_bad"):
        list(itertools.islice(batches, 200))


def test_the_share_of_bad_records_is_counted_from_the_start():
    """The first hundred records may hold what a hundred are allowed; then the share itself decides."""
    bad = BadRecords(0.02)

    def make(sample):
        if sample.id == "bad":
            raise UserError("no film")
        return sample.id

    good, wrong = (Sample(name, "binary", "?", "A", (), (), (), "") for name in ("good", "bad"))
    assert bad.attempt(make, good) == "good"
    assert [bad.attempt(make, wrong) for _ in range(2)] == [None, None]
    with pytest.raises(UserError, match="3 of 4 records are bad"):
        bad.attempt(make, wrong)


# What the batches hold


def test_blind_films_are_zeros_and_nothing_else_changes(samples, encoder):
    seeing, blind = next(supervised(samples, encoder)), next(supervised(samples, encoder._replace(blind=True)))
    assert np.abs(seeing.images.patches).max() > 0.1
    assert not blind.images.patches.any()
    same(seeing.replace(images=seeing.images.replace(patches=blind.images.patches)), blind)


def test_every_record_once_an_epoch_shuffled_anew(samples, encoder):
    batches = prompting(samples, encoder, count=1)
    numbers = [int(next(batches).prompts.index[0]) for _ in range(3 * COUNT)]
    epochs = [tuple(numbers[start : start + COUNT]) for start in range(0, 3 * COUNT, COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len(set(epochs)) == 3


def test_prompts_come_with_their_reward_targets(samples, encoder):
    batches = prompting(samples, encoder)
    for _ in range(3):
        prompt_batch = next(batches)
        expected = reward_targets(LEXICON, prompt_batch.samples, 4)
        jax.tree.map(np.testing.assert_array_equal, prompt_batch.targets, expected)
        assert prompt_batch.targets.letters.tolist() == [1 + number % 2 for number in prompt_batch.prompts.index]
        assert [samples[number] for number in prompt_batch.prompts.index] == list(prompt_batch.samples)
        assert ((prompt_batch.prompts.tokens.segments != 0).sum(1) == prompt_batch.prompts.length).all()


def test_processes_share_the_stream(samples, encoder):
    whole = prompting(samples, encoder, count=4)
    halves = [prompting(samples, encoder, shard=(number, 2), count=2) for number in range(2)]
    for _ in range(4):
        wanted = next(whole).prompts.index
        for number, half in enumerate(halves):
            np.testing.assert_array_equal(next(half).prompts.index, wanted[number::2])
    one, other = (next(supervised(samples, encoder, shard=(number, 2))) for number in range(2))
    with pytest.raises(AssertionError):
        same(one, other)


def test_draws_follow_the_weights():
    sources = [
        Source(tuple("ab"), 3.0, True, False),
        Source(tuple("xyz"), 1.0, False, False),
        Source(("never",), 0.0, True, False),
    ]
    drawn = [draw(sources, 5, number) for number in range(4000)]
    assert drawn[:50] == [draw(sources, 5, number) for number in range(50)]
    assert drawn[:50] != [draw(sources, 6, number) for number in range(50)]
    share = lambda texts: np.mean([sample in texts for _, sample in drawn])  # noqa: E731
    assert share("ab") == pytest.approx(0.75, abs=0.03)
    assert [share(one) for one in "ab"] == pytest.approx([0.375] * 2, abs=0.03)
    assert [share(one) for one in "xyz"] == pytest.approx([1 / 12] * 3, abs=0.03)
    assert share(("never",)) == 0


def test_nothing_to_train_on_is_said_at_once(samples, encoder, tmp_path):
    for sources in ([], [Source(samples, 0.0, True, False)]):
        with pytest.raises(UserError, match="weight above 0"):
            supervised_batches(sources, encoder, 2, ROWS, 0, BadRecords(0.0))
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match=r"empty\.jsonl"):
        read_source(SourceConfig(path="empty.jsonl"), tmp_path)
