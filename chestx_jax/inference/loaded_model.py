"""A model at hand to be asked: parameters on the mesh, with the tokenizer and image rule that belong to them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from chestx_jax import checkpoint, files, sharding
from chestx_jax.config import to_dataclass
from chestx_jax.errors import UserError
from chestx_jax.model import hf
from chestx_jax.model.config import ModelConfig, with_compute
from chestx_jax.model.hf.hub import resolve
from chestx_jax.rollout.sampling import Vocabulary
from chestx_jax.tokens.interchange import read_image_spec
from chestx_jax.tokens.patches import PATCH_FIELDS, ImageSpec, check_patches
from chestx_jax.tokens.tokenizer import SpecialIds, check_fits, load_tokenizer, special_ids

SIDECAR_FOLDER = "companions"  # tokenizer and settings beside converted Orbax parameters


@dataclass(frozen=True)
class LoadedModel:
    """Everything `inference` needs to answer."""

    config: ModelConfig
    params: Any
    mesh: Any
    tokenizer: Any
    special: SpecialIds
    spec: ImageSpec
    vocabulary: Vocabulary  # on the devices


def load_model(place: str, mesh, dtype: str, tokenizer: str | None = None, image_size: int = 0) -> LoadedModel:
    """The model at "hf:FOLDER", "hf:OWNER/NAME" or "orbax:FOLDER", computing in `dtype`.

    `tokenizer` names a folder or hub model where the place has none of its own; films are resized to `image_size`
    squared, or with 0 as the model's preprocessor_config.json says. Parameters that lie where training left them
    (WORKDIR/STAGE/params) are asked as they were trained: with the run's tokenizer and image rule. Raises UserError
    for whatever is missing.
    """
    kind, folder = source(place)
    config = with_compute(model_config(kind, folder), dtype=dtype, param_dtype=dtype, remat="none")
    params = hf.load(folder, config, mesh) if kind == "hf" else checkpoint.load_params(folder, config, mesh)
    run = training_run(folder) if kind == "orbax" and not sidecar_folder(kind, folder).is_dir() else None
    own = run.tokenizer if run else sidecar_folder(kind, folder)
    beside = resolve(tokenizer) if tokenizer else own
    words = load_tokenizer(beside)
    check_fits(words, config.vocab_size)
    special = special_ids(words)
    spec = run.image if run and not image_size else _spec(beside, config, image_size)
    check_patches(spec, config.vision, f"{beside}: image", f"{folder}: vision")
    allowed = allowed_ids(words, special, config.vocab_size)
    vocabulary = Vocabulary(allowed=allowed, stop_ids=np.array([special.im_end, special.pad], np.int32))
    on_devices = sharding.put(vocabulary, sharding.replicated(mesh))
    return LoadedModel(config, params, mesh, words, special, spec, on_devices)


def source(place: str, flag: str = "--model") -> tuple[str, Path]:
    """The form and the local folder of a place written `hf:…` or `orbax:…`."""
    kind, _, rest = place.partition(":")
    if kind not in ("hf", "orbax") or not rest:
        raise UserError(f"{flag}={place}: write hf:FOLDER, hf:OWNER/NAME or orbax:FOLDER.")
    return kind, resolve(rest) if kind == "hf" else Path(rest)


def model_config(kind: str, folder: Path) -> ModelConfig:
    """The model's configuration, from config.json or from the model.json beside Orbax parameters."""
    if kind == "hf":
        return hf.read_config(folder)
    path = folder / "model.json"
    stored = files.read_json(path, "give a folder that training or conversion wrote")
    return to_dataclass(ModelConfig, stored, str(path))


def sidecar_folder(kind: str, folder: Path) -> Path:
    """Where the tokenizer and the image settings of a checkpoint lie, if it has any."""
    return folder if kind == "hf" else folder / SIDECAR_FOLDER


class Run(NamedTuple):
    """What a training run reads films and text with."""

    tokenizer: Path
    image: ImageSpec


def training_run(params: Path) -> Run | None:
    """The run that left its parameters in WORKDIR/STAGE/params, by its config.json; None where they lie elsewhere.

    Raises UserError for a config.json that cannot be read.
    """
    workdir = params.absolute().parent.parent
    path = workdir / "config.json"
    if not path.is_file():
        return None
    job = files.read_json(path, "fix it, or move the parameters out of the run")
    if not isinstance(job, dict) or not {"data_root", "tokenizer", "image"} <= job.keys():
        return None  # somebody else's config.json
    root = Path(job["data_root"]) if job["data_root"] else workdir / "data"
    return Run(root / job["tokenizer"], to_dataclass(ImageSpec, job["image"], f"{path}: image"))


def allowed_ids(tokenizer: Any, special: SpecialIds, size: int) -> np.ndarray:
    """bool[V]: ids a completion may hold: no image pads or other special tokens but the ends, no padding rows."""
    allowed = np.arange(size) <= max(tokenizer.get_vocab().values())
    allowed[[id for id in tokenizer.all_special_ids if id not in (special.im_end, special.pad)]] = False
    return allowed


def _spec(folder: Path, config: ModelConfig, image_size: int) -> ImageSpec:
    shared = {name: getattr(config.vision, name) for name in PATCH_FIELDS}
    if image_size:
        return ImageSpec(height=image_size, width=image_size, **shared)
    if not (folder / "preprocessor_config.json").is_file():
        return ImageSpec(**shared)
    return read_image_spec(folder)
