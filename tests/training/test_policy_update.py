"""How an iteration becomes optimizer steps, with stand-ins for the programs."""

from types import SimpleNamespace

import pytest

from chestx_jax.recipes import GrpoConfig
from chestx_jax.training.policy_update import PolicyUpdate
from chestx_jax.training.step_metrics import PendingStep, fetch_metrics


@pytest.mark.parametrize(("minis", "micros", "updates"), [(1, 1, 1), (1, 4, 1), (4, 1, 1), (3, 2, 2), (2, 1, 3)])
def test_an_optimizer_step_for_each_mini_batch(minis, micros, updates):
    """Each on its own micro-batches, with the parameters that the step before has left."""
    seen = []

    def gradients(params, total, part, logprobs, vocabulary):
        assert logprobs == -part
        return [*(total or []), (params, part)]

    def step(state, total):
        seen.append(total)
        return SimpleNamespace(params=state.params + 1), {"loss": len(seen)}

    stage = GrpoConfig(prompts=24, mini_batches=minis, micro_batches=micros, updates=updates)
    policy = PolicyUpdate(None, stage, None, {}, {"grpo/gradients": gradients, "grpo/step": step}, None)
    vars(policy)["_zeros"] = list
    parts = list(range(1, stage.parts + 1))
    state, metrics = policy.update(SimpleNamespace(params=0), parts, [-part for part in parts])
    assert state.params == minis * updates == stage.optimizer_steps
    assert metrics == {"loss": list(range(1, minis * updates + 1))}
    expected = [parts[start : start + micros] for start in range(0, len(parts), micros)] * updates
    assert seen == [[(number, part) for part in group] for number, group in enumerate(expected)]


def test_metrics_of_several_optimizer_steps_are_one_number(tmp_path):
    """The mean; of maxima and counters the largest, so that no skipped step goes unseen."""
    metrics = {"loss": [1.0, 2.0], "ratio_max": [3.0, 1.5], "skipped": [4, 4], "skipped_in_a_row": [1, 0], "kept": 0.5}
    measured = fetch_metrics(PendingStep(7, {**metrics, "grad_norm": [3.0, 5.0]}, ()), tmp_path, max_skipped=2)
    expected = {"loss": 1.5, "ratio_max": 3.0, "skipped": 4.0, "skipped_in_a_row": 1.0, "kept": 0.5, "grad_norm": 4.0}
    assert measured == expected
