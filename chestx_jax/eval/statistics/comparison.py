"""Models tested on the same samples: their scores, the accuracy to be had without the film, what each step changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chestx_jax.eval.predictions.records import Prediction
from chestx_jax.eval.statistics.blind_baselines import GUESSERS, Accuracies
from chestx_jax.eval.statistics.intervals import Difference
from chestx_jax.eval.statistics.scores import CLOSED, Evaluation, evaluate_predictions, paired_differences
from chestx_jax.lexicon import Lexicon

BLIND = "blind"  # name of the model that a job trains with every film of one tone
JOB_MODELS = (BLIND, "SFT", "GRPO")  # the models of a job, in the order it tests them


@dataclass(frozen=True)
class Comparison:
    """Models in the order they were tested.

    Attributes:
      evaluations: by model.
      guessers: accuracy of each guesser that never sees a film, by task (`blind_baselines`).
      blind_accuracy: of each closed family the best accuracy without the film, of the guessers and of the model that
        was trained blind; and their mean over the families, `closed`.
      changes: "B minus A" for neighbours A, B -> row -> metric -> paired difference on the samples both answered.
    """

    evaluations: Mapping[str, Evaluation]
    guessers: Accuracies
    blind_accuracy: Mapping[str, float]
    changes: Mapping[str, Mapping[str, Mapping[str, Difference]]]

    @property
    def sighted(self) -> list[str]:
        """The models that see the films."""
        return [name for name in self.evaluations if name != BLIND]


def compare_models(
    predictions: Mapping[str, Sequence[Prediction]],
    lexicon: Lexicon,
    guessers: Accuracies,
    seed: int = 0,
    ratescores: Mapping[str, Sequence[float | None]] | None = None,
) -> Comparison:
    """Scores every model's predictions and sets them side by side; `seed` is the bootstrap's."""
    ratescores = ratescores or {}
    evaluations = {
        name: evaluate_predictions(answers, lexicon, seed, ratescores.get(name))
        for name, answers in predictions.items()
    }
    changes = {
        f"{second} minus {first}": paired_differences(evaluations[first], evaluations[second], seed)
        for first, second in pairwise(evaluations)
    }
    return Comparison(evaluations, guessers, blind_accuracy(evaluations.get(BLIND), guessers), changes)


def blind_accuracy(blind_model: Evaluation | None, guessers: Accuracies) -> dict[str, float]:
    """The best accuracy without the film of each closed family, and their mean over the families, `closed`."""
    best = {}
    for task in CLOSED:
        candidates = [accuracy for name, accuracy in guessers.get(task, {}).items() if name in GUESSERS]
        trained_blind = blind_model.mean(task, "accuracy") if blind_model else None
        candidates += [] if trained_blind is None else [trained_blind]
        if candidates:
            best[task] = max(candidates)
    return {**best, "closed": sum(best.values()) / len(best)} if best else {}
