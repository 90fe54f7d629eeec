"""What a job's workdir holds before training: its configuration, and for phantom jobs the data and the tokenizer."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from chestx_jax import files
from chestx_jax.config import to_dict
from chestx_jax.data.reader import read_samples
from chestx_jax.errors import UserError
from chestx_jax.phantom.dataset import write_phantom
from chestx_jax.recipes import JobConfig, saved_job
from chestx_jax.tokens.chat import INSTRUCTION, SYSTEM, target_text
from chestx_jax.tokens.tokenizer import train_tokenizer


def same_configuration(job: JobConfig, workdir: Path) -> None:
    """A workdir belongs to one configuration; raises UserError naming the first field that differs. A field that is
    newer than the workdir is held to have had its default."""
    path = workdir / "config.json"
    if not path.exists():
        files.write_text(path, json.dumps(to_dict(job), indent=2) + "\n")  # an infinite bound stays one
        return
    saved = files.read_json(path, "remove the file if the configuration is the old one, or use another workdir")
    new, old = _flat(to_dict(job)), _flat(to_dict(saved_job(saved, str(path))))
    for name in sorted(new.keys() | old.keys()):
        if new.get(name) != old.get(name):
            raise UserError(
                f"{workdir} holds a run in which config.{name} was {old.get(name)!r}, now it is "
                f"{new.get(name)!r}: use another workdir, or the old value to go on"
            )


def prepare(job: JobConfig, workdir: Path) -> None:
    """Draws a phantom job's data and trains its tokenizer, unless they are there already."""
    root = Path(job.data_root) if job.data_root else workdir / "data"
    if job.phantom is None:
        return
    if not root.exists():
        write_phantom(root, job.phantom)
    if not (root / job.tokenizer).exists():
        with files.replacing_folder(root / job.tokenizer) as folder:
            train_tokenizer(phantom_texts(root), folder, job.vocabulary)


def phantom_texts(root: Path) -> Iterator[str]:
    """What a model reads and writes on the phantom's training records, of every eighth record."""
    for path in sorted((*root.glob("train*.jsonl"), *root.glob("base*.jsonl"))):
        for sample in read_samples(path)[::8]:  # enough for a small vocabulary
            yield f"system\n{SYSTEM}"
            yield f"user\n{sample.question}\n{INSTRUCTION}"
            yield f"assistant\n{target_text(sample.steps, sample.answer, True)}"


def _flat(tree: Any) -> dict[str, Any]:
    """Nested dicts and lists as one dict of dotted names."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: leaf is None)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
