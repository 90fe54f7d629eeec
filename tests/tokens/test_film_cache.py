"""Films kept on disk are those that decoding makes, whatever becomes of files, entries and other processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from chestx_jax.errors import UserError
from chestx_jax.tokens import film_cache, films
from chestx_jax.tokens.film_cache import FilmCache
from chestx_jax.tokens.films import load_film
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.pixels import distinct_channels

SPEC = ImageSpec(max_pixels=112 * 112)
MEBIBYTE = 2**20


def write_film(path: Path, seed: int = 0, mode: str = "L", shape=(150, 190)) -> Path:
    channels = 3 if mode == "RGB" else 1
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, channels), np.uint8)
    Image.fromarray(pixels if mode == "RGB" else pixels[..., 0]).save(path)
    return path


@pytest.fixture
def decoded(monkeypatch):
    """The paths of films that were decoded."""
    paths = []
    load = films.load_image
    monkeypatch.setattr(films, "load_image", lambda path: paths.append(str(path)) or load(path))
    return paths


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_film_is_decoded_once(tmp_path, decoded, mode):
    path, cache = write_film(tmp_path / "film.png", mode=mode), FilmCache(tmp_path / "cache", MEBIBYTE)
    expected = load_film(path, SPEC)
    for again in range(3):
        film = FilmCache(cache.folder, MEBIBYTE).load(path, SPEC) if again else cache.load(path, SPEC)
        np.testing.assert_array_equal(film, expected)
        assert distinct_channels(film).shape[2] == len(mode)
    assert len(decoded) == 2  # the expected one, and the cache's


def test_whatever_makes_a_film_otherwise_makes_it_anew(tmp_path, decoded, monkeypatch):
    path, cache = write_film(tmp_path / "film.png"), FilmCache(tmp_path / "cache", MEBIBYTE)
    os.utime(path, ns=(0, 10**9))
    specs = [
        SPEC,
        ImageSpec(max_pixels=56 * 56),
        ImageSpec(max_pixels=112 * 112, min_pixels=112 * 112),
        ImageSpec(max_pixels=112 * 112, patch_size=16),
        ImageSpec(aspect="squash", height=56, width=56),
        ImageSpec(aspect="squash", height=56, width=84),
    ]
    for spec in specs:
        np.testing.assert_array_equal(cache.load(path, spec), load_film(path, spec))
    same = ImageSpec(max_pixels=112 * 112, mean=(0.5,) * 3, std=(0.5,) * 3)  # normalised after it is read
    before = len(decoded)
    cache.load(path, same)
    assert len(decoded) == before
    write_film(path, seed=1)
    os.utime(path, ns=(0, 10**9 + 1))  # of the same size, a moment later
    np.testing.assert_array_equal(cache.load(path, SPEC), load_film(path, SPEC))
    before = len(decoded)
    monkeypatch.setattr(film_cache, "READER_VERSION", films.READER_VERSION + 1)
    cache.load(path, SPEC)
    assert len(decoded) == before + 1
    (tmp_path / "other.png").write_bytes(path.read_bytes())
    cache.load(tmp_path / "other.png", SPEC)
    assert len(decoded) == before + 2


@settings(max_examples=40)
@given(data=st.data())
def test_a_corrupted_entry_is_made_anew(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("films")
    path, cache = write_film(folder / "film.png"), FilmCache(folder / "cache", MEBIBYTE)
    expected = cache.load(path, SPEC)
    (entry,) = entries(cache.folder)
    whole = entry.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    kind = data.draw(st.sampled_from(["cut", "flipped", "longer", "empty", "zeros"]))
    spoilt = {
        "cut": whole[:place],
        "flipped": whole[:place] + bytes([whole[place] ^ 1 << data.draw(st.integers(0, 7))]) + whole[place + 1 :],
        "longer": whole + b"x",
        "empty": b"",
        "zeros": bytes(len(whole)),
    }[kind]
    entry.write_bytes(spoilt)
    np.testing.assert_array_equal(cache.load(path, SPEC), expected)
    assert entry.read_bytes() == whole


def test_the_cache_keeps_to_its_limit_and_loses_what_is_unused_longest(tmp_path, decoded):
    paths = [write_film(tmp_path / f"{n}.png", n, shape=(112, 112)) for n in range(40)]
    size = 112 * 112 + 16
    cache = FilmCache(tmp_path / "cache", 20 * size)
    for age, path in enumerate(paths):
        cache.load(path, SPEC)
        for entry in entries(cache.folder):
            if entry.stat().st_mtime > 1e9:
                os.utime(entry, (age, age))
        assert sum(entry.stat().st_size for entry in entries(cache.folder)) <= 22 * size
    assert len(entries(cache.folder)) > 10
    before = len(decoded)
    for path in paths[-5:]:  # the newest are all there
        cache.load(path, SPEC)
    assert len(decoded) == before
    used = [entry.stat().st_mtime for entry in entries(cache.folder)]
    assert sum(mtime > 1e9 for mtime in used) == 5  # their use is noted


def test_a_film_that_cannot_be_read_stays_an_error(tmp_path):
    cache = FilmCache(tmp_path / "cache", MEBIBYTE)
    (tmp_path / "bad.png").write_bytes(b"no film")
    for name, sentence in (("none.png", "cannot be opened"), ("bad.png", "cannot be decoded"), ("a\0b", "decoded")):
        for _ in range(2):
            with pytest.raises(UserError, match=sentence):
                cache.load(tmp_path / name, SPEC)
    assert entries(tmp_path / "cache") == []


def test_a_folder_that_cannot_be_written_costs_no_film(tmp_path, caplog):
    (tmp_path / "cache").write_text("a file, no folder")
    path = write_film(tmp_path / "film.png")
    film = FilmCache(tmp_path / "cache", MEBIBYTE).load(path, SPEC)
    np.testing.assert_array_equal(film, load_film(path, SPEC))
    assert "cannot be written" in caplog.text


PROCESS = """
import sys
from chestx_jax.tokens.film_cache import FilmCache
from chestx_jax.tokens.patches import ImageSpec
cache = FilmCache(sys.argv[1], int(sys.argv[2]))
for _ in range(3):
    print([int(cache.load(path, ImageSpec(max_pixels=112 * 112)).sum()) for path in sys.argv[3:]])
"""


def test_processes_share_a_cache(tmp_path):
    """At once, and in a cache that is too small for all the films."""
    paths = [write_film(tmp_path / f"{n}.png", n) for n in range(12)]
    expected = str([int(load_film(path, SPEC).sum()) for path in paths])
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "cache"), str(60_000), *map(str, paths)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[0].split("\n") for process in running] == [[expected] * 3 + [""]] * 3
    assert not list((tmp_path / "cache").rglob("*.partial"))
