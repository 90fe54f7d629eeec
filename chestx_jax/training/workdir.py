"""What a job needs before training and may make itself: a phantom's data, and a small tokenizer."""

from collections.abc import Iterator
from pathlib import Path

from chestx_jax import files
from chestx_jax.data.mixture import SourceConfig, read_source
from chestx_jax.phantom.dataset import write_phantom
from chestx_jax.recipes import JobConfig, supervised_stages
from chestx_jax.tokens.chat import INSTRUCTION, SYSTEM, target_text
from chestx_jax.tokens.tokenizer import train_tokenizer


def prepare(job: JobConfig, workdir: Path) -> None:
    """Draws a phantom job's data, and trains a tokenizer of `job.vocabulary` tokens on the text to train on, unless
    they are there already."""
    root = Path(job.data_root) if job.data_root else workdir / "data"
    if job.phantom and not root.exists():
        write_phantom(root, job.phantom)
    if job.vocabulary and not (root / job.tokenizer).exists():
        with files.replacing_folder(root / job.tokenizer) as folder:
            train_tokenizer(training_texts(job, root), folder, job.vocabulary)


def training_texts(job: JobConfig, root: Path) -> Iterator[str]:
    """What a model reads and writes on every eighth training record: of all that a phantom holds, else of the
    supervised stages."""
    if job.phantom:
        paths = {path.name for pattern in ("train*.jsonl", "base*.jsonl") for path in root.glob(pattern)}
        sources = {path: SourceConfig(path=path) for path in paths}
    else:
        sources = {source.path: source for stage in supervised_stages(job) for source in stage.sources}
    for path in sorted(sources):
        for sample in read_source(sources[path], root, job.max_bad).samples[::8]:  # enough for a small vocabulary
            yield f"system\n{SYSTEM}"
            yield f"user\n{sample.question}\n{INSTRUCTION}"
            yield f"assistant\n{target_text(sample.steps, sample.answer, True)}"
