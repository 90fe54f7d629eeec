"""The reward as other trainers call it: on the host, with neither jax nor flax."""

import re
import subprocess
import sys

import pytest

from chestx_jax.rewards.adapters import trl_reward, verl_score
from tests.helpers import tiny_trl
from tests.helpers.paths import ROOT


def test_trl_gives_texts_or_messages_with_columns():
    completions = ["There is edema.", [{"role": "assistant", "content": "No edema."}]]
    rewards = trl_reward(completions, report=["Mild edema."] * 2, prompts=["p"] * 2, trainer_state=None)
    assert rewards[0] == 1.0
    assert rewards[1] < 0.5


def test_verl_gives_a_solution_with_its_ground_truth():
    text = "<think>There is edema.</think><answer>A</answer>"
    score = verl_score("radr", text, "A", {"report": "Edema.", "task": "binary"})
    assert score == {"score": 1.0, "format": 1.0, "accuracy": 1.0, "process": 1.0}
    assert verl_score("radr", text, "B", {})["score"] == 0.5
    assert verl_score("radr", "Edema.", None, {"report": "Edema."}) == {"score": 1.0, "process": 1.0}


def test_neither_jax_nor_flax_is_imported():
    program = "import sys, chestx_jax.rewards.adapters; print(sorted({'jax', 'flax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def example(name: str) -> str:
    """The block of Python in docs/process-reward.md that uses `name`."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "process-reward.md").read_text(), re.DOTALL)
    return next(block for block in blocks if name in block)


def test_the_example_for_verl_runs():
    exec(example("verl_score"), {})


@pytest.mark.filterwarnings("ignore")  # of trl, datasets and dill among themselves
def test_the_example_for_trl_takes_a_step(tmp_path, monkeypatch):
    pytest.importorskip("trl", reason="trl is not installed")
    model, tokenizer = tiny_trl.tiny_model(pytest.importorskip("transformers"))
    monkeypatch.chdir(tmp_path)
    names = {"model": model, "tokenizer": tokenizer}
    exec(example("GRPOTrainer"), names)
    assert any("rewards/trl_reward/mean" in line for line in names["trainer"].state.log_history)
