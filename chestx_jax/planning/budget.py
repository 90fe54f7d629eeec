"""What the programs may take: a file of memory, FLOPs and collective bytes by program, and what differs from it."""

from collections.abc import Mapping, Sequence
from typing import Any

from chestx_jax.planning.hlo.schedule import Work
from chestx_jax.planning.planner import Plan

TOLERANCE = {"peak": 0.03, "flops": 0.01, "collectives": 0.05}
SMALL = 64 * 1024  # bytes: what is less does not matter
MOVED = 12  # arrays listed by kind of collective


def measured(plan: Plan) -> dict[str, Any]:
    """The budget that a plan would just meet, as plain values for JSON."""
    found: dict[str, Any] = {}
    for name, planned in plan.programs.items():
        compiled = planned.compiled
        if planned.cost is None:
            found[name] = {"refused": compiled.refused}
            continue
        found[name] = {
            "peak": compiled.memory.peak,
            "flops": planned.cost.flops,
            "collectives": dict(planned.cost.kinds),
            "moved": _moved(compiled.work),
            "in_place": {one.name: one.bytes for one in compiled.arguments if one.reused and one.bytes >= SMALL},
            "largest": [[one.shape, one.bytes, one.scope] for one in compiled.temporaries if one.bytes >= SMALL],
        }
    return found


def differences(place: str, allowed: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """One line for each way in which `found` is worse than `allowed` (or so much better that the budget is stale):
    the program, the number, and the array behind it."""
    lines = []
    for name in sorted(allowed.keys() | found.keys()):
        if name not in allowed or name not in found:
            lines.append(f"{place} {name}: {'is new' if name in found else 'is gone'}")
            continue
        lines += [f"{place} {name}: {line}" for line in _program(allowed[name], found[name])]
    return lines


def _program(allowed: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    if "refused" in allowed or "refused" in found:
        same = allowed.get("refused") == found.get("refused")
        return [] if same else [f"compiler: {allowed.get('refused', 'took it')} → {found.get('refused', 'takes it')}"]
    lines = []
    for array in allowed["in_place"].keys() - found["in_place"].keys():
        lines.append(f"{array} ({_size(allowed['in_place'][array])}) is no longer updated in place: donate it")
    if _off(allowed["peak"], found["peak"], TOLERANCE["peak"]):
        lines.append(f"peak memory {_size(allowed['peak'])} → {_size(found['peak'])}{_arrays(allowed, found)}")
    if _off(allowed["flops"], found["flops"], TOLERANCE["flops"]):
        lines.append(f"FLOPs {allowed['flops']:.4g} → {found['flops']:.4g}")
    for kind in sorted(allowed["collectives"].keys() | found["collectives"].keys()):
        before, after = (one["collectives"].get(kind, 0.0) for one in (allowed, found))
        if max(before, after) >= SMALL and _off(before, after, TOLERANCE["collectives"]):
            lines.append(f"{kind} {_size(before)} → {_size(after)}{_moves(allowed, found, kind)}")
    return lines


def _off(before: float, after: float, tolerance: float) -> bool:
    return abs(after - before) > tolerance * max(before, 1.0)


def _arrays(allowed: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The largest arrays that were not there before."""
    known = {shape for shape, _, _ in allowed["largest"]}
    new = [(shape, size, scope) for shape, size, scope in found["largest"] if shape not in known]
    listed = "; ".join(f"{shape} ({_size(size)}) of {_tail(scope)}" for shape, size, scope in new[:2])
    return f", new among the largest arrays: {listed}" if listed else ""


def _moved(work: Sequence[Work]) -> dict[str, list]:
    """By kind of collective the arrays that take most of its bytes, loops multiplied out: array, bytes, where."""
    totals: dict[tuple[str, str, str], float] = {}
    for item in work:
        if item.collective is not None:
            key = item.collective.kind, item.collective.array, item.scope
            totals[key] = totals.get(key, 0.0) + item.trips * item.collective.size
    found: dict[str, list] = {}
    for (kind, array, scope), size in sorted(totals.items(), key=lambda pair: -pair[1]):
        if size >= SMALL and len(found.setdefault(kind, [])) < MOVED:
            found[kind].append([array, size, scope])
    return found


def _moves(allowed: Mapping[str, Any], found: Mapping[str, Any], kind: str) -> str:
    """The arrays of a kind of collective that come or go, the largest first."""
    before, after = (
        {(array, _tail(scope)): size for array, size, scope in one.get("moved", {}).get(kind, [])}
        for one in (allowed, found)
    )
    changed = {key: after.get(key, 0.0) - before.get(key, 0.0) for key in before | after}
    largest = sorted(((abs(by), by, key) for key, by in changed.items() if abs(by) >= SMALL), reverse=True)[:2]
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
