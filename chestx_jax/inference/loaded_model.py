"""A model ready to answer: parameters on the mesh, with the tokenizer and the image settings that belong to them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool

from chestx_jax import sharding
from chestx_jax.config import convert, to_dataclass
from chestx_jax.data.pipeline import Encoder
from chestx_jax.files import read_json
from chestx_jax.inference.places import Place, find_checkpoint, load_params, model_config, sidecar_folder, workdir_of
from chestx_jax.model.config import ModelConfig, with_compute
from chestx_jax.model.hf.hub import resolve
from chestx_jax.model.qwen_vl import unstack_layers
from chestx_jax.rollout.sampling import Vocabulary
from chestx_jax.tokens.interchange import read_image_spec
from chestx_jax.tokens.patches import PATCH_FIELDS, ImageSpec, check_patches, with_aspect
from chestx_jax.tokens.tokenizer import SpecialIds, check_fits, load_tokenizer, special_ids, special_token_ids


@dataclass(frozen=True)
class LoadedModel:
    """A model with all that answering needs; with a blind encoder every film is one of its mean tone."""

    config: ModelConfig
    params: Any  # for decoding
    mesh: Mesh
    encoder: Encoder  # tokenizer and image settings
    vocabulary: Vocabulary  # on the devices


def load_model(
    place: str,
    mesh: Mesh,
    dtype: str | None = None,
    tokenizer: str | None = None,
    image_size: int = 0,
    blind: bool = False,
) -> LoadedModel:
    """The model at "hf:FOLDER", "hf:OWNER/NAME" or "orbax:FOLDER", computing in `dtype` (bfloat16, on a CPU float32).

    `tokenizer` names a folder or hub model where the checkpoint has none beside it. Films are resized to `image_size`
    squared, or with 0 as the model's image settings say. Parameters where training left them
    (WORKDIR/STAGE/params) take the run's tokenizer and image settings. Raises UserError for whatever is missing.
    """
    source = find_checkpoint(place, f"--model={place}: write hf:FOLDER, hf:OWNER/NAME or orbax:FOLDER.")
    dtype = dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    config = with_compute(model_config(source), dtype=dtype, param_dtype=dtype, remat="none")
    params = unstack_in_place(config, load_params(source, config, mesh))
    settings = find_settings(source, tokenizer)
    loaded_tokenizer = load_tokenizer(settings.tokenizer)
    check_fits(loaded_tokenizer, config.vocab_size)
    special = special_ids(loaded_tokenizer)
    image = settings.image or read_image_spec(settings.tokenizer) or family_image_spec(config)
    if image_size:
        image = replace(image, aspect="squash", height=image_size, width=image_size)
    check_patches(image, config.vision, f"{settings.tokenizer}: image", f"{source.folder}: vision")
    vocabulary = completion_vocabulary(loaded_tokenizer, special, config.vocab_size, mesh)
    return LoadedModel(config, params, mesh, Encoder(loaded_tokenizer, special, image, blind), vocabulary)


def unstack_in_place(config: ModelConfig, params: Any) -> Any:
    """The parameters as for decoding, a layer's in a tree of their own. Each stacked array is freed as soon as it is
    taken apart, so that no more than one of them exists twice."""
    split = jax.jit(lambda stacked: tuple(stacked[number] for number in range(config.layers)))

    def take_apart(stacked: jax.Array) -> tuple[jax.Array, ...]:
        layers = jax.block_until_ready(split(stacked))
        stacked.delete()
        return layers

    layers = jax.tree.map(take_apart, params["decoder"]["layers"])
    decoder = {**params["decoder"], "layers": layers}
    return unstack_layers(config, {**params, "decoder": decoder})


class Settings(NamedTuple):
    """How a model reads text and films."""

    tokenizer: Path  # folder
    image: ImageSpec | None  # None: as the files beside the tokenizer say


def find_settings(source: Place, tokenizer: str | None) -> Settings:
    """The settings that belong to a checkpoint: those beside it, or of the run that left it; its text is read by the
    `tokenizer` (a folder or hub name) where one is given."""
    run = None if sidecar_folder(source).is_dir() else training_run(source)
    settings = run or Settings(sidecar_folder(source), None)
    return settings._replace(tokenizer=resolve(tokenizer)) if tokenizer else settings


def training_run(source: Place) -> Settings | None:
    """The run that left its parameters in WORKDIR/STAGE, by its config.json; None for any other checkpoint.

    Raises UserError for a config.json that cannot be read.
    """
    workdir = workdir_of(source)
    if workdir is None:
        return None
    path = workdir / "config.json"
    job = read_json(path, "fix it, or move the parameters out of the run")
    if not isinstance(job, dict) or not {"data_root", "tokenizer", "image"} <= job.keys():
        return None  # somebody else's config.json
    data_root, tokenizer = (convert(job[name], str, f"{path}: {name}") for name in ("data_root", "tokenizer"))
    root = Path(data_root) if data_root else workdir / "data"
    image = to_dataclass(ImageSpec, with_aspect(job["image"]), f"{path}: image")
    return Settings(root / tokenizer, image)


def family_image_spec(config: ModelConfig) -> ImageSpec:
    """The image settings of a model that came without any."""
    mean, std = config.architecture.pixel_mean, config.architecture.pixel_std
    return ImageSpec(mean=mean, std=std, **{name: getattr(config.vision, name) for name in PATCH_FIELDS})


def completion_vocabulary(tokenizer: Any, special: SpecialIds, size: int, mesh: Mesh) -> Vocabulary:
    """The ids that a completion may hold and those that end it, replicated over the mesh."""
    stop_ids = np.array([special.im_end, special.pad], np.int32)
    vocabulary = Vocabulary(allowed=allowed_ids(tokenizer, special, size), stop_ids=stop_ids)
    return sharding.put(vocabulary, sharding.replicated(mesh))


def allowed_ids(tokenizer: Any, special: SpecialIds, size: int) -> Bool[np.ndarray, " V"]:
    """The ids a completion may hold: no image pads or other special tokens but the ends, no padding rows."""
    allowed = np.arange(size) <= max(tokenizer.get_vocab().values())
    allowed[list(special_token_ids(tokenizer) - {special.im_end, special.pad})] = False
    return allowed
