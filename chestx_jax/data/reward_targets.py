"""Samples to what the rewards compare their completions with."""

from collections.abc import Sequence

from chestx_jax import findings
from chestx_jax.data.schema import Sample
from chestx_jax.errors import UserError
from chestx_jax.findings import RewardTargets
from chestx_jax.findings.targets import Stakes
from chestx_jax.lexicon import Lexicon


def reward_targets(
    language: Lexicon, samples: Sequence[Sample], slots: int, stakes: Stakes | None = None
) -> RewardTargets:
    """Findings of reports and steps (at most `slots` each), gold letters, labels, tasks and stakes of N samples, as
    numpy.

    Raises UserError naming the record whose answer is no label.
    """
    try:
        return _targets(language, samples, slots, stakes)
    except UserError:
        for sample in samples:
            try:
                _targets(language, [sample], slots, None)
            except UserError as error:
                raise UserError(f"record {sample.name}: {error}") from None
        raise


def _targets(language: Lexicon, samples: Sequence[Sample], slots: int, stakes: Stakes | None) -> RewardTargets:
    return findings.reward_targets(
        language,
        [sample.reports for sample in samples],
        [sample.steps for sample in samples],
        [sample.answer for sample in samples],
        [sample.task for sample in samples],
        slots,
        stakes,
    )
