"""Text to findings: rules written once over an array namespace, run by numpy on text and by jit on tokens (`tokens`).

Importing this package imports neither jax nor flax; only `tokens`, `token_words` and `jit_arrays` do.
"""

from chestx_jax.findings.slots import ASSERTED, HEDGED, HYPOTHETICAL, Finding, Findings, pad_findings
from chestx_jax.findings.targets import RewardTargets, reward_targets
from chestx_jax.findings.text import Reading, extract, extract_batch, read_reports, read_texts
from chestx_jax.lexicon.lexicon import FILMS, SEVERITIES

__all__ = [
    "ASSERTED", "FILMS", "HEDGED", "HYPOTHETICAL", "SEVERITIES", "Finding", "Findings", "Reading", "RewardTargets",
    "extract", "extract_batch", "pad_findings", "read_reports", "read_texts", "reward_targets",
]  # fmt: skip
