"""What the reward takes from the records of a stage: priors of its questions, and targets with stakes."""

from collections.abc import Sequence

from chestx_jax.data.reward_targets import reward_targets
from chestx_jax.data.schema import Sample
from chestx_jax.findings import RewardTargets, pad_findings, read_reports
from chestx_jax.findings.targets import distinct, read_all, report_findings
from chestx_jax.lexicon import Lexicon, relations
from chestx_jax.rewards import priors
from chestx_jax.rewards.priors import Priors, Question
from chestx_jax.rewards.reward import RewardConfig
from chestx_jax.rewards.value import ValueConfig

COUNTED = 20_000  # records at most, evenly spaced: beyond that a table hardly moves


def count_priors(config: ValueConfig, lexicon: Lexicon, samples: Sequence[Sample]) -> Priors:
    """The table of priors of the records that have a report; the default table where none has."""
    with_report = [sample for sample in samples if any(report.strip() for report in sample.reports)]
    counted = with_report[:: max(1, len(with_report) // COUNTED)]
    if not counted:
        return priors.default(lexicon)
    readings = read_all(lexicon, [sample.reports for sample in counted], read_reports)
    reports = [distinct(report_findings(texts)) for texts in readings]
    findings = pad_findings(reports, max(1, *map(len, reports)))
    return priors.count(config, lexicon, relations(lexicon), questions(lexicon, counted), findings)


def questions(lexicon: Lexicon, samples: Sequence[Sample]) -> list[Question]:
    """What the samples' questions name."""
    return priors.read_questions(lexicon, [s.question for s in samples], [s.task for s in samples])


def targets_with_stakes(
    lexicon: Lexicon, table: Priors, config: RewardConfig, samples: Sequence[Sample]
) -> RewardTargets:
    """The reward targets of samples, priced by a table of priors."""
    stakes = table.stakes(lexicon, relations(lexicon), questions(lexicon, samples), config.value.unasked)
    return reward_targets(lexicon, samples, config.slots, stakes)
