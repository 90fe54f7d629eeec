"""Orbax checkpoints: the train state and the position in the data, saved together, asynchronously and atomically.

To resume, the newest complete checkpoint is restored into sharded arrays and the iterator set to its position; the
caller then drops metrics of later steps. A checkpoint that a kill left half-written is never restored: Orbax renames
it into place when it is complete.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from chestx_jax import files, multihost
from chestx_jax.errors import UserError
from chestx_jax.model import lora, qwen_vl
from chestx_jax.model.config import ModelConfig
from chestx_jax.update import state as states
from chestx_jax.update.state import TrainState


@contextlib.contextmanager
def manager(folder: str | Path, keep: int) -> Iterator[ocp.CheckpointManager]:
    """The checkpoints of one stage: the `keep` newest and the one with the lowest validation loss."""
    policies = [
        preservation_policy.LatestN(keep),
        preservation_policy.BestN(get_metric_fn=_negative_loss, n=1, keep_checkpoints_without_metrics=False),
    ]
    options = ocp.CheckpointManagerOptions(
        best_fn=_negative_loss,  # without it Orbax writes no metrics, and a restart forgets the best
        preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
        cleanup_tmp_directories=True,
    )
    handlers = {"state": ocp.StandardCheckpointHandler(), "position": ocp.JsonCheckpointHandler()}
    with ocp.CheckpointManager(Path(folder).absolute(), options=options, item_handlers=handlers) as checkpoints:
        yield checkpoints


def _negative_loss(metrics: Mapping[str, float | None]) -> float:
    loss = metrics["validation_loss"]
    return -math.inf if loss is None else -loss


def save(
    checkpoints: ocp.CheckpointManager, state: TrainState, position: dict, step: int, validation_loss: float | None
) -> None:
    """Saves `position`, the state of the data's iterator, which is that of every process, at once and `state` in the
    background; does nothing where `step` is saved already."""
    if step in checkpoints.all_steps():
        return
    items = ocp.args.Composite(state=ocp.args.StandardSave(state), position=ocp.args.JsonSave(position))
    finite = validation_loss is not None and math.isfinite(validation_loss)
    checkpoints.save(step, args=items, metrics={"validation_loss": validation_loss if finite else None})


def restore(
    checkpoints: ocp.CheckpointManager, shapes: TrainState, shardings: TrainState, data: Any
) -> TrainState | None:
    """The newest saved state in the given shardings, with `data` set to its position; None where nothing is saved.

    Raises UserError where the saved state has other shapes, naming the first that differ.
    """
    step = checkpoints.latest_step()
    if step is None:
        return None
    target = vars(_with_shardings(shapes, shardings))
    # Checked before Orbax starts reading: reads that it has begun go on failing in the background.
    saved = _tree(checkpoints.item_metadata(step).state)
    counters = {name: target.pop(name) for name in states.COUNTERS if name not in saved}  # newer than the checkpoint
    _check_shapes(saved, target, checkpoints.directory)
    items = ocp.args.Composite(state=ocp.args.StandardRestore(target))
    restored = _user_errors(lambda: checkpoints.restore(step, args=items), checkpoints.directory)
    if data is not None:
        data.set_state(_position(Path(checkpoints.directory, str(step))))
        data.start_prefetch()
    zero = lambda counter: jax.device_put(np.zeros(counter.shape, counter.dtype), counter.sharding)  # noqa: E731
    return TrainState(**restored.state, **jax.tree.map(zero, counters))


def _position(folder: Path) -> dict:
    """The saved state of the data's iterator. Earlier versions wrote one of its own for each process."""
    earlier = sorted((folder / "data").glob("process_*.json"))
    if len(earlier) > 1:
        raise UserError(
            f"{folder} was saved by an earlier version on {len(earlier)} processes, which read the data in another "
            "order: finish the run with that version, or start one in another workdir."
        )
    return files.read_json(earlier[0] if earlier else folder / "position" / "metadata", "remove this checkpoint")


def steps(folder: str | Path) -> list[int]:
    """The steps of the complete checkpoints in `folder`, ascending."""
    return sorted(int(path.name) for path in Path(folder).glob("*") if path.name.isdigit())


def validation_losses(folder: str | Path) -> dict[int, float]:
    """The validation losses by step of the checkpoints in `folder` that have one."""
    files_by_step = {step: Path(folder, str(step), "metrics", "metrics") for step in steps(folder)}
    losses = {
        step: files.read_json(path, "remove this checkpoint")["validation_loss"]
        for step, path in files_by_step.items()
        if path.is_file()
    }
    return {step: loss for step, loss in losses.items() if loss is not None}


def step_folder(stage: str | Path, which: str) -> Path:
    """The folder of a stage's checkpoint for `load_params`, `which` being a step or "best", the one with the lowest
    validation loss.

    Raises UserError where there is no such checkpoint, naming those that there are.
    """
    folder = Path(stage) / "checkpoints"
    saved, losses = steps(folder), validation_losses(folder)
    best = min(losses, key=losses.__getitem__) if losses else None
    step = best if which == "best" else int(which) if which.isdecimal() else None
    if step not in saved:
        known = ", ".join(f"@{step}" for step in saved) or "none"
        validated = f"; @best is @{best}" if losses else "; none was validated, so there is no @best"
        raise UserError(f"{stage} has no checkpoint @{which}: it has {known}{validated}.")
    return folder / str(step)


def save_params(folder: str | Path, params, model: dict) -> None:
    """Saves parameters and the model's configuration (plain JSON values), replacing `folder` in one rename."""
    folder = Path(folder).absolute()
    sizes = [_bytes(leaf, leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(params)]
    primary = multihost.is_primary()
    replacing = files.replacing_folder(folder) if primary else contextlib.nullcontext(files.partial_folder(folder))
    with replacing as partial:
        multihost.barrier("parameters")
        with _checkpointer(max(sizes)) as checkpointer:
            checkpointer.save(partial / "params", params)
            checkpointer.wait_until_finished()
        if primary:
            files.write_json(partial / "model.json", model)
    multihost.barrier("parameters saved")


def load_params(folder: str | Path, model: ModelConfig, mesh):
    """Parameters saved by `save_params`, or those of a training checkpoint (`step_folder`), in the mesh's shardings.
    Where the model has adapters and the checkpoint none, new ones are added.

    Raises UserError for a folder without parameters or with parameters of another shape, naming the first that differ.
    """
    folder = Path(folder).absolute()
    in_state = (folder / "state").is_dir()
    item = folder / ("state" if in_state else "params")
    if not item.is_dir():
        raise UserError(
            f"{folder} holds no params folder: give the folder that training wrote (it ends in /params), or the "
            "stage's with @best or @STEP."
        )
    shapes, shardings = qwen_vl.shapes(model), qwen_vl.shardings(model, mesh)
    metadata = _tree(ocp.StandardCheckpointHandler().metadata(item))
    metadata = metadata["params"] if in_state else metadata
    no_adapters = not any("lora_a" in jax.tree_util.keystr(path) for path, _ in _leaves(metadata))
    saved = lora.without_adapters(model) if no_adapters else model
    target = _with_shardings(qwen_vl.shapes(saved), qwen_vl.shardings(saved, mesh))
    _check_shapes(metadata, target, folder)
    stored = {_name(path): leaf for path, leaf in _leaves(metadata)}
    sizes = [_bytes(leaf, _chunk_span(leaf, stored[_name(path)])) for path, leaf in _leaves(target)]
    if in_state:
        params = _user_errors(lambda: _restore_part(item, {"params": target}, max(sizes))["params"], folder)
    else:
        with _checkpointer(max(sizes)) as checkpointer:
            params = _user_errors(lambda: checkpointer.restore(item, target), folder)
    if not no_adapters:
        return params
    return jax.device_put(lora.add_adapters(model, params, shapes, jax.random.key(model.tuning.seed)), shardings)


def _restore_part(folder: Path, target, largest: int):
    """What `target` names of a saved tree, nothing else being read."""
    handler = ocp.PyTreeCheckpointHandler(restore_concurrent_gb=_concurrent_gb(largest))  # type: ignore[arg-type]
    restore_args = ocp.checkpoint_utils.construct_restore_args(target)
    with ocp.Checkpointer(handler) as checkpointer:
        return checkpointer.restore(
            folder, args=ocp.args.PyTreeRestore(target, restore_args=restore_args, partial_restore=True)
        )


def _checkpointer(largest: int) -> ocp.StandardCheckpointer:
    """A checkpointer that copies little more than one shard at a time, so that host memory does not hold the parameters
    twice. The limit exceeds the largest shard, of `largest` bytes: Orbax waits forever for one of exactly the limit.
    """
    limit = _concurrent_gb(largest)
    return ocp.StandardCheckpointer(save_concurrent_gb=limit, restore_concurrent_gb=limit)


def _concurrent_gb(largest: int) -> float:
    return max(1.0, 1.1 * largest / 1e9)


def _bytes(leaf, shape) -> int:
    return math.prod(shape) * leaf.dtype.itemsize


def _chunk_span(leaf, stored) -> tuple[int, ...]:
    """The shape that the stored chunks which one device's shard overlaps cover together, at most."""
    shard_shape, chunk_shape = leaf.sharding.shard_shape(leaf.shape), stored.storage.chunk_shape
    spans = (
        max(size, chunk) if size % chunk == 0 or chunk % size == 0 else (size // chunk + 2) * chunk
        for size, chunk in zip(shard_shape, chunk_shape, strict=True)
    )
    return tuple(spans)


def _check_shapes(metadata, target, folder) -> None:
    saved, wanted = ({_name(path): tuple(leaf.shape) for path, leaf in _leaves(tree)} for tree in (metadata, target))
    differ = [name for name in sorted(saved.keys() | wanted.keys()) if saved.get(name) != wanted.get(name)]
    if differ:
        listed = "; ".join(f"{n} is {saved.get(n, 'missing')}, wanted {wanted.get(n, 'nothing')}" for n in differ[:5])
        raise UserError(
            f"{folder} is a checkpoint of another model, {len(differ)} parameters differ: {listed}. "
            "Set config.model and the optimizer to what it was trained with, or give another workdir."
        )


def _name(path) -> str:
    """The same name for a leaf of a dataclass and of the dicts and lists that it was saved as."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _tree(metadata) -> Any:
    """The tree that Orbax's metadata of a saved tree describe."""
    metadata = getattr(metadata, "item_metadata", metadata)
    return getattr(metadata, "tree", metadata)


def _leaves(tree):
    return jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))[0]


def _with_shardings(shapes, shardings):
    combine = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # noqa: E731
    return jax.tree.map(combine, shapes, shardings)


def _user_errors(restore, folder) -> Any:
    """`restore()`, with Orbax's error about another tree or shape raised as a UserError of one sentence."""
    try:
        return restore()
    except (ValueError, KeyError, FileNotFoundError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{folder} cannot be restored into this configuration ({first}): use the configuration it was written "
            "with, or another workdir."
        ) from error
