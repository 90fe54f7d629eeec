"""Files are whole whatever becomes of their writer, and what cannot be read is named in a sentence."""

import json
import math
import os
import re

import pytest

from chestx_jax import files
from chestx_jax.errors import UserError
from tests.helpers.paths import ROOT

WRITERS = [
    lambda path: files.write_bytes(path, b"new"),
    lambda path: files.write_text(path, "new"),
    lambda path: files.write_json(path, ["new"]),
    lambda path: files.write_json_lines(path, ["new"]),
]


def killed(*_):
    raise SystemExit


@pytest.mark.parametrize("write", WRITERS)
def test_a_writer_stopped_at_the_last_moment_leaves_the_old_file(tmp_path, monkeypatch, write):
    path = tmp_path / "folder" / "a.json"
    write(path)
    new = path.read_bytes()
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(SystemExit):
        write(path)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]
    monkeypatch.undo()
    write(path)
    assert path.read_bytes() == new
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("renames", [0, 1])
def test_a_folder_is_the_old_one_or_the_new_one(tmp_path, monkeypatch, renames):
    """Killed before the first rename or between the two; a kill tidies nothing up, the next call does."""
    folder, done, replace = tmp_path / "model", [], os.replace

    def fill(name, check=lambda partial: None):
        with files.replacing_folder(folder) as partial:
            assert list(partial.iterdir()) == []
            (partial / name).touch()
            check(partial)

    def replace_until_killed(*paths):
        if len(done) == renames:
            raise SystemExit
        done.append(replace(*paths))

    fill("old")
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace_until_killed)
        patched.setattr(files, "_restore", lambda *paths: None)
        with pytest.raises(SystemExit):
            fill("lost")
    assert folder.exists() == (renames == 0)
    with pytest.raises(SystemExit):
        fill("half", killed)
    assert [path.name for path in folder.iterdir()] == ["old"]
    fill("new")
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [folder]


def test_json_is_standard_and_takes_any_text(tmp_path):
    document = {"a": [math.nan, -math.inf, 1.5], "b": ["\ud800", "\u2028", "\n", "é"]}
    files.write_json(tmp_path / "a.json", document)
    files.append_json_lines(tmp_path / "a.jsonl", [document])
    files.append_json_lines(tmp_path / "a.jsonl", [])
    standard = lambda text: json.loads(text, parse_constant=lambda name: pytest.fail(name))  # noqa: E731
    expected = {"a": [None, None, 1.5], "b": document["b"]}
    assert standard((tmp_path / "a.json").read_text()) == expected
    assert [standard(line) for line in (tmp_path / "a.jsonl").read_text().split("\n")[:-1]] == [expected]
    assert files.read_json(tmp_path / "a.json", "") == expected


@pytest.mark.parametrize(
    ("content", "complete"),
    [(None, []), (b"", []), (b"1", []), (b"1\n", [b"1"]), (b"1\n\xc3", [b"1"]), (b"\n2\n3", [b"", b"2"])],
)
def test_a_torn_last_line_is_cut_off(tmp_path, content, complete):
    path = tmp_path / "a.jsonl"
    if content is not None:
        path.write_bytes(content)
    assert files.complete_lines(path) == complete
    files.drop_torn_line(path)
    assert path.exists() == (content is not None)
    assert content is None or path.read_bytes() == b"".join(line + b"\n" for line in complete)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "cannot be read"), (b"", "not valid JSON"), (b'{"a": ', "not valid JSON"), (b"\xff", "not valid JSON")],
)
def test_what_cannot_be_read_is_named_with_the_fix(tmp_path, content, problem):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"config\.json .*{problem}.*: write it again\.$"):
        files.read_json(path, "write it again")


WRITES = re.compile(
    r"""(?<!files)\.write_(?:text|bytes)\(|os\.(?:replace|rename)\(|\.rename\(|json\.dump\(|open\([^)]*["'][wax]"""
)


def test_the_package_writes_through_this_module_alone():
    """But for tensors, whose folder it swaps in, and the films of a phantom, which are drawn into such a folder."""
    package = ROOT / "chestx_jax"
    writers = {
        path.relative_to(package).as_posix() for path in package.rglob("*.py") if WRITES.search(path.read_text())
    }
    assert writers == {"files.py", "model/hf/safetensors.py"}
