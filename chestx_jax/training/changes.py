"""A job's configuration against the one that its workdir was last used with: what may change between two runs."""

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from chestx_jax import checkpoint, files
from chestx_jax.config import to_dict
from chestx_jax.errors import UserError
from chestx_jax.recipes import GrpoConfig, JobConfig, SftConfig, saved_job


class Change(NamedTuple):
    """A field whose value is another than when the workdir was last used; a group of fields where all of it is."""

    name: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"config.{self.name}: {self.old!r} -> {self.new!r}"


def adopt_configuration(job: JobConfig, workdir: Path) -> list[Change]:
    """Makes the job's configuration that of the workdir; returns what changed, which is also kept in
    `config_changes.jsonl`. A field that is newer than the workdir is held to have had its default.

    Raises UserError naming the first change of what defines the model or the data that something in the workdir was
    made with. All else may change from one run to the next: the mesh, rates, lengths, cadences.
    """
    path = workdir / "config.json"
    content = json.dumps(to_dict(job), indent=2) + "\n"  # an infinite bound stays one
    if not path.exists():
        files.write_text(path, content)
        return []
    old, changed = saved_configuration(path), changes_since(path, job)
    locked = locked_fields(old, workdir)
    for change in changed:
        for field, made in locked.items():
            if _concerns(change, field):
                raise UserError(
                    f"config.{change.name} was {change.old!r}, now it is {change.new!r}: {workdir} holds {made} made "
                    "with the old value, which defines its model or data; use another workdir, or the old value to go "
                    "on"
                )
    if changed:
        records = [{"time": round(time.time(), 3), **change._asdict()} for change in changed]
        files.append_json_lines(workdir / "config_changes.jsonl", records)
        files.write_text(path, content)
    return changed


def saved_configuration(path: Path) -> JobConfig:
    """The configuration in a workdir's config.json. Raises UserError where it cannot be read."""
    saved = files.read_json(path, "remove the file if the configuration is the old one, or use another workdir")
    return saved_job(saved, str(path))


def changes_since(path: Path, job: JobConfig) -> list[Change]:
    """How `job` differs from the configuration in the file `path`."""
    return list(_changes(to_dict(saved_configuration(path)), to_dict(job), ""))


def locked_fields(job: JobConfig, workdir: Path) -> dict[str, str]:
    """The fields of the configuration that define the model and the data of what `workdir` holds already, and what that
    is. Where files lie (`data_root`, `image_root`) is not among them, nor are fields of stages that have not begun."""
    locked: dict[str, str] = {}
    begun = {prefix: stage for prefix, stage in stages(job).items() if has_begun(workdir, stage)}
    for prefix, stage in begun.items():
        fields = ["name", "seed", "optimizer.rule"]
        if isinstance(stage, SftConfig):
            fields += ["sources", "validation", "validation_batches"] + ["init"] * isinstance(stage.init, str)
        else:
            fields += ["source"]
        locked |= {f"{prefix}.{field}": f"the stage {stage.name}" for field in fields}
    if begun:
        model = [field.name for field in dataclasses.fields(job.model) if field.name != "compute"]
        names = [*(f"model.{name}" for name in model), "image", "tokenizer"]
        names += ["init"] * (isinstance(job.init, str))
        locked |= dict.fromkeys(names, f"the stage {next(iter(begun.values())).name}")
    if job.phantom and not job.data_root and (workdir / "data").exists():
        locked |= dict.fromkeys(("phantom", "vocabulary"), "phantom data")
    if job.grpo and (workdir / job.grpo.name / "priors.json").exists():
        names = [f"grpo.{name}" for name in ("source", "rewards.value", "rewards.priors")]
        locked |= dict.fromkeys(names, f"the priors of the stage {job.grpo.name}")
    if any((workdir / "test").glob("*.jsonl")):
        locked |= dict.fromkeys(("evaluation.source", "evaluation.length"), "answers to a test")
    return locked


def stages(job: JobConfig) -> dict[str, SftConfig | GrpoConfig]:
    """The stages of a job by the name of their group of fields."""
    by_prefix: dict[str, SftConfig | GrpoConfig] = {"grpo": job.grpo} if job.grpo else {}
    prefix, stage = "init", job.init
    while isinstance(stage, SftConfig):
        by_prefix[prefix], prefix, stage = stage, f"{prefix}.init", stage.init
    return by_prefix


def has_begun(workdir: Path, stage: SftConfig | GrpoConfig) -> bool:
    """Whether the stage, or its blind twin, has saved anything."""
    folders = [workdir / name for name in (stage.name, f"{stage.name}_blind")]
    return any(is_finished(folder) or checkpoint.steps(folder / "checkpoints") for folder in folders)


def is_finished(folder: Path) -> bool:
    """Whether the stage in `folder` has left its parameters."""
    return (folder / "params").exists()


def describe_changes(changed: Iterable[Change], job: JobConfig, workdir: Path) -> list[str]:
    """A line for each change, which says so where it comes too late for its stage."""
    finished = {prefix: stage for prefix, stage in stages(job).items() if is_finished(workdir / stage.name)}
    lines = []
    for change in changed:
        late = [stage.name for prefix, stage in finished.items() if change.name.rpartition(".")[0].startswith(prefix)]
        lines.append(f"{change}" + (f" ({late[-1]} is finished and stays as it is)" if late else ""))
    return lines


def _changes(old: Any, new: Any, name: str) -> Iterator[Change]:
    """The differences of two nested values, at the deepest names that both have."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _changes(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _changes(one, other, f"{name}[{i}]")
    elif old != new:
        yield Change(name, old, new)


def _concerns(change: Change, field: str) -> bool:
    """Whether a change is one of a locked field: of a part of it, or of a group that it is in. A group that is left out
    harms nothing, and files may lie elsewhere."""
    if change.name.endswith("image_root"):
        return False
    inside = change.name == field or change.name.startswith((f"{field}.", f"{field}["))
    return inside or (field.startswith(f"{change.name}.") and change.new is not None)
