"""A configuration as a typed job: what it leaves open of the model is as in the checkpoint that the job starts from."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from chestx_jax.config import to_dataclass
from chestx_jax.errors import UserError
from chestx_jax.files import read_json
from chestx_jax.inference.loaded_model import family_image_spec, find_settings
from chestx_jax.inference.places import Place, check_architecture, find_checkpoint, model_config
from chestx_jax.model.config import ModelConfig, with_architecture
from chestx_jax.model.hf.hub import SETTINGS
from chestx_jax.recipes import JobConfig, SftConfig, saved_job
from chestx_jax.tokens.interchange import read_image_spec
from chestx_jax.tokens.patches import ImageSpec

ADVICE = "give random, orbax:DIR, hf:DIR, or the configuration of a first stage"


def read_job(config: Any, workdir: Path | None = None, note: Callable[[str], object] | None = None) -> JobConfig:
    """The job of a configuration (nested mappings); of one that has begun in `workdir` already, with that run's model.

    Raises UserError for a value that is none, for a model that is set otherwise than the checkpoint has it, and for a
    checkpoint that cannot be read; with `note`, which is told so, open fields have their defaults instead.
    """
    begun = workdir / "config.json" if workdir else None
    if begun and begun.is_file():
        run = saved_job(read_json(begun, "remove the file, or use another workdir"), str(begun))
        return to_dataclass(JobConfig, config, default=_default_job(run.model, run.image))
    place = starting_place(config)
    # The defaults are that model; it is checked when its weights are loaded. Any other value is refused by its type.
    if place in ("random", SftConfig.init) or not isinstance(place, str):
        return to_dataclass(JobConfig, config)
    try:
        source = find_checkpoint(place, f"config.init is {place!r}: {ADVICE}", SETTINGS)
        model, image = model_config(source), _image_settings(source)
    except UserError as error:
        if note is None:
            raise
        note(f"note: {error} Fields of the model that are not set have their defaults.")
        return to_dataclass(JobConfig, config)
    job = to_dataclass(JobConfig, config, default=_default_job(model, image))
    check_architecture(job.model, source)
    for name in ImageSpec.of_checkpoint if image else ():
        ours, stored = getattr(job.image, name), getattr(image, name)
        if ours != stored:
            raise UserError(f"config.image.{name} is {ours} and {stored} in {source.folder}: leave it out (None).")
    return job


def starting_place(config: Any) -> Any:
    """The checkpoint, or "random", that the first stage of a configuration starts from."""
    init = config.get("init", SftConfig.init)
    return starting_place(init) if hasattr(init, "get") else init


def _image_settings(source: Place) -> ImageSpec | None:
    settings = find_settings(source, None)
    return settings.image or read_image_spec(settings.tokenizer)


def _default_job(model: ModelConfig, image: ImageSpec | None) -> JobConfig:
    """The recipe with a checkpoint's architecture, and films cut as its settings, or those of its family, say."""
    default = JobConfig()
    image = image or family_image_spec(model)
    cut = {name: getattr(image, name) for name in ImageSpec.of_checkpoint}
    return replace(default, model=with_architecture(default.model, model), image=replace(default.image, **cut))
