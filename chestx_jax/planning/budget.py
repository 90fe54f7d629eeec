"""What programs may take: a file of memory, FLOPs and collective bytes by program, and how a plan differs from it."""

from collections.abc import Mapping, Sequence
from typing import Any

from chestx_jax.planning.hlo.schedule import ScheduledOp
from chestx_jax.planning.planner import Plan

TOLERANCE = {"peak": 0.03, "flops": 0.01, "collectives": 0.05}
NEGLIGIBLE = 64 * 1024  # bytes
LISTED = 12  # arrays by kind of collective


def measured(plan: Plan) -> dict[str, Any]:
    """The budget that a plan just meets, as plain values for JSON."""
    budget: dict[str, Any] = {}
    for name, planned in plan.programs.items():
        compiled = planned.compiled
        if planned.cost is None:
            budget[name] = {"refused": compiled.refusal}
            continue
        large = [array for array in compiled.temporaries if array.bytes >= NEGLIGIBLE]
        budget[name] = {
            "peak": compiled.memory.peak,
            "flops": planned.cost.flops,
            "collectives": dict(planned.cost.collectives),
            "moved": _moved(compiled.schedule),
            "in_place": {x.name: x.bytes for x in compiled.arguments if x.reused and x.bytes >= NEGLIGIBLE},
            "largest": [[array.shape, array.bytes, array.scope] for array in large],
        }
    return budget


def differences(topology: str, allowed: Mapping[str, Any], actual: Mapping[str, Any]) -> list[str]:
    """One line for each way in which `actual` is worse than `allowed`, or so much better that the budget is stale: the
    program, the number, and the array that causes it."""
    lines = []
    for name in sorted(allowed.keys() | actual.keys()):
        if name not in allowed or name not in actual:
            lines.append(f"{topology} {name}: {'is new' if name in actual else 'is gone'}")
            continue
        lines += [f"{topology} {name}: {line}" for line in _program_differences(allowed[name], actual[name])]
    return lines


def _program_differences(allowed: Mapping[str, Any], actual: Mapping[str, Any]) -> list[str]:
    if "refused" in allowed or "refused" in actual:
        before, after = allowed.get("refused", "accepted"), actual.get("refused", "accepted")
        return [] if before == after else [f"compiler: {before} → {after}"]
    lines = []
    for array in allowed["in_place"].keys() - actual["in_place"].keys():
        lines.append(f"{array} ({_size(allowed['in_place'][array])}) is no longer updated in place: donate it")
    if _differs(allowed["peak"], actual["peak"], TOLERANCE["peak"]):
        lines.append(f"peak memory {_size(allowed['peak'])} → {_size(actual['peak'])}{_new_arrays(allowed, actual)}")
    if _differs(allowed["flops"], actual["flops"], TOLERANCE["flops"]):
        lines.append(f"FLOPs {allowed['flops']:.4g} → {actual['flops']:.4g}")
    for kind in sorted(allowed["collectives"].keys() | actual["collectives"].keys()):
        before, after = (budget["collectives"].get(kind, 0.0) for budget in (allowed, actual))
        if max(before, after) >= NEGLIGIBLE and _differs(before, after, TOLERANCE["collectives"]):
            lines.append(f"{kind} {_size(before)} → {_size(after)}{_changed_arrays(allowed, actual, kind)}")
    return lines


def _differs(before: float, after: float, tolerance: float) -> bool:
    return abs(after - before) > tolerance * max(before, 1.0)


def _new_arrays(allowed: Mapping[str, Any], actual: Mapping[str, Any]) -> str:
    """The largest arrays that are not in the budget."""
    known = {shape for shape, _, _ in allowed["largest"]}
    new = [(shape, size, scope) for shape, size, scope in actual["largest"] if shape not in known]
    listed = "; ".join(f"{shape} ({_size(size)}) of {_tail(scope)}" for shape, size, scope in new[:2])
    return f", new among the largest arrays: {listed}" if listed else ""


def _moved(schedule: Sequence[ScheduledOp]) -> dict[str, list]:
    """By kind of collective the arrays with most of its bytes, loops multiplied out: array, bytes, scope."""
    totals: dict[tuple[str, str, str], float] = {}
    for op in schedule:
        if op.collective is not None:
            key = op.collective.kind, op.collective.array, op.scope
            totals[key] = totals.get(key, 0.0) + op.trips * op.collective.size
    moved: dict[str, list] = {}
    for (kind, array, scope), size in sorted(totals.items(), key=lambda item: -item[1]):
        if size >= NEGLIGIBLE and len(moved.setdefault(kind, [])) < LISTED:
            moved[kind].append([array, size, scope])
    return moved


def _changed_arrays(allowed: Mapping[str, Any], actual: Mapping[str, Any], kind: str) -> str:
    """The arrays of a kind of collective whose bytes change most."""
    before, after = (
        {(array, _tail(scope)): size for array, size, scope in budget.get("moved", {}).get(kind, [])}
        for budget in (allowed, actual)
    )
    changes = {key: after.get(key, 0.0) - before.get(key, 0.0) for key in before | after}
    largest = sorted(((abs(by), by, key) for key, by in changes.items() if abs(by) >= NEGLIGIBLE), reverse=True)[:2]
    listed = "; ".join(
        f"{array} of {scope} {'+' if by > 0 else '-'}{_size(abs(by))}" for _, by, (array, scope) in largest
    )
    return f": {listed}" if listed else ""


def _tail(scope: str) -> str:
    return "/".join(scope.split("/")[-4:]) or "the compiler"


def _size(size: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"
