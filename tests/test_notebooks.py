"""The notebooks run from top to bottom, the quick start on a smaller job, and are committed with their outputs."""

import json
import re
import webbrowser
from pathlib import Path

import matplotlib
import pytest

from tests.helpers import tiny_job
from tests.helpers.paths import ROOT

matplotlib.use("Agg")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SFT = {**tiny_job.SMALL["init"], "batch": 8, "steps": 2, "optimizer": {"rule": "adamw"}, "validation": None}
SMALLER = {**tiny_job.SMALL, "init": SFT, "grpo": None, "evaluation": {**tiny_job.SMALL["evaluation"], "batch": 8}}


def code_cells(path: Path) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def run(name: str, **parameters) -> dict:
    """The names that the notebook's cells leave behind; `parameters` take the place of the cell tagged so."""
    path = ROOT / "notebooks" / name
    names = {"__name__": path.stem}
    for cell in code_cells(path):
        if "parameters" in cell["metadata"].get("tags", ()):
            names |= parameters
        else:
            exec(compile("".join(cell["source"]), f"{name}:{cell['id']}", "exec"), names)
    matplotlib.pyplot.close("all")
    return names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_with_clean_outputs(path):
    assert path.stat().st_size < 1_000_000
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    for output in outputs:
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr"  # no warnings
        assert not re.search(r"(?<![\w.])/(?:home|root|tmp|usr|opt|Users)/", "".join(output.get("text", "")))


def test_quick_start(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    names = run("quick_start.ipynb", WORKDIR=tmp_path, CHANGES=SMALLER)
    assert opened == [(tmp_path / "report.html").as_uri()]
    assert set(names["curves"]) == {"sft"}
    assert list(names["scores"]["models"]) == ["SFT"]


def test_process_reward(capsys):
    names = run("process_reward.ipynb")
    printed = capsys.readouterr().out
    lines = (
        printed.split("No focal consolidation, pleural effusion or pneumothorax.\n")[1].split("\n\n")[0].splitlines()
    )
    assert [line.split(maxsplit=4)[2:] for line in lines] == [
        ["absent", "asserted", label] for label in ("Consolidation", "Pleural Effusion", "Pneumothorax")
    ]
    for finding in names["patients"][names["chosen"]].findings:
        assert re.search(rf"present +asserted .*{finding.label}\n", printed)
    right, *others = names["gain"].values()
    assert right > max(others)
    assert names["gain"]["says nothing"] == 0
