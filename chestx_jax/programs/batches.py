"""Whether batches divide over a mesh: where one does not, every device would compute the same rows."""

from collections.abc import Iterator, Mapping

from chestx_jax.errors import UserError
from chestx_jax.recipes import JobConfig, supervised_stages


def check_batches(job: JobConfig, sizes: Mapping[str, int]) -> None:
    """Raise UserError where a batch of the job does not divide over a mesh of `sizes`, naming every field to set."""
    if sentences := list(uneven_batches(job, sizes)):
        raise UserError(f"{'; '.join(sentences)}; or raise config.mesh.tensor.")


def uneven_batches(job: JobConfig, sizes: Mapping[str, int]) -> Iterator[str]:
    """What to set for each batch that does not divide over the devices that split it, taken in parts or whole."""
    split = sizes["data"] * sizes["fsdp"]
    path = "config.init"
    for stage in supervised_stages(job):
        yield from uneven_batch(f"{path}.batch", stage.batch, split, f"{path}.micro_batches", stage.micro_batches)
        path += ".init"
    if grpo := job.grpo:
        path = "config.grpo"
        fields = f"{path}.mini_batches and {path}.micro_batches" if grpo.mini_batches > 1 else f"{path}.micro_batches"
        yield from uneven_batch(f"{path}.prompts", grpo.prompts, split, fields, grpo.parts)
    if job.evaluation:
        yield from uneven_batch("config.evaluation.batch", job.evaluation.batch, split)


def uneven_batch(field: str, rows: int, split: int, parts_field: str = "", parts: int = 1) -> Iterator[str]:
    """What to set where a batch of `rows`, the value of `field`, does not divide into `parts` over `split` devices."""
    if rows % (parts * split):
        fields = f"{field} and {parts_field} so that each part is" if parts_field else f"{field} to"
        yield (
            f"{field} is {rows}{f' in {parts} parts' if parts > 1 else ''}, which does not divide over {split} devices "
            f"(all would compute the same rows): set {fields} a multiple of {split}"
        )
