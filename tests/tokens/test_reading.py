"""Films are read ahead in threads; a large collection is not looked at file by file."""

import json
import threading

import pytest

from chestx_jax.data import image_roots
from chestx_jax.data.mixture import SourceConfig, read_source
from chestx_jax.data.reader import Problem, find_problems, read_good_samples
from chestx_jax.errors import UserError
from chestx_jax.tokens.reading import map_ahead, thread_count

SPOT, COUNT = 64, 320


@pytest.fixture
def collection(tmp_path, monkeypatch):
    """A file of many records; their films are there."""
    monkeypatch.setattr(image_roots, "SPOT", SPOT)
    (tmp_path / "films").mkdir()
    records = [
        {
            "item_id": f"r{n}",
            "question": "Clear?",
            "answer": "A",
            "image_path": [f"films/{n}.png"],
            "reason_steps": ["So."],
        }
        for n in range(COUNT)
    ]
    for n in range(COUNT):
        (tmp_path / f"films/{n}.png").touch()
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, records)))
    return tmp_path


@pytest.fixture
def looks(monkeypatch):
    """The films that were looked for."""
    paths = []
    is_file = image_roots._is_file
    monkeypatch.setattr(image_roots, "_is_file", lambda path: paths.append(path) or is_file(path))
    return paths


def test_the_start_of_a_run_looks_for_few_films(collection, looks):
    source = read_source(SourceConfig("set.jsonl"), collection)
    assert len(looks) <= SPOT
    assert [sample.images for sample in source.samples] == [(str(collection / f"films/{n}.png"),) for n in range(COUNT)]


def test_where_some_are_not_in_place_all_are_looked_for(collection, looks):
    for n in range(0, COUNT, 10):
        (collection / f"films/{n}.png").unlink()
    with pytest.raises(UserError, match=f"{COUNT // 10} of {COUNT} records are bad"):
        read_source(SourceConfig("set.jsonl"), collection, 0.05)
    source = read_source(SourceConfig("set.jsonl"), collection, 0.1)
    assert [isinstance(record, Problem) for record in source.records] == [n % 10 == 0 for n in range(COUNT)]
    moved = [json.loads(line) for line in (collection / "set.jsonl").read_text().split("\n")]
    for record in moved:
        record["image_path"] = [f"/old/{record['image_path'][0]}"]
    (collection / "set.jsonl").write_text("\n".join(map(json.dumps, moved)))
    found = read_source(SourceConfig("set.jsonl"), collection, 0.1).samples
    assert found[0].images == (str(collection / "films/1.png"),)


def test_one_that_is_missing_elsewhere_is_found_so_when_it_is_read(collection):
    (collection / "films/7.png").unlink()
    assert len(read_source(SourceConfig("set.jsonl"), collection).samples) == COUNT
    samples, problems = read_good_samples(collection / "set.jsonl")  # an evaluation looks for each
    assert (len(samples), len(problems)) == (COUNT - 1, 1)
    assert len(list(find_problems(collection / "set.jsonl"))) == 1


def test_batches_are_prepared_ahead_in_order():
    """While a batch is used the next is worked on, and no more than that."""
    taken, batches, begun = [], [[1, 2, 3], [4], [], [5, 6], [7]], threading.Event()

    def square(number):
        if number == 4:
            begun.set()
        return number**2

    made = map_ahead(square, (taken.append(batch) or batch for batch in batches), threads=3)
    assert next(made) == [1, 4, 9]
    assert begun.wait(60)  # though nobody has asked for it yet
    for number, expected in enumerate([[16], [], [25, 36], [49]], start=2):
        assert taken == batches[:number]
        assert next(made) == expected
    assert list(made) == []


def test_an_error_ahead_is_raised_at_its_batch():
    made = map_ahead(lambda x: 1 // x, [[1], [0]], threads=2)
    assert next(made) == [1]
    with pytest.raises(ZeroDivisionError):
        next(made)


def test_threads_are_as_many_as_asked_for():
    assert thread_count(7) == 7
    assert 2 <= thread_count(0) <= 32
