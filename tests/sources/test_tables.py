"""Tables are read by the names of their columns, in whatever form they come."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestx_jax.errors import UserError
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.tables import number, read_table

TEXT = 'Image Index,Age,Note\na.png,5,"two\nlines"\n\nb.png\nc.png,x,\n'
FORMS = {
    "plain": TEXT.encode(),
    "gzip": gzip.compress(TEXT.encode(), mtime=0),
    "mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "windows": TEXT.replace("\n", "\r\n").encode(),
    "underscores": TEXT.replace("Image Index", "image_index").encode(),
    "outer blanks": TEXT.replace("Image Index,Age", " Image Index, Age ").encode(),
    "other order": TEXT.replace("Age,Note", "Note,Age")
    .replace('5,"two\nlines"', '"two\nlines",5')
    .replace("c.png,x,", "c.png,,x")
    .encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_in_any_form(tmp_path, form):
    (tmp_path / "table.csv").write_bytes(FORMS[form])
    problems = Problems()
    rows = list(read_table(tmp_path / "table.csv", ("Image Index", "Age"), problems, ("Note", "Sex")))
    assert [(row.where, row["Image Index"], row["Age"], row["Note"].split(), row["Sex"]) for row in rows] == [
        ("table.csv row 2", "a.png", "5", ["two", "lines"], ""),
        ("table.csv row 5", "c.png", "x", [], ""),
    ]
    assert problems.noted == {"the row ends before its last column": 1}
    assert [number(row, "Age", problems) for row in rows] == [5, None]
    assert problems.first["Age is no number"] == "table.csv row 5 ('x')"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"Image Index,Agee\n", r"table\.csv has no column 'Age' in row 1 \(it has 'Agee'\)"),
        (b"", r"has no column 'Image Index' in row 1"),
        (gzip.compress(TEXT.encode() * 99, mtime=0)[:-9], "is cut short or damaged behind row"),
        (gzip.compress(TEXT.encode(), mtime=0)[:4], "is cut short or damaged behind row 1"),
    ],
)
def test_bad_tables_are_one_sentence(tmp_path, content, sentence):
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        list(read_table(tmp_path / "table.csv", ("Image Index", "Age"), Problems()))


@given(st.binary(max_size=200))
def test_any_bytes_are_rows_or_one_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "table.csv"
    path.write_bytes(b"a,b\n" + content)
    try:
        rows = list(read_table(path, ("a", "b"), Problems()))
    except UserError:
        return
    assert all(set(row.cells) == {"a", "b"} for row in rows)
