"""Image roots: a folder or rules; what a record writes is found where the films lie now."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestx_jax.data.image_roots import parse_image_root
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
