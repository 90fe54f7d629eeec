"""Orbax checkpoints: the train state and the position of each process's data iterator, saved together, asynchronously
and atomically.

To resume, the newest complete checkpoint is restored into sharded arrays and the iterator set to its position; the
caller then drops metrics of later steps. A checkpoint that a kill left half-written is never restored: Orbax renames
it into place when it is complete.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from chestx_jax import files, multihost
from chestx_jax.errors import UserError
from chestx_jax.model import lora, qwen_vl
from chestx_jax.model.config import ModelConfig
from chestx_jax.update.state import TrainState


@contextlib.contextmanager
def manager(folder: str | Path, keep: int) -> Iterator[ocp.CheckpointManager]:
    """The checkpoints of one stage: the `keep` newest and the one with the lowest validation loss."""
    policies = [
        preservation_policy.LatestN(keep),
        preservation_policy.BestN(get_metric_fn=_negative_loss, n=1, keep_checkpoints_without_metrics=False),
    ]
    options = ocp.CheckpointManagerOptions(
        preservation_policy=preservation_policy.AnyPreservationPolicy(policies), cleanup_tmp_directories=True
    )
    handlers = {"state": ocp.StandardCheckpointHandler(), "data": grain.checkpoint.CheckpointHandler()}
    with ocp.CheckpointManager(Path(folder).absolute(), options=options, item_handlers=handlers) as checkpoints:
        yield checkpoints


def _negative_loss(metrics: Mapping[str, float]) -> float:
    return -float(metrics["validation_loss"])


def save(
    checkpoints: ocp.CheckpointManager, state: TrainState, data: Any, step: int, metrics: Mapping[str, float] | None
) -> None:
    """Saves each process's position in `data` at once, and `state` in the background; does nothing where `step` is
    saved already."""
    if step in checkpoints.all_steps():
        return
    items = ocp.args.Composite(state=ocp.args.StandardSave(state), data=grain.checkpoint.CheckpointSave(data))
    checkpoints.save(step, args=items, metrics=dict(metrics) if metrics else None)


def restore(
    checkpoints: ocp.CheckpointManager, shapes: TrainState, shardings: TrainState, data: Any
) -> TrainState | None:
    """The newest saved state in the given shardings, with `data` set to its position; None where nothing is saved.

    Raises UserError where the saved state has other shapes, naming the first that differ.
    """
    step = checkpoints.latest_step()
    if step is None:
        return None
    target = _with_shardings(shapes, shardings)
    # Checked before Orbax starts reading: reads that it has begun go on failing in the background.
    _check_shapes(checkpoints.item_metadata(step).state, target, checkpoints.directory)
    items = {"state": ocp.args.StandardRestore(target)}
    if data is not None:
        items["data"] = grain.checkpoint.CheckpointRestore(data)
    restored = _user_errors(lambda: checkpoints.restore(step, args=ocp.args.Composite(**items)), checkpoints.directory)
    return restored.state


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
    """Parameters saved by `save_params`, in the mesh's shardings. Where the model has adapters and the checkpoint none,
    new ones are added.

    Raises UserError for a folder without parameters or with parameters of another shape, naming the first that differ.
    """
    folder = Path(folder).absolute()
    if not (folder / "params").is_dir():
        raise UserError(f"{folder} holds no params folder: give the folder that training wrote (it ends in /params).")
    shapes, shardings = qwen_vl.shapes(model), qwen_vl.shardings(model, mesh)
    with ocp.StandardCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(folder / "params")
    no_adapters = not any("lora_a" in jax.tree_util.keystr(path) for path, _ in _leaves(metadata))
    saved = lora.without_adapters(model) if no_adapters else model
    target = _with_shardings(qwen_vl.shapes(saved), qwen_vl.shardings(saved, mesh))
    _check_shapes(metadata, target, folder)
    stored = {_name(path): leaf for path, leaf in _leaves(metadata)}
    sizes = [_bytes(leaf, _chunk_span(leaf, stored[_name(path)])) for path, leaf in _leaves(target)]
    with _checkpointer(max(sizes)) as checkpointer:
        params = _user_errors(lambda: checkpointer.restore(folder / "params", target), folder)
    if not no_adapters:
        return params
    return jax.device_put(lora.add_adapters(model, params, shapes, jax.random.key(model.tuning.seed)), shardings)


def _checkpointer(largest: int) -> ocp.StandardCheckpointer:
    """A checkpointer that copies little more than one shard at a time, so that host memory does not hold the parameters
    twice. The limit exceeds the largest shard, of `largest` bytes: Orbax waits forever for one of exactly the limit.
    """
    limit = max(1.0, 1.1 * largest / 1e9)
    return ocp.StandardCheckpointer(save_concurrent_gb=limit, restore_concurrent_gb=limit)


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


def _leaves(tree):
    tree = getattr(tree, "item_metadata", tree)
    tree = getattr(tree, "tree", tree)
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
