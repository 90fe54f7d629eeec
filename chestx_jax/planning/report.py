"""A plan as a table to read and as JSON to keep."""

from collections.abc import Sequence
from typing import Any

from chestx_jax.planning.advice import available_hbm
from chestx_jax.planning.cost.chips import GIB, Chip
from chestx_jax.planning.cost.resident_memory import Layout
from chestx_jax.planning.lengths import BucketPlan
from chestx_jax.planning.planner import Plan
from chestx_jax.planning.stages import PlannedProgram, stages
from chestx_jax.recipes import EvaluationConfig, JobConfig

_COLUMNS = (
    "program", "runs a step", "fits", "args", "temps", "resident", "peak GiB", "TFLOP", "HBM GB", "{} GB", "{} GB",
    "compute s", "memory s", "interconnect s", "bound", "predicted s", "MFU", "tokens/s",
)  # fmt: skip


def text(plan: Plan) -> str:
    """The table with the figures it rests on, the steps and the advice. Sizes and FLOPs are of one chip, tokens of all
    chips."""
    chip, topology = plan.topology.chip, plan.topology
    lines = [
        f"{topology.name}: {topology.count} × {chip.name} ({chip.peak_flops / 1e12:.0f} TFLOP/s bf16, "
        f"{available_hbm(chip) / GIB:.1f} GiB for programs, {chip.hbm_bandwidth / 1e9:.0f} GB/s, links of "
        f"{chip.link_bandwidth / 1e9:.0f} GB/s one way), "
        f"mesh {' × '.join(f'{name} {size}' for name, size in plan.sizes.items())}",
        "",
        *_aligned([_header(chip), *(_row(plan, name, planned) for name, planned in plan.programs.items())]),
        "",
        *(f"{name}: {breakdown(planned)}" for name, planned in plan.programs.items() if planned.cost),
        "",
    ]
    for name, seconds in plan.step_seconds.items():
        hours = f", {plan.chip_hours[name]:,.0f} chip-hours in all" if name in plan.chip_hours else ""
        lines.append(f"{name}: {seconds:.3g} s a step{hours}")
    lines += [_layout(name, layout) for name, layout in plan.layouts.items()]
    lines += [
        "predicted s: every instruction at the slower of its FLOPs and its HBM bytes, plus collectives that no "
        "computation covers (chestx_jax/planning/cost/roofline.py); completions at their longest",
        *plan.advice,
    ]
    return "\n".join(lines)


def _header(chip: Chip) -> tuple[str, ...]:
    names = iter(chip.networks)
    return tuple(column.format(next(names)) if "{}" in column else column for column in _COLUMNS)


def _row(plan: Plan, name: str, planned: PlannedProgram) -> tuple[str, ...]:
    memory, cost = planned.compiled.memory, planned.cost
    sizes = (
        name, f"{planned.runs:.3g}", "yes" if planned.fits else "NO",
        f"{memory.arguments / GIB:.2f}", f"{memory.temporaries / GIB:.2f}",
        f"{planned.resident / GIB:.2f}", f"{planned.peak / GIB:.2f}",
    )  # fmt: skip
    if cost is None:
        return (*sizes, *("–",) * (len(_COLUMNS) - len(sizes)))
    mfu = planned.mfu(plan.topology.count, plan.topology.chip.peak_flops)
    tokens = planned.model_flops.tokens / cost.predicted if planned.model_flops and cost.predicted else 0.0
    return (
        *sizes, f"{cost.flops / 1e12:.3g}", f"{cost.hbm / 1e9:.3g}", f"{cost.ici / 1e9:.3g}", f"{cost.dcn / 1e9:.3g}",
        f"{cost.compute:.3g}", f"{cost.memory:.3g}", f"{cost.interconnect:.3g}", cost.bound, f"{cost.predicted:.3g}",
        f"{mfu:.1%}" if mfu else "–", f"{tokens:,.0f}" if tokens else "–",
    )  # fmt: skip


def lengths_text(rows: Sequence[BucketPlan], chips: int, peak_flops: float, steps: int) -> str:
    """An iteration at the lengths of its data: each program in each of its buckets, and what they come to."""
    header = ("program", "bucket", "runs a step", "fits", "peak GiB", "predicted s", "bound", "MFU")
    body, total = [], 0.0
    for name, bucket, runs, program in rows:
        row = (name, bucket, f"{runs:.3g}", "yes" if program.fits else "NO", f"{program.peak / GIB:.2f}")
        if program.cost is None:
            body.append((*row, "–", "–", "–"))
            continue
        total += runs * program.cost.predicted
        mfu = program.mfu(chips, peak_flops)
        body.append((*row, f"{program.cost.predicted:.3g}", program.cost.bound, f"{mfu:.1%}" if mfu else "–"))
    return "\n".join(
        [
            "at the lengths of the data (bucket: prompt tokens + films + completion tokens):",
            *_aligned([header, *body]),
            f"grpo: {total:.3g} s a step, {total * steps * chips / 3600:,.0f} chip-hours in all",
        ]
    )


def buckets_text(job: JobConfig) -> str:
    """The lengths that the job's programs may be compiled for; one is when the first batch needs it."""
    lines = []
    for name, stage in stages(job).items():
        kinds = ("prompts" if name == "grpo" or isinstance(stage, EvaluationConfig) else "rows", "films", "completions")
        sizes = getattr(stage, "buckets", ())
        listed = (f"{kind} {', '.join(map(str, of))}" for kind, of in zip(kinds, sizes, strict=False))
        lines += [f"{name}: buckets of {'; '.join(listed)}"] if sizes else []
    return "\n".join(lines)


def breakdown(planned: PlannedProgram) -> str:
    """What the predicted time of a program goes to: "61% matrix products, 22% recomputation …"."""
    cost = planned.cost
    if cost is None or not cost.predicted:
        return "–"
    shares = [(seconds / cost.predicted, purpose) for purpose, seconds in cost.breakdown]
    return ", ".join(f"{share:.0%} {purpose}" for share, purpose in shares if share >= 0.005)


def _layout(stage: str, layout: Layout) -> str:
    """The size of a stage's checkpoint and where its state is kept."""
    sizes = lambda parts: ", ".join(f"{part} {size / GIB:.2f}" for part, size in parts.items() if size)  # noqa: E731
    host = sizes(layout.host)
    state = f"between steps a chip holds {sizes(layout.device)} GiB" + (f" and its host {host} GiB" if host else "")
    return f"{stage}: a checkpoint of {layout.checkpoint / GIB:.1f} GiB; {state}"


def markdown(header: tuple[str, ...], body: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table."""
    line = lambda cells: f"| {' | '.join(cells)} |"  # noqa: E731
    return "\n".join([line(header), line(("---",) * len(header)), *map(line, body)])


def _aligned(table: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]


def to_json(plan: Plan) -> dict[str, Any]:
    """Everything that the table shows, in bytes, FLOPs and seconds."""
    return {
        "topology": plan.topology.name,
        "chips": plan.topology.count,
        "chip": plan.topology.chip.name,
        "mesh": plan.sizes,
        "programs": {name: _program(plan, planned) for name, planned in plan.programs.items()},
        "step_seconds": plan.step_seconds,
        "chip_hours": plan.chip_hours,
        "layouts": {name: vars(layout) for name, layout in plan.layouts.items()},
        "advice": list(plan.advice),
    }


def lengths_json(rows: Sequence[BucketPlan]) -> list[dict[str, Any]]:
    """The rows of `lengths_text`."""
    return [
        {
            "program": name,
            "bucket": bucket,
            "runs_per_step": runs,
            "fits": program.fits,
            "peak": program.peak,
            "flops": program.cost.flops if program.cost else None,
            "predicted": program.cost.predicted if program.cost else None,
        }
        for name, bucket, runs, program in rows
    ]


def _program(plan: Plan, planned: PlannedProgram) -> dict[str, Any]:
    compiled, cost, chip = planned.compiled, planned.cost, plan.topology.chip
    memory = {"resident": planned.resident, "peak": planned.peak, "limit": available_hbm(chip)}
    values: dict[str, Any] = {
        "fits": planned.fits,
        "runs_per_step": planned.runs,
        "memory": vars(compiled.memory) | memory,
        "argument_bytes": dict(compiled.argument_bytes),
        "compile_seconds": round(compiled.seconds, 1),
    }
    if cost is None:
        return values | {"refused": compiled.refusal, "allocations": list(compiled.allocations)}
    values["cost"] = vars(cost) | {"collectives": dict(cost.collectives), "breakdown": dict(cost.breakdown)}
    values["bound"] = cost.bound
    if planned.model_flops:
        mfu = planned.mfu(plan.topology.count, chip.peak_flops)
        values |= {"model_flops": vars(planned.model_flops), "mfu": mfu}
    return values
