"""The notebooks run from top to bottom, and are committed without outputs."""

import json
import pathlib
import re

import pytest
from PIL import Image

NOTEBOOKS = sorted((pathlib.Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))


def cells(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def run(path):
    """The names that the notebook's cells leave behind."""
    names = {"__name__": path.stem}
    for cell in cells(path):
        exec(compile("".join(cell["source"]), f"{path.name}:{cell['id']}", "exec"), names)
    return names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_holds_no_outputs(path):
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(path))


def test_phantom_notebook(capsys):
    (path,) = [path for path in NOTEBOOKS if path.stem == "phantom"]
    names = run(path)
    assert isinstance(names["sheet"], Image.Image)
    printed = capsys.readouterr().out
    lines = (
        printed.split("No focal consolidation, pleural effusion or pneumothorax.\n")[1].split("\n\n")[0].splitlines()
    )
    assert [line.split(maxsplit=4)[2:] for line in lines] == [
        ["absent", "asserted", label] for label in ("Consolidation", "Pleural Effusion", "Pneumothorax")
    ]
    for finding in names["patients"][names["chosen"]].findings:
        assert re.search(rf"present +asserted .*{finding.label}\n", printed)
