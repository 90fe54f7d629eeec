"""Orbax checkpoints: the train state and the place of each process's data iterator, saved together, asynchronously,
atomically.

Restore order: the newest complete checkpoint is chosen; its state goes straight into sharded arrays; the
iterator is set to the place saved with it; then the caller drops metrics later than that step. A checkpoint that a
kill left half-written is never chosen (Orbax renames it into place when it is complete).
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
        preservation_policy.BestN(get_metric_fn=_best, n=1, keep_checkpoints_without_metrics=False),
    ]
    options = ocp.CheckpointManagerOptions(
        preservation_policy=preservation_policy.AnyPreservationPolicy(policies), cleanup_tmp_directories=True
    )
    handlers = {"state": ocp.StandardCheckpointHandler(), "data": grain.checkpoint.CheckpointHandler()}
    with ocp.CheckpointManager(Path(folder).absolute(), options=options, item_handlers=handlers) as checkpoints:
        yield checkpoints


def _best(metrics: Mapping[str, float]) -> float:
    return -float(metrics["validation_loss"])


def save(
    checkpoints: ocp.CheckpointManager, state: TrainState, data: Any, step: int, metrics: Mapping[str, float] | None
) -> None:
    """Saves `state` as of `step` in the background, and at once each process's place in `data`; a step already saved is
    left alone."""
    if step in checkpoints.all_steps():
        return
    place = grain.checkpoint.CheckpointSave(data)
    items = ocp.args.Composite(state=ocp.args.StandardSave(state), data=place)
    checkpoints.save(step, args=items, metrics=dict(metrics) if metrics else None)


def restore(
    checkpoints: ocp.CheckpointManager, shapes: TrainState, shardings: TrainState, data: Any
) -> TrainState | None:
    """The newest saved state in the given shardings, with `data` set to its place; None where nothing is saved."""
    step = checkpoints.latest_step()
    if step is None:
        return None
    target = _placed(shapes, shardings)
    # Before Orbax starts reading: what it has begun when it finds a difference goes on failing behind our back.
    _check_shapes(checkpoints.item_metadata(step).state, target, checkpoints.directory)
    items = {"state": ocp.args.StandardRestore(target)}
    if data is not None:
        items["data"] = grain.checkpoint.CheckpointRestore(data)
    restored = _explained(lambda: checkpoints.restore(step, args=ocp.args.Composite(**items)), checkpoints.directory)
    return restored.state


def save_params(folder: str | Path, params, model: dict) -> None:
    """Parameters alone with the model's configuration (plain JSON values), replacing `folder` in one rename."""
    folder = Path(folder).absolute()
    pieces = [_bytes(leaf, leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(params)]
    primary = multihost.is_primary()
    replacing = files.replacing_folder(folder) if primary else contextlib.nullcontext(files.partial_folder(folder))
    with replacing as partial:
        multihost.barrier("parameters")
        with _checkpointer(max(pieces)) as checkpointer:
            checkpointer.save(partial / "params", params)
            checkpointer.wait_until_finished()
        if primary:
            files.write_json(partial / "model.json", model)
    multihost.barrier("parameters saved")


def load_params(folder: str | Path, model: ModelConfig, mesh):
    """Parameters saved by `save_params`, in the mesh's shardings; where the model has low-rank additions and the
    checkpoint none, fresh ones are added.

    Raises UserError for a folder without parameters or with parameters of another shape, naming the first that differ.
    """
    folder = Path(folder).absolute()
    if not (folder / "params").is_dir():
        raise UserError(f"{folder} holds no params folder: give the folder that training wrote (it ends in /params).")
    shapes, shardings = qwen_vl.shapes(model), qwen_vl.shardings(model, mesh)
    with ocp.StandardCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(folder / "params")
    bare = not any("lora_a" in jax.tree_util.keystr(path) for path, _ in _leaves(metadata))
    saved = lora.without_adapters(model) if bare else model
    target = _placed(qwen_vl.shapes(saved), qwen_vl.shardings(saved, mesh))
    _check_shapes(metadata, target, folder)
    stored = {_name(path): leaf for path, leaf in _leaves(metadata)}
    pieces = [_bytes(leaf, _read_at_once(leaf, stored[_name(path)])) for path, leaf in _leaves(target)]
    with _checkpointer(max(pieces)) as checkpointer:
        params = _explained(lambda: checkpointer.restore(folder / "params", target), folder)
    if not bare:
        return params
    return jax.device_put(lora.add_adapters(model, params, shapes, jax.random.key(model.tuning.seed)), shardings)


def _checkpointer(largest: int) -> ocp.StandardCheckpointer:
    """Copies little more than one piece of an array at a time, or host memory would hold the parameters twice.

    The limit must exceed the largest piece, of `largest` bytes: Orbax waits forever for one of just that size.
    """
    limit = max(1.0, 1.1 * largest / 1e9)
    return ocp.StandardCheckpointer(save_concurrent_gb=limit, restore_concurrent_gb=limit)


def _bytes(leaf, shape) -> int:
    return math.prod(shape) * leaf.dtype.itemsize


def _read_at_once(leaf, stored) -> tuple[int, ...]:
    """The shape of the stored chunks that one device's piece of an array touches, at most."""
    piece, chunk = leaf.sharding.shard_shape(leaf.shape), stored.storage.chunk_shape
    spans = (
        max(size, step) if size % step == 0 or step % size == 0 else (size // step + 2) * step
        for size, step in zip(piece, chunk, strict=True)
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
    """One name for a leaf of a dataclass and of the plain dicts and lists that it was saved as."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _leaves(tree):
    tree = getattr(tree, "item_metadata", tree)
    tree = getattr(tree, "tree", tree)
    return jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))[0]


def _placed(shapes, shardings):
    place = lambda shape, at: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=at)  # noqa: E731
    return jax.tree.map(place, shapes, shardings)


def _explained(restore, folder) -> Any:
    """Orbax's complaint about another tree or shape, as one sentence."""
    try:
        return restore()
    except (ValueError, KeyError, FileNotFoundError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{folder} cannot be restored into this configuration ({first}): use the configuration it was written "
            "with, or another workdir."
        ) from error
