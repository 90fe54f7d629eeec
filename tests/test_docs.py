"""README and docs: links lead somewhere, named paths exist, README is short, its tree and the map are complete."""

import re
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.test_layers import LAYERS

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "launch" / "README.md", *sorted(ROOT.glob("docs/*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED = re.compile(r"(?<![\w/])(?:chestx_jax|configs|docs|launch|notebooks|tests)/[\w./-]*\w")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    kept = re.sub(r"[^\w\s-]", "", "\n".join(HEADING.findall(page.read_text())).lower())
    return {line.replace(" ", "-") for line in kept.splitlines()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_named_paths_exist(page):
    text = page.read_text()
    for target in LINK.findall(text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target
    for path in NAMED.findall(text):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"python -m (chestx_jax[\w.]*|tests[\w.]*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_every_figure_is_shown_and_small():
    shown = {(page.parent / target).resolve() for page in PAGES for target in LINK.findall(page.read_text())}
    for figure in (ROOT / "docs" / "figures").iterdir():
        assert figure in shown
        assert figure.stat().st_size <= 300_000


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 900


def package_entries() -> set[str]:
    """Rooms (with a slash) and modules of the package; a folder without Python files is a leftover, no room."""
    entries = [path for path in (ROOT / "chestx_jax").iterdir() if not path.name.startswith(("_", "."))]
    is_code = lambda path: any(path.glob("**/*.py")) if path.is_dir() else path.suffix == ".py"  # noqa: E731
    return {path.name + "/" * path.is_dir() for path in entries if is_code(path)}


def test_readme_tree_names_every_room():
    tree = (ROOT / "README.md").read_text().partition("chestx_jax/\n")[2].partition("\nconfigs/")[0]
    names = [re.match(r"[├└]── ((?:\w+(?:\.py|/) ?)+)", line) for line in tree.splitlines()]
    assert {name for match in names if match for name in match.group(1).split()} == package_entries()


def test_architecture_names_every_room_in_its_layer():
    """Each layer's rooms stand together, in the order of `tests/test_layers.py`."""
    table = (ROOT / "docs" / "architecture.md").read_text().partition("| layer | room |")[2].partition("\n\n")[0]
    layers: list[set[str]] = []
    for row in table.splitlines()[2:]:
        layer, rooms = row.split("|")[1:3]
        if layer.strip():
            layers.append(set())
        layers[-1] |= set(re.findall(r"`(\w+)`", rooms))
    assert layers == [set(rooms) for rooms in LAYERS]


def test_glossary_gives_each_term_two_lines():
    entries = (ROOT / "docs" / "glossary.md").read_text().split("\n\n")
    terms = [entry for entry in entries if entry.startswith("**")]
    assert len(terms) > 30
    assert [entry for entry in terms if len(entry.splitlines()) > 2] == []
