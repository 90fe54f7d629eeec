"""One writer for a run's metrics: JSON lines always, one progress line on the console, wandb if configured.

    with metrics.writer(workdir, "sft", total_steps, restored_step=step) as write:
        write(step, {"loss": 0.71, "tokens": 4096}, samples)

`NAME.jsonl` holds one line per write and `NAME.samples.jsonl` one per sample. Every line carries its step, so a run
that was killed and restored at an earlier step first drops the later lines, which it will write again.
"""

import contextlib
import json
import os
import pathlib
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TextIO

import numpy as np

from chestx_jax import files
from chestx_jax.errors import UserError
from chestx_jax.progress import progress, rates

WandbMode = Literal["disabled", "offline", "online"]


@dataclass(frozen=True)
class SampleRow:
    """One row of the sample table: question, completion and scores."""

    images: tuple[str | np.ndarray, ...]  # paths, or uint8 pixels (RGB or grey)
    question: str
    text: str  # the whole completion, reasoning and answer
    answer: str  # the reference answer
    scores: Mapping[str, float] = field(default_factory=dict)


class Write(Protocol):
    """Record scalars (host numbers) and samples of `step`; the scalars `tokens` and `flops` are a step's number of
    tokens and of useful FLOPs, from which the speed is measured."""

    def __call__(self, step: int, scalars: Mapping[str, Any], samples: Sequence[SampleRow] = ()) -> None: ...


@contextlib.contextmanager
def writer(
    workdir: str | os.PathLike[str],
    name: str,
    total_steps: int,
    *,
    restored_step: int = 0,
    show: Sequence[str] = ("loss",),
    wandb_mode: WandbMode = "disabled",
    config: Mapping[str, Any] | None = None,
    primary: bool = True,
    peak_flops: float = 0.0,
    console: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Write]:
    """Opens the run's records under `workdir` and yields the function that writes to all of them.

    Lines later than `restored_step` are dropped first. `show` names the scalars of the progress line; `config` is
    passed to wandb. With `peak_flops`, the FLOP/s that all devices can do at most, `mfu` is the share of them that is
    reached. Where `primary` is False (all processes but the first) nothing is written. Raises UserError where
    an existing record cannot be read.
    """
    if not primary:
        yield lambda step, scalars, samples=(): None
        return
    folder = pathlib.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"{name}.jsonl", folder / f"{name}.samples.jsonl"
    for path in paths:
        truncate_after(path, restored_step)
    with contextlib.ExitStack() as stack:
        report = stack.enter_context(_wandb(folder, name, wandb_mode, config))
        show_progress = stack.enter_context(progress(name, total_steps, show, console or sys.stdout, clock))
        measure = rates(clock, restored_step)

        def write(step: int, scalars: Mapping[str, Any], samples: Sequence[SampleRow] = ()) -> None:
            numbers = {key: float(value) for key, value in scalars.items()}
            numbers |= measure(step, numbers)
            if peak_flops and "flops_per_second" in numbers:
                numbers["mfu"] = numbers["flops_per_second"] / peak_flops
            files.append_json_lines(paths[0], [{"step": step, "time": round(time.time(), 3), **numbers}])
            files.append_json_lines(paths[1], [_sample_line(step, sample) for sample in samples])
            report(step, numbers, samples)
            show_progress(step, numbers)

        yield write


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a JSONL file, in order; a last line torn by a kill is left out, a missing file has none.

    Raises UserError naming the file and line of anything else that is not a record.
    """
    records = []
    for number, line in enumerate(files.complete_lines(path), 1):
        try:
            record = json.loads(line)
            if not isinstance(record["step"], int):
                raise TypeError("no step number")
            records.append(record)
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} line {number} is not a metrics record: move the file away to go on.") from error
    return records


def truncate_after(path: str | os.PathLike[str], step: int) -> None:
    """Drops a JSONL file's records later than `step` and a torn last line, atomically; other bytes are unchanged."""
    files.drop_torn_line(path)
    lines, records = files.complete_lines(path), read(path)
    if any(record["step"] > step for record in records):
        kept = (line for line, record in zip(lines, records, strict=True) if record["step"] <= step)
        files.write_bytes(path, b"".join(line + b"\n" for line in kept))


def _sample_line(step: int, sample: SampleRow) -> dict[str, Any]:
    images = [image for image in sample.images if isinstance(image, str)]
    scores = {key: float(value) for key, value in sample.scores.items()}
    texts = {"question": sample.question, "text": sample.text, "answer": sample.answer}
    return {"step": step, "images": images, **texts, "scores": scores}


@contextlib.contextmanager
def _wandb(
    folder: pathlib.Path, name: str, mode: WandbMode, config: Mapping[str, Any] | None
) -> Iterator[Callable[[int, Mapping[str, float], Sequence[SampleRow]], None]]:
    """A wandb run in `folder`; where it is disabled, wandb is not even imported."""
    if mode == "disabled":
        yield lambda step, numbers, samples: None
        return
    import wandb

    # Files staged for upload are kept in the run's folder, so that `wandb sync` finds them later.
    os.environ.setdefault("WANDB_DATA_DIR", str(folder / "wandb"))
    # A restored run keeps its id, so that the server shows one curve.
    id_file = folder / f"{name}.wandb_id"
    if not id_file.is_file():
        files.write_text(id_file, uuid.uuid4().hex)
    run = wandb.init(
        project="chestx-jax",
        name=f"{folder.resolve().name}-{name}",
        id=id_file.read_text().strip(),
        resume="allow" if mode == "online" else None,
        dir=folder,
        mode=mode,
        config=dict(config or {}),
        settings=wandb.Settings(console="off", silent=True),
    )

    def report(step: int, numbers: Mapping[str, float], samples: Sequence[SampleRow]) -> None:
        table = {"samples": _table(samples)} if samples else {}
        run.log({**numbers, **table}, step=step)

    def _table(samples: Sequence[SampleRow]) -> Any:
        # A column per image slot: wandb draws an image only if it is a cell of its own.
        slots = max(len(sample.images) for sample in samples)
        names = sorted({key for sample in samples for key in sample.scores})
        films = [f"film {slot + 1}" for slot in range(slots)]
        rows = [
            [
                *(wandb.Image(image) for image in sample.images),
                *[None] * (slots - len(sample.images)),
                *(sample.question, sample.text, sample.answer),
                *(sample.scores.get(name) for name in names),
            ]
            for sample in samples
        ]
        return wandb.Table(columns=[*films, "question", "completion", "reference answer", *names], data=rows)

    exit_code = 1
    try:
        yield report
        exit_code = 0
    finally:
        run.finish(exit_code=exit_code)
