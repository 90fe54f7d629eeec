"""What the reward takes from the records of a stage: priors of its questions, and targets with stakes."""

from collections.abc import Sequence

from chestx_jax.data.reward_targets import reward_targets
from chestx_jax.data.schema import Sample
from chestx_jax.findings import RewardTargets
from chestx_jax.lexicon import Lexicon, relations
from chestx_jax.rewards import priors
from chestx_jax.rewards.priors import Priors, Question
from chestx_jax.rewards.reward import RewardConfig
from chestx_jax.rewards.value import ValueConfig


def count_priors(config: ValueConfig, lexicon: Lexicon, samples: Sequence[Sample]) -> Priors:
    """The table of priors of the records that have a report; the default table where none has."""
    columns = ([s.question for s in samples], [s.task for s in samples], [s.reports for s in samples])
    return priors.count_texts(config, lexicon, *columns)


def questions(lexicon: Lexicon, samples: Sequence[Sample]) -> list[Question]:
    """What the samples' questions name."""
    return priors.read_questions(lexicon, [s.question for s in samples], [s.task for s in samples])


def targets_with_stakes(
    lexicon: Lexicon, table: Priors, config: RewardConfig, samples: Sequence[Sample]
) -> RewardTargets:
    """The reward targets of samples, priced by a table of priors."""
    stakes = table.stakes(lexicon, relations(lexicon), questions(lexicon, samples), config.value.unasked)
    return reward_targets(lexicon, samples, config.slots, stakes)
