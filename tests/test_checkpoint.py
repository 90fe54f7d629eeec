"""Checkpoints restore the state and the iterator's position together, and never from a half-written one."""

import json
import shutil
from dataclasses import replace

import grain
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from chestx_jax import checkpoint, sharding
from chestx_jax.errors import UserError
from chestx_jax.model.config import with_compute
from chestx_jax.sharding import MeshConfig
from chestx_jax.update import state as states
from chestx_jax.update.optimizer import OptimizerConfig, make_optimizer
from tests.helpers.tiny_rows import CONFIG, parameters

TRANSFORM = make_optimizer(OptimizerConfig(), 10)


class Stream(grain.DatasetIterator):
    """An iterator that has nothing but a position."""

    def __init__(self, position: int = 0):
        super().__init__()
        self.position = position

    def __next__(self):
        raise AssertionError("a checkpoint reads no data")

    def get_state(self):
        return {"position": self.position, "parents": [{"nested": self.position}]}

    def set_state(self, state):
        assert state["parents"] == [{"nested": state["position"]}]
        self.position = state["position"]


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(MeshConfig(2, 2, 2))


@pytest.fixture(scope="module")
def initial(mesh):
    shardings = states.state_shardings(CONFIG, TRANSFORM, mesh)
    return jax.jit(lambda params: states.initial_state(params, TRANSFORM), out_shardings=shardings)(parameters())


def at_step(state, step):
    """A state that tells its step in every leaf."""
    return jax.tree.map(lambda x: (x + jnp.asarray(step, x.dtype)).astype(x.dtype), state)


def restored(folder, mesh, data=None, config=CONFIG):
    shapes, shardings = states.state_shapes(config, TRANSFORM), states.state_shardings(config, TRANSFORM, mesh)
    with checkpoint.manager(folder, 2) as checkpoints:
        return checkpoint.restore(checkpoints, shapes, shardings, data)


def written(folder, state, steps, losses=None, keep=2):
    with checkpoint.manager(folder, keep) as checkpoints:
        for step in steps:
            loss = losses[step] if losses else None
            checkpoint.save(checkpoints, at_step(state, step), Stream(10 * step).get_state(), step, loss)
    return folder


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


@pytest.fixture(scope="module")
def saved(tmp_path_factory, initial):
    return written(tmp_path_factory.mktemp("saved") / "checkpoints", initial, (3, 5))


def test_state_and_place_come_back_together(saved, initial, mesh):
    data = Stream()
    state = restored(saved, mesh, data)
    same(state, at_step(initial, 5))
    assert data.position == 50
    assert jax.tree.map(lambda x: x.sharding, state) == states.state_shardings(CONFIG, TRANSFORM, mesh)


def test_another_mesh_can_go_on(saved, initial):
    alone = sharding.make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    state = restored(saved, alone, Stream())
    same(state, at_step(initial, 5))
    assert all(leaf.devices() == {jax.devices()[0]} for leaf in jax.tree.leaves(state))


def test_nothing_saved_gives_nothing(tmp_path, mesh):
    assert restored(tmp_path / "none", mesh, Stream()) is None


def test_another_shape_is_one_clear_sentence(saved, mesh):
    with pytest.raises(UserError) as caught:
        restored(saved, mesh, Stream(), replace(CONFIG, hidden=128))
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        restored(saved, mesh, Stream(), replace(CONFIG, tied=True))


def test_the_newest_and_the_best_are_kept(tmp_path, initial):
    losses = {1: 0.9, 2: 0.1, 3: 0.7, 4: 0.6, 5: 0.5}
    folder = written(tmp_path / "checkpoints", initial, losses, losses)
    assert checkpoint.steps(folder) == [2, 4, 5]


def test_the_best_is_remembered_over_a_restart(tmp_path, initial, mesh):
    """Steps that were not validated, or to nothing finite, are never the best."""
    written(tmp_path / "checkpoints", initial, (1, 2), {1: 0.2, 2: 0.9})
    folder = written(tmp_path / "checkpoints", initial, (3, 4, 5), {3: float("nan"), 4: 0.8, 5: None})
    assert checkpoint.steps(folder) == [1, 4, 5]
    assert checkpoint.validation_losses(folder) == {1: 0.2, 4: 0.8}
    assert checkpoint.step_folder(tmp_path, "best") == folder / "1"
    assert checkpoint.step_folder(tmp_path, "4") == folder / "4"
    for which, sentence in (("3", r"no checkpoint @3: it has @1, @4, @5; @best is @1"), ("", "no checkpoint @:")):
        with pytest.raises(UserError, match=sentence):
            checkpoint.step_folder(tmp_path, which)
    with pytest.raises(UserError, match="has no checkpoint @best: it has none; none was validated"):
        checkpoint.step_folder(tmp_path / "elsewhere", "best")
    alone = sharding.make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    for which, step in (("best", 1), ("5", 5)):
        same(
            checkpoint.load_params(checkpoint.step_folder(tmp_path, which), CONFIG, alone),
            at_step(initial, step).params,
        )
    with pytest.raises(UserError, match="parameters differ"):
        checkpoint.load_params(folder / "1", replace(CONFIG, hidden=128), mesh)


def test_a_checkpoint_of_an_earlier_version_restores(tmp_path, initial, mesh):
    """It has no counters of skipped steps, and the position as Grain writes it: that of one process is that of all."""
    folder = tmp_path / "checkpoints"
    state = {name: value for name, value in vars(at_step(initial, 5)).items() if name not in states.COUNTERS}
    handlers = {"state": ocp.StandardCheckpointHandler(), "data": grain.checkpoint.CheckpointHandler()}
    with ocp.CheckpointManager(folder, item_handlers=handlers) as checkpoints:
        items = {"state": ocp.args.StandardSave(state), "data": grain.checkpoint.CheckpointSave(Stream(50))}
        checkpoints.save(5, args=ocp.args.Composite(**items))
    data = Stream()
    same(restored(folder, mesh, data), at_step(initial, 5).replace(**dict.fromkeys(states.COUNTERS, jnp.int32(0))))
    assert data.position == 50
    (folder / "5" / "data" / "process_1-of-2.json").write_text("{}")
    with pytest.raises(UserError, match="earlier version on 2 processes"):
        restored(folder, mesh, Stream())


def test_a_step_saved_before_is_left_alone(tmp_path, initial, mesh):
    """A run resumed at its last step saves nothing twice."""
    folder = written(tmp_path / "checkpoints", initial, (3,))
    with checkpoint.manager(folder, 2) as checkpoints:
        checkpoint.save(checkpoints, initial, Stream(1).get_state(), 3, None)
    data = Stream()
    same(restored(folder, mesh, data), at_step(initial, 3))
    assert data.position == 30


def test_a_half_written_checkpoint_is_not_taken(saved, initial, mesh, tmp_path):
    """What a kill leaves is a folder of Orbax's temporary name; the complete checkpoint before it is taken."""
    folder = shutil.copytree(saved, tmp_path / "checkpoints")
    half = folder / "7.orbax-checkpoint-tmp"
    shutil.copytree(folder / "5", half)
    (half / "_CHECKPOINT_METADATA").unlink(missing_ok=True)
    data = Stream()
    same(restored(folder, mesh, data), at_step(initial, 5))
    assert data.position == 50
    assert not half.exists()  # and swept away


def test_parameters_alone(tmp_path, mesh):
    params = parameters()
    checkpoint.save_params(tmp_path / "params", params, {"layers": 2})
    same(checkpoint.load_params(tmp_path / "params", CONFIG, mesh), params)
    assert json.loads((tmp_path / "params" / "model.json").read_text()) == {"layers": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["params"]
    doubled = jax.tree.map(lambda x: x * 2, params)
    checkpoint.save_params(tmp_path / "params", doubled, {})  # replaced, not mixed
    same(checkpoint.load_params(tmp_path / "params", CONFIG, mesh), doubled)


def test_parameters_of_another_model_are_named(tmp_path, mesh):
    checkpoint.save_params(tmp_path / "params", parameters(), {})
    with pytest.raises(UserError, match=r"parameters differ: .*mlp.* is \(.*\), wanted \("):
        checkpoint.load_params(tmp_path / "params", replace(CONFIG, hidden=128), mesh)
    checkpoint.save_params(tmp_path / "tied", {k: v for k, v in parameters().items() if k != "head"}, {})
    with pytest.raises(UserError, match=r"head.* is missing, wanted"):
        checkpoint.load_params(tmp_path / "tied", CONFIG, mesh)
    with pytest.raises(UserError, match="holds no params folder"):
        checkpoint.load_params(tmp_path / "elsewhere", CONFIG, mesh)


def test_parameters_come_back_in_another_dtype_only_if_asked(tmp_path, mesh):
    """Full-precision weights restored into a bf16 policy are rounded once, not reinterpreted."""
    checkpoint.save_params(tmp_path / "params", parameters(), {})
    half = checkpoint.load_params(tmp_path / "params", with_compute(CONFIG, param_dtype="bfloat16"), mesh)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y.astype(jnp.bfloat16)), half, parameters())
