"""The reward as other trainers call it: on the host, with neither jax nor flax."""

import subprocess
import sys

import pytest

from chestx_jax.rewards.adapters import trl_reward, verl_score


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


@pytest.mark.filterwarnings("ignore")  # of trl, datasets and dill among themselves
def test_the_real_trl_trainer_takes_a_step(tmp_path):
    pytest.importorskip("trl", reason="trl is not installed")
    datasets, transformers, trl = (pytest.importorskip(name) for name in ("datasets", "transformers", "trl"))
    from tests.helpers.tiny_trl import tiny_model

    model, tokenizer = tiny_model(transformers)
    data = datasets.Dataset.from_list([{"prompt": "Edema?", "report": "Mild edema."}] * 4)
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=4, num_generations=4, max_completion_length=8,
        max_steps=1, report_to=[], use_cpu=True, bf16=False, logging_steps=1,
    )  # fmt: skip
    trainer = trl.GRPOTrainer(model, trl_reward, arguments, data, processing_class=tokenizer)
    trainer.train()
    assert any("rewards/trl_reward/mean" in line for line in trainer.state.log_history)
