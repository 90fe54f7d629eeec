"""The reader finds records and films wherever they lie, and says what is wrong, where, and how to mend it."""

import json
from pathlib import Path

import pytest

from chestx_jax.data.reader import find_problems, read_good_samples, read_samples
from chestx_jax.errors import UserError

QUESTION = "Does this chest X-ray show edema? Options:\nA) Yes\nB) No"


def records(count, **changes):
    plain = {"question": QUESTION, "answer": "A", "image_path": ["films/a.png"]}
    return [{**plain, "item_id": f"r{i}", **changes} for i in range(count)]


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.png").write_bytes(b"film")
    return tmp_path


def as_list(path: Path, items) -> Path:
    path.write_text(json.dumps(items))
    return path


def as_lines(path: Path, items) -> Path:
    path.write_text("\n\n".join(json.dumps(item) for item in items) + "\n")
    return path


@pytest.mark.parametrize("write", [as_list, as_lines])
def test_list_and_lines_give_the_same_samples(folder, write):
    samples = read_samples(write(folder / "set.json", records(3)))
    assert [sample.id for sample in samples] == ["r0", "r1", "r2"]
    assert samples[0].images == (str(folder / "films" / "a.png"),)
    assert samples[0].source == "set"


def test_image_root_is_elsewhere(folder, tmp_path_factory):
    path = as_list(tmp_path_factory.mktemp("records") / "set.json", records(1))
    assert read_samples(path, folder)[0].images == (str(folder / "films" / "a.png"),)


def test_moved_collections_are_found_by_the_tail_of_the_path(folder):
    path = as_list(folder / "set.json", records(1, image_path=["/far/away/films/a.png"]))
    assert read_samples(path)[0].images == (str(folder / "films" / "a.png"),)


def test_records_without_ids_get_one(folder):
    path = as_list(folder / "set.json", records(2, item_id=""))
    assert [sample.id for sample in read_samples(path)] == ["set-0", "set-1"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"question": None}, "question"),
        ({"answer": "E"}, "answer"),
        ({"image_path": ["films/gone.png"]}, "image_path"),
        ({"image_path": None}, "image_path"),
        ({"image_path": ["films"]}, "image_path"),
        ({"task": "guess"}, "task"),
        ({"reason_steps": 7}, "reason_steps"),
        ({"reason_steps": "[" * 100_000}, "reason_steps"),
        ({"original_report": ["text"]}, "original_report"),
    ],
)
def test_bad_fields_are_named_with_file_record_and_remedy(folder, change, field):
    items = records(4)
    items[2].update(change)
    path = as_lines(folder / "set.jsonl", items)
    with pytest.raises(UserError) as caught:
        read_samples(path)
    message = str(caught.value)
    assert str(path) in message
    assert f"record 2 (r2), field {field}:" in message
    assert "; " in message
    assert [problem.index for problem in find_problems(path)] == [2]


def test_every_problem_is_found_not_only_the_first(folder):
    items = records(5)
    items[1]["answer"], items[3]["question"] = "Z", ""
    path = as_list(folder / "set.json", [*items, "no record"])
    assert [(problem.index, problem.field) for problem in find_problems(path)] == [
        (1, "answer"),
        (3, "question"),
        (5, "(whole record)"),
    ]


def test_bad_records_are_left_out_up_to_a_share(folder):
    items = records(10)
    items[4]["answer"] = "Z"
    path = as_list(folder / "set.json", items)
    samples, problems = read_good_samples(path, bad_share=0.1)
    assert len(samples) == 9
    assert [problem.id for problem in problems] == ["r4"]
    with pytest.raises(UserError, match="1 of 10 records are bad"):
        read_good_samples(path, bad_share=0.05)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        ("[]", "empty list"),
        ("[{]", "not JSON"),
        ('{"question": "a"\n', "line 1: not JSON"),
        ("plain text", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "line 1 is nested too deeply"),
    ],
)
def test_files_that_hold_no_records(folder, text, complaint):
    path = folder / "set.json"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint) as caught:
        read_samples(path)
    assert str(path) in str(caught.value)
    with pytest.raises(UserError):
        list(find_problems(path))


def test_files_that_cannot_be_read(folder):
    with pytest.raises(UserError, match="does not exist"):
        read_samples(folder / "none.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_samples(folder)
    (folder / "bytes.json").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="cannot be read"):
        read_samples(folder / "bytes.json")


def test_every_published_output_file_is_read_whole(shared_data):
    paths = sorted((shared_data / "radrbench_outputs").rglob("*.json"))
    assert paths
    for path in paths:
        assert not list(find_problems(path, require_images=False, check_images=False)), path
        tasks = {sample.task for sample in read_samples(path, require_images=False, check_images=False)}
        kinds = {"no_option": "anomaly", "binary": "binary", "single": "single", "multi": "multiple"}
        assert tasks == {next(task for kind, task in kinds.items() if kind in path.name)}


def test_two_films_under_one_id_and_question_are_two_samples(folder):
    (folder / "films" / "b.png").write_bytes(b"film")
    items = [*records(2), *records(1), *records(1, image_path=["films/b.png"]), *records(1, question="Other?")]
    items[2]["question"] = QUESTION.replace(
        "Options:\nA) Yes\nB) No", "Options: A. Yes B. No"
    )  # the same, spelled anew
    samples = read_samples(as_lines(folder / "set.jsonl", items))
    assert [sample.id for sample in samples] == ["r0", "r1", "r0#2", "r0#3", "r0"]
    assert samples[3].images == (str(folder / "films" / "b.png"),)
    assert samples[3].origin == f"{folder / 'set.jsonl'}, record 3"


def test_given_ids_are_not_taken_twice(folder):
    items = [*records(1), *records(1, item_id="r0#2"), *records(1)]
    samples = read_samples(as_lines(folder / "set.jsonl", items))
    assert [sample.id for sample in samples] == ["r0", "r0#2", "r0#3"]


@pytest.mark.parametrize(
    "change",
    [
        {"answer": [["A"]]},
        {"answer": ["A", None]},
        {"image_path": [["films/a.png"]]},
        {"reason_steps": [["x"]]},
        {"original_report": [["x"]]},
        {"question": [QUESTION]},
    ],
)
def test_nested_lists_are_bad_records(folder, change):
    items = [records(1)[0] | change]
    (problem,) = find_problems(as_lines(folder / "set.jsonl", items))
    assert problem.field in change
