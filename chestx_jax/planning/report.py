"""A plan as a table to read and as JSON to keep."""

from collections.abc import Sequence
from typing import Any

from chestx_jax.planning.advice import room
from chestx_jax.planning.cost.chips import GIB
from chestx_jax.planning.cost.resident_memory import Layout
from chestx_jax.planning.planner import Plan
from chestx_jax.planning.stages import Planned

_COLUMNS = (
    "program", "fits", "args", "temps", "beside", "peak GiB", "TFLOP", "HBM GB", "ICI GB", "DCN GB", "compute s",
    "memory s", "links s", "bound", "predicted s", "MFU", "tokens/s",
)  # fmt: skip


def rows(plan: Plan) -> list[tuple[str, ...]]:
    """One row a program; sizes and FLOPs are of one chip, tokens of all."""
    return [_row(plan, name, planned) for name, planned in plan.programs.items()]


def _row(plan: Plan, name: str, planned: Planned) -> tuple[str, ...]:
    memory, cost = planned.compiled.memory, planned.cost
    sizes = (
        name, "yes" if planned.fits else "NO", f"{memory.arguments / GIB:.2f}", f"{memory.temporaries / GIB:.2f}",
        f"{planned.resident / GIB:.2f}", f"{planned.peak / GIB:.2f}",
    )  # fmt: skip
    if cost is None:
        return (*sizes, *("–",) * (len(_COLUMNS) - len(sizes)))
    chip = plan.topology.chip
    mfu = planned.mfu(plan.topology.count, chip.flops)
    tokens = planned.expected.tokens / cost.predicted if planned.expected and cost.predicted else 0.0
    return (
        *sizes, f"{cost.flops / 1e12:.3g}", f"{cost.hbm / 1e9:.3g}", f"{cost.ici / 1e9:.3g}", f"{cost.dcn / 1e9:.3g}",
        f"{cost.compute:.3g}", f"{cost.memory:.3g}", f"{cost.interconnect:.3g}", cost.bound, f"{cost.predicted:.3g}",
        f"{mfu:.1%}" if mfu else "–", f"{tokens:,.0f}" if tokens else "–",
    )  # fmt: skip


def text(plan: Plan) -> str:
    """The table with what it rests on, the steps and the advice."""
    chip, topology = plan.topology.chip, plan.topology
    lines = [
        f"{topology.name}: {topology.count} × {chip.name} ({chip.flops / 1e12:.0f} TFLOP/s bf16, "
        f"{room(chip) / GIB:.1f} GiB for programs, {chip.hbm_rate / 1e9:.0f} GB/s, links of {chip.link_rate / 1e9:.0f} "
        f"GB/s one way), mesh {' × '.join(f'{name} {size}' for name, size in plan.sizes.items())}",
        "",
        *_aligned([_COLUMNS, *rows(plan)]),
        "",
        *(f"{name}: {spent(planned)}" for name, planned in plan.programs.items() if planned.cost),
        "",
    ]
    for name, seconds in plan.steps.items():
        hours = f", {plan.hours[name]:,.0f} chip-hours in all" if name in plan.hours else ""
        lines.append(f"{name}: {seconds:.3g} s a step{hours}")
    lines += [_held(name, layout) for name, layout in plan.layouts.items()]
    lines += [
        "predicted s: every instruction at the slower of its FLOPs and its HBM bytes, plus collectives that no "
        "computation covers (chestx_jax/planning/cost/roofline.py); completions at their longest",
        *plan.advice,
    ]
    return "\n".join(lines)


def _held(stage: str, layout: Layout) -> str:
    """What a stage's checkpoint holds and where it is restored to."""
    sizes = lambda parts: ", ".join(f"{part} {size / GIB:.2f}" for part, size in parts.items() if size)  # noqa: E731
    device, host = sizes(layout.device), sizes(layout.host)
    kept = f"from step to step a chip holds {device} GiB" + (f", its host {host} GiB" if host else "")
    return f"{stage}: a checkpoint of {layout.checkpoint / GIB:.1f} GiB; {kept}"


def spent(planned: Planned) -> str:
    """What the predicted time of a program goes to: "61 % matrix products, 22 % recomputation …"."""
    cost = planned.cost
    if cost is None or not cost.predicted:
        return "–"
    shares = [(seconds / cost.predicted, cause) for cause, seconds in cost.spent]
    return ", ".join(f"{share:.0%} {cause}" for share, cause in shares if share >= 0.005)


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
        "programs": {name: _planned(plan, planned) for name, planned in plan.programs.items()},
        "step_seconds": plan.steps,
        "chip_hours": plan.hours,
        "layouts": {name: vars(layout) for name, layout in plan.layouts.items()},
        "advice": list(plan.advice),
    }


def _planned(plan: Plan, planned: Planned) -> dict[str, Any]:
    compiled, cost = planned.compiled, planned.cost
    found: dict[str, Any] = {
        "fits": planned.fits,
        "memory": {
            **vars(compiled.memory),
            "resident": planned.resident,
            "peak": planned.peak,
            "limit": room(plan.topology.chip),
        },
        "held": dict(compiled.held),
        "compile_seconds": round(compiled.seconds, 1),
    }
    if cost is None:
        return {**found, "refused": compiled.refused, "largest": list(compiled.largest)}
    found |= {"cost": {**vars(cost), "kinds": dict(cost.kinds), "spent": dict(cost.spent)}, "bound": cost.bound}
    if planned.expected:
        chips, peak = plan.topology.count, plan.topology.chip.flops
        found |= {"expected": vars(planned.expected), "mfu": planned.mfu(chips, peak)}
    return found
