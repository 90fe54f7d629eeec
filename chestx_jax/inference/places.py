"""Checkpoints by the place that flags and configs name: `hf:FOLDER`, `hf:OWNER/NAME[@REVISION]`, `orbax:FOLDER` or, of
a stage that training has checkpoints of, `orbax:WORKDIR/STAGE@best` (lowest validation loss) or `@STEP`."""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh

from chestx_jax import checkpoint
from chestx_jax.config import to_dataclass, to_dict
from chestx_jax.errors import UserError
from chestx_jax.export import export_model
from chestx_jax.files import read_json, write_sidecars
from chestx_jax.model import hf
from chestx_jax.model.config import ModelConfig, architecture
from chestx_jax.model.hf.hub import FILES, resolve
from chestx_jax.recipes import saved_job
from chestx_jax.tokens.interchange import sidecar_files
from chestx_jax.tokens.patches import ImageSpec

SIDECAR_FOLDER = "companions"  # tokenizer and settings beside converted Orbax parameters


class Place(NamedTuple):
    """A form of checkpoint ("hf" or "orbax"; to write also "adapter") and its folder."""

    kind: str
    folder: Path


def parse_place(place: str, kinds: Container[str], advice: str) -> Place:
    """A place written KIND:FOLDER. Raises UserError with `advice` for any other text."""
    kind, _, folder = place.partition(":")
    if kind not in kinds or not folder:
        raise UserError(advice)
    return Place(kind, Path(folder))


def find_checkpoint(place: str, advice: str, files: Sequence[str] = FILES) -> Place:
    """The checkpoint to read at `place`; a model on the Hugging Face hub is fetched into its cache, or those `files`.

    Raises UserError: with `advice` where the place is spelled otherwise, naming what the hub refuses, or the
    checkpoints that the stage has.
    """
    kind, folder = parse_place(place, ("hf", "orbax"), advice)
    if kind == "hf":
        return Place(kind, resolve(place.removeprefix("hf:"), files))
    stage, at, which = folder.name.rpartition("@")
    if not at or folder.exists():
        return Place(kind, folder)
    return Place(kind, checkpoint.step_folder(folder.with_name(stage), which))


def workdir_of(source: Place) -> Path | None:
    """The workdir of the job that left Orbax parameters where they are: in WORKDIR/STAGE/params or in a checkpoint,
    WORKDIR/STAGE/checkpoints/STEP. None for other places."""
    if source.kind != "orbax":
        return None
    folder = source.folder.absolute()
    stage = folder.parents[1] if folder.parent.name == "checkpoints" else folder.parent
    return stage.parent if (stage.parent / "config.json").is_file() else None


def model_config(source: Place) -> ModelConfig:
    """The model's configuration, from config.json, from the model.json beside Orbax parameters, or from the config.json
    of the job whose checkpoint it is."""
    if source.kind == "hf":
        return hf.read_config(source.folder)
    workdir = workdir_of(source)
    if workdir and (source.folder / "state").is_dir():
        path = workdir / "config.json"
        return saved_job(read_json(path, "bring back the job's"), str(path)).model
    path = source.folder / "model.json"
    return to_dataclass(ModelConfig, read_json(path, "give a folder that training or conversion wrote"), str(path))


def load_params(source: Place, config: ModelConfig, mesh: Mesh) -> Any:
    """The checkpoint's parameters, sharded over the mesh. Raises UserError where they are not those of `config`."""
    check_architecture(config, source)
    load = hf.load if source.kind == "hf" else checkpoint.load_params
    return load(source.folder, config, mesh)


def check_architecture(config: ModelConfig, source: Place) -> None:
    """Raise UserError where a model is not the checkpoint's, with each field's two values: weights of the same shapes
    would be loaded and compute another function."""
    stored = architecture(model_config(source))
    ours = architecture(config)
    wrong = [f"{name} is {ours[name]} and {stored.get(name)}" for name in ours if ours[name] != stored.get(name)]
    if wrong:
        raise UserError(
            f"config.model is not the model in {source.folder}: {', '.join(wrong)} there; leave them out (None) to "
            "take those of the checkpoint."
        )


def sidecar_folder(source: Place) -> Path:
    """Where the tokenizer and the image settings of a checkpoint are, if it has any."""
    return source.folder if source.kind == "hf" else source.folder / SIDECAR_FOLDER


def save_checkpoint(
    target: Place,
    config: ModelConfig,
    params: Any,
    tokenizer: Path,
    image: ImageSpec | None,
    dtype: str | None,
    shard_bytes: int,
) -> None:
    """Writes a checkpoint with the tokenizer and the settings in the folder `tokenizer`, those of images being `image`
    where it is given.

    `dtype` and `shard_bytes` (of a file) are of Hugging Face checkpoints. Raises UserError where the tokenizer, the
    folder or the disk does not allow it.
    """
    if target.kind == "hf":
        export_model(target.folder, config, params, tokenizer, image, dtype, shard_bytes)
        return
    checkpoint.save_params(target.folder, params, to_dict(config))
    write_sidecars(sidecar_folder(target), sidecar_files(tokenizer, image))
