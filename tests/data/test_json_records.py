"""JSON as people's tools write it: marks, line ends, constants that are no JSON, keys named twice, half characters."""

import json

import pytest

from chestx_jax.data.fields import Unreadable
from chestx_jax.data.json_records import read_records
from chestx_jax.data.reader import find_problems, read_samples
from chestx_jax.errors import UserError

RECORD = {"item_id": "r", "question": "Is it? Options:\nA) Yes\nB) No", "answer": "A", "image_path": []}


def read(path, content, **options):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [record for _, record in read_records(path, **options)]


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff{text}\n{text}\n",
        "{text}\r\n{text}\r\n",
        "{text}\n\ufeff{text}",
        "\n\n" + " " * 9000 + "\n{text}\n\n{text}",
        "[{text},\r\n{text}]",
        "\ufeff [{text},{text}]\ufeff",
    ],
)
def test_marks_and_line_ends(tmp_path, content):
    assert read(tmp_path / "r.json", content.replace("{text}", json.dumps(RECORD))) == [RECORD, RECORD]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400", "-1e999"])
def test_what_is_no_number_is_null(tmp_path, value):
    assert read(tmp_path / "r.jsonl", f'{{"item_id": {value}, "x": [{value}, 1.5]}}') == [
        {"item_id": None, "x": [None, 1.5]}
    ]


def test_records_without_an_id_do_not_share_one(tmp_path):
    path = tmp_path / "set.jsonl"
    rows = [{**RECORD, "item_id": value} for value in (float("nan"), None, "", float("nan"), 7.0, 7)]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert [sample.id for sample in read_samples(path)] == ["set-0", "set-1", "set-2", "set-3", "7", "7#2"]


@pytest.mark.parametrize("value", [["a"], {"a": 1}, True])
def test_an_id_is_text_or_a_number(tmp_path, value):
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps({**RECORD, "item_id": value}))
    assert [problem.field for problem in find_problems(path)] == ["item_id"]


@pytest.mark.parametrize("whole", [False, True])
def test_a_field_named_twice_is_a_bad_record(tmp_path, whole):
    twice = '{"question": "Q?", "answer": "A", "answer": "B", "image_path": []}'
    inner = '{"question": "Q?", "answer": "A", "reason_steps": {"process": "x", "process": "y"}, "image_path": []}'
    same = '{"question": "Q?", "answer": "A", "answer": "A", "image_path": []}'
    lines = [twice, inner, same]
    records = read(tmp_path / "r.json", "[" + ",".join(lines) + "]" if whole else "\n".join(lines))
    assert [isinstance(record, Unreadable) for record in records] == [True, True, False]
    problems = [str(problem) for problem in find_problems(tmp_path / "r.json")]
    assert len(problems) == 2
    assert "record 0" in problems[0]
    assert "names 'answer' twice" in problems[0]


def test_half_characters_are_replaced_and_whole_ones_kept(tmp_path):
    text = r'{"pred": "\ud83d\ude00 \ud83d! \ude00", "\uDC80": ["\udfff", {"a": "\ud800"}]}'
    (record,) = read(tmp_path / "r.jsonl", text)
    assert record == {"pred": "\U0001f600 \ufffd! \ufffd", "\ufffd": ["\ufffd", {"a": "\ufffd"}]}
    json.dumps(record, ensure_ascii=False).encode()


def test_a_line_that_cannot_be_parsed_is_one_record(tmp_path):
    texts = [json.dumps(RECORD), '{"question": "cut', '{"a":' * 100_000, '{"a": ' + "9" * 5000 + "}"]
    lines = [*[text.encode() for text in texts], b'{"question": "Is \xe9 there?"}', texts[0].encode()]
    records = read(tmp_path / "r.jsonl", b"\n".join(lines), keep_broken=True)
    assert [isinstance(record, Unreadable) for record in records] == [False, True, True, True, True, False]
    for line in lines[1:5]:
        with pytest.raises(UserError, match=r"r\.jsonl, line 1"):
            read(tmp_path / "r.jsonl", line)
    for whole in (b"[" + b"9" * 5000 + b"]", b'["\xe9"]'):
        with pytest.raises(UserError, match=r"r\.jsonl cannot be read"):
            read(tmp_path / "r.jsonl", whole)
