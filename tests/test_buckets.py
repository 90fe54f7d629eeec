"""Buckets: the smallest that holds, the limit always one, few of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestx_jax import buckets
from chestx_jax.buckets import BucketUse, LengthsConfig, agreed_buckets, slot_buckets, smallest_bucket, token_buckets
from chestx_jax.errors import UserError


@given(st.integers(1, 5000), st.data())
def test_the_smallest_that_holds(limit, data):
    lengths = token_buckets(limit)
    size = data.draw(st.integers(1, limit))
    taken = smallest_bucket(size, lengths)
    assert taken >= size
    assert not any(size <= length < taken for length in lengths)
    assert taken <= max(64, 1.5 * size) or taken == limit  # a third of a row is padding at most


@given(st.integers(1, 5000), st.sets(st.integers(1, 5000)))
def test_the_limit_is_a_bucket_and_none_lies_above(limit, chosen):
    for make in (token_buckets, slot_buckets):
        if max(chosen, default=0) > limit:
            with pytest.raises(UserError, match="raise the limit"):
                make(limit, sorted(chosen))
        else:
            made = make(limit, sorted(chosen))
            assert made[-1] == limit
            assert list(made) == sorted(set(made))
            assert not chosen or set(made) == chosen | {limit}


def test_default_buckets():
    assert token_buckets(512) == (64, 96, 128, 192, 256, 384, 512)
    assert token_buckets(400) == (64, 96, 128, 192, 256, 384, 400)
    assert token_buckets(20) == (20,)
    assert slot_buckets(3) == (1, 2, 3)
    with pytest.raises(ValueError, match="no bucket"):
        smallest_bucket(513, token_buckets(512))


def test_unsorted_lengths_are_refused():
    with pytest.raises(UserError, match="ascending"):
        LengthsConfig(completions=(512, 128))


def test_all_processes_take_the_largest_bucket(monkeypatch):
    monkeypatch.setattr(buckets, "all_max", lambda sizes: tuple(max(pair) for pair in zip(sizes, (70, 3), strict=True)))
    assert agreed_buckets((30, 1), (token_buckets(512), slot_buckets(4))) == (96, 3)


def test_the_first_run_of_a_bucket_is_told_apart():
    use = BucketUse()
    assert [use.add("grpo/reference", bucket) for bucket in ((64,), (96,), (64,))] == [True, True, False]
    assert use.add("grpo/step", (64,))
    assert use.runs["grpo/reference", (64,)] == 2
    assert str(use) == (
        "grpo/reference ran in 2 buckets: 64 (2 times), 96 (1 times)\ngrpo/step ran in 1 bucket: 64 (1 times)"
    )
