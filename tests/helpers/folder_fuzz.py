"""Mutated checkpoint folders: configuration, image settings, weights, index, tokenizer, and what runs leave."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from chestx_jax.config import to_dict
from chestx_jax.errors import UserError
from chestx_jax.inference.loaded_model import training_run
from chestx_jax.inference.places import Place, model_config
from chestx_jax.model import hf
from chestx_jax.model.hf import safetensors
from chestx_jax.model.qwen_vl import shapes
from chestx_jax.recipes import JobConfig
from chestx_jax.tokens.chat import chat_form, encode_text
from chestx_jax.tokens.interchange import processor_settings, read_image_spec, sidecar_files, token_ids
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.tokenizer import load_tokenizer, token_bytes, train_tokenizer
from tests.helpers.fuzz import mutated_bytes, mutated_tree
from tests.helpers.tiny_models import TOKEN_IDS, tiny

UNCLEAR = "UNCLEAR"  # an error that is no single sentence
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


class Input(NamedTuple):
    """A folder as an entry point finds it, and the call that reads it."""

    files: dict[str, bytes]
    read: Callable[[Path], Any]


class FolderFuzz:
    """Kinds of mutated folders, made of whole ones under `work`."""

    def __init__(self, work: Path) -> None:
        self.folder = work / "folder"
        self.models = {family: tiny(family) for family in FAMILIES}
        self.whole: dict[str, dict[str, bytes]] = {}
        for family, config in self.models.items():
            params = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes(config))
            for shard_bytes, name in ((10**9, family), (60_000, f"{family} shards")):
                hf.save(work / name, config, params, TOKEN_IDS, {}, shard_bytes=shard_bytes)
                self.whole[name] = {path.name: path.read_bytes() for path in (work / name).iterdir()}
        train_tokenizer(["The lungs are clear. No edema."] * 5, work / "tokenizer", 290)
        self.tokenizer = {path.name: path.read_bytes() for path in (work / "tokenizer").iterdir()}
        settings = json.loads(self.tokenizer["tokenizer_config.json"])
        self.tokenizer["chat_template.json"] = _json({"chat_template": settings.pop("chat_template")})
        self.tokenizer["tokenizer_config.json"] = _json(settings)
        self.kinds = {
            "config.json": self._tree("config.json", hf.read_config),
            "config.json bytes": self._bytes("config.json", hf.read_config),
            "image settings": self._settings,
            "weights": self._weights,
            "header of weights": self._header,
            "index": self._index,
            "tokenizer": self._tokenizer_tree,
            "tokenizer bytes": self._tokenizer_bytes,
            "model.json": self._model,
            "config.json of a run": self._run,
        }

    def attempt(self, made: Input) -> str:
        """What becomes of a folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for name, content in made.files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(content)
        try:
            made.read(self.folder)
        except UserError as error:
            return "refused" if str(error) and len(str(error).splitlines()) == 1 else f"{UNCLEAR} {error}"
        return "read"

    def _tree(self, name: str, read: Callable[[Path], Any]) -> Callable[[np.random.Generator], Input]:
        def make(rng: np.random.Generator) -> Input:
            files = self.whole[FAMILIES[rng.integers(3)]]
            return Input({name: _json(mutated_tree(rng, json.loads(files[name])))}, read)

        return make

    def _bytes(self, name: str, read: Callable[[Path], Any]) -> Callable[[np.random.Generator], Input]:
        def make(rng: np.random.Generator) -> Input:
            return Input({name: mutated_bytes(rng, self.whole[FAMILIES[rng.integers(3)]][name])}, read)

        return make

    def _settings(self, rng: np.random.Generator) -> Input:
        flat = processor_settings(ImageSpec()) | {"size": {"shortest_edge": 3136, "longest_edge": 100352}}
        if rng.random() < 0.3:
            return Input({"preprocessor_config.json": mutated_bytes(rng, _json(flat))}, read_image_spec)
        if rng.random() < 0.5:
            return Input({"preprocessor_config.json": _json(mutated_tree(rng, flat))}, read_image_spec)
        nested = {"processor_class": "Qwen2_5_VLProcessor", "image_processor": flat}
        return Input({"processor_config.json": _json(mutated_tree(rng, nested))}, read_image_spec)

    def _load(self, name: str) -> Callable[[Path], Any]:
        return lambda folder: hf.load(folder, self.models[name.removesuffix(" shards")])

    def _weights(self, rng: np.random.Generator) -> Input:
        family = FAMILIES[rng.integers(3)]
        content = mutated_bytes(rng, self.whole[family]["model.safetensors"])
        return Input(self.whole[family] | {"model.safetensors": content}, self._load(family))

    def _header(self, rng: np.random.Generator) -> Input:
        family = FAMILIES[rng.integers(3)]
        content = self.whole[family]["model.safetensors"]
        length = int.from_bytes(content[:8], "little")
        header = _json(mutated_tree(rng, json.loads(content[8 : 8 + length])))
        if rng.random() < 0.3:
            header = mutated_bytes(rng, content[8 : 8 + length])
        content = len(header).to_bytes(8, "little") + header + content[8 + length :]
        return Input(self.whole[family] | {"model.safetensors": content}, self._load(family))

    def _index(self, rng: np.random.Generator) -> Input:
        name = f"{FAMILIES[rng.integers(3)]} shards"
        files = dict(self.whole[name])
        if rng.random() < 0.3:
            files[safetensors.INDEX] = mutated_bytes(rng, files[safetensors.INDEX])
        elif rng.random() < 0.8:
            files[safetensors.INDEX] = _json(mutated_tree(rng, json.loads(files[safetensors.INDEX])))
        else:
            shards = [file for file in files if file.endswith(".safetensors")]
            del files[shards[rng.integers(len(shards))]]
        return Input(files, self._load(name))

    def _tokenizer_tree(self, rng: np.random.Generator) -> Input:
        name = list(self.tokenizer)[rng.integers(len(self.tokenizer))]
        tree = mutated_tree(rng, json.loads(self.tokenizer[name]))
        return Input(self.tokenizer | {name: _json(tree)}, use_tokenizer)

    def _tokenizer_bytes(self, rng: np.random.Generator) -> Input:
        name = list(self.tokenizer)[rng.integers(len(self.tokenizer))]
        return Input(self.tokenizer | {name: mutated_bytes(rng, self.tokenizer[name])}, use_tokenizer)

    def _model(self, rng: np.random.Generator) -> Input:
        content = _json(to_dict(self.models[FAMILIES[rng.integers(3)]]))
        tree = mutated_tree(rng, json.loads(content))
        content = _json(tree) if rng.random() < 0.7 else mutated_bytes(rng, content)
        return Input({"model.json": content}, lambda folder: model_config(Place("orbax", folder)))

    def _run(self, rng: np.random.Generator) -> Input:
        content = _json(to_dict(JobConfig()))
        tree = mutated_tree(rng, json.loads(content))
        content = _json(tree) if rng.random() < 0.7 else mutated_bytes(rng, content)
        return Input({"config.json": content}, lambda folder: training_run(Place("orbax", folder / "sft/params")))


def use_tokenizer(folder: Path) -> None:
    """All that is asked of a tokenizer's files before a model reads its first record."""
    tokenizer = load_tokenizer(folder)
    token_bytes(tokenizer)
    token_ids(tokenizer)
    sidecar_files(folder)
    chat_form(tokenizer)
    encode_text(tokenizer, "The lungs are clear. <think>")


def _json(tree: Any) -> bytes:
    return json.dumps(tree).encode("utf-8", "surrogatepass")
