"""Image roots: a folder or rules; what a record writes is found where the films lie now."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestx_jax.data.fields import FieldError
from chestx_jax.data.image_roots import Films, parse_image_root
from chestx_jax.errors import UserError

HERE = Path("/here")
names = st.text("abc./_-", min_size=1, max_size=12).map(lambda text: text.strip("/.") or "a")


def placed(text, image):
    return str(parse_image_root(text, HERE).path(image))


@pytest.mark.parametrize(
    ("text", "image", "path"),
    [
        (None, "a/1.png", "/here/a/1.png"),
        ("/films", "a/1.png", "/films/a/1.png"),
        ("/films", "/old/1.png", "/old/1.png"),
        ("/old=/films", "/old/a/1.png", "/films/a/1.png"),
        ("/old/=/films", "/old/a/1.png", "/films/a/1.png"),
        ("/old=/films", "a/1.png", "/here/a/1.png"),
        ("/x=/one,/x/y=/two", "/x/y/1.png", "/one/y/1.png"),  # the first rule that fits
        ("/data/*/files=/mnt/*", "/data/mimic/files/p10/1.jpg", "/mnt/mimic/p10/1.jpg"),
        ("*/files=/mnt", "cxr/files/1.jpg", "/mnt/1.jpg"),
        ("/d/*/*=/m/*-*/all", "/d/a/b/1.png", "/m/a-b/all/1.png"),
    ],
)
def test_paths_are_mapped(text, image, path):
    assert placed(text, image) == path


@given(names, names)
def test_a_prefix_is_replaced_and_the_rest_kept(prefix, rest):
    assert placed(f"/{prefix}=/films", f"/{prefix}/{rest}") == str(Path("/films") / rest)


@pytest.mark.parametrize("text", ["=/films", "/old=", "/old=/films,", "/a=/b/*"])
def test_half_a_rule_is_refused(text):
    with pytest.raises(UserError, match="FROM=TO"):
        parse_image_root(text, HERE)


@pytest.fixture
def folder(tmp_path):
    for name in ("img/study1/view1.jpg", "img/p1/study2/view1.jpg", "img/flat1.jpg", "img/flat2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path / "img"


def found(folder, *written):
    """What each path leads to below the folder; None where it is missing."""
    films = Films(parse_image_root(folder, folder), [written])
    places = []
    for image in written:
        try:
            places.append(str(Path(films.find(image)).relative_to(folder)))
        except FieldError:
            places.append(None)
    return places


def test_each_path_leads_to_its_own_film_or_is_missing(folder):
    patients = [f"set/train/patient{n}/study1/view1.jpg" for n in range(3)]
    assert found(folder, *patients) == [None] * 3
    assert found(folder, *patients[:1]) == ["study1/view1.jpg"]  # a moved collection of one patient
    # The film that stands at its own path is not given to another as well.
    assert found(folder, "p1/study2/view1.jpg", "p2/study2/view1.jpg") == ["p1/study2/view1.jpg", None]
    assert found(folder, "p1/study2/view1.jpg", "/old/img/p1/study2/view1.jpg") == ["p1/study2/view1.jpg", None]


def test_moved_collections_are_found_by_the_ends_of_paths(folder):
    assert found(folder, "/old/a/flat1.jpg", "/old/b/flat2.jpg") == ["flat1.jpg", "flat2.jpg"]
    assert found(folder, "/old/p1/study2/view1.jpg", "/old/p9/study1/view1.jpg") == [
        "p1/study2/view1.jpg",
        "study1/view1.jpg",
    ]
    assert found(folder, "/old/a/flat1.jpg", "/old/a//flat1.jpg") == ["flat1.jpg", "flat1.jpg"]  # one path


@pytest.mark.parametrize("image", ["\x00", "a\x00/b.png", "x" * 5000, "/" * 300, ".", "..", "~", "a/../b"])
def test_odd_names_are_missing_films(folder, image):
    assert found(folder, image) == [None]
