"""Relations between all pairs of two rows' findings, over the array namespace that the findings are in."""

from typing import Any

from jaxtyping import Bool

from chestx_jax.findings.arrays import Array
from chestx_jax.findings.slots import Findings


def namespace(findings: Findings) -> Any:
    """numpy or `jax.numpy`."""
    return findings.concept.__array_namespace__()


def expand(findings: Findings, axis: int) -> Findings:
    """The fields [B, M] with an axis inserted: [B, M, 1] for axis 2, [B, 1, M] for axis 1."""
    index = (slice(None),) * axis + (None,)
    fields = {name: values[index] for name, values in findings._asdict().items() if name != "overflow"}
    return findings._replace(**fields)


def sides_overlap(one: Findings, other: Findings) -> Bool[Array, "..."]:
    """Whether two findings may be on the same side; an unsaid side matches any."""
    return (one.side == 0) | (other.side == 0) | ((one.side & other.side) != 0)
