"""What a phantom job's workdir holds before training: the data and the tokenizer."""

from collections.abc import Iterator
from pathlib import Path

from chestx_jax import files
from chestx_jax.data.reader import read_samples
from chestx_jax.phantom.dataset import write_phantom
from chestx_jax.recipes import JobConfig
from chestx_jax.tokens.chat import INSTRUCTION, SYSTEM, target_text
from chestx_jax.tokens.tokenizer import train_tokenizer


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
