"""How often the film of a question shows what a claim says: priors and prices, counted on a training mix.

Both depend on the question. A question that asks for one concept ("Does this chest X-ray show edema?") has a row of its
own for that concept; of other questions the concepts that are options, those related to an asked one or an option, and
all others have a row each. A *prior* is the share of questions whose film shows the concept; a *price* is what a false
claim of it must cost to be worth 0 on average, however it is put. In both, a question counts with weight 1/Z,
because a claim's value has Z below it (see `value`); without that, denials on normal films would pay.

Options compete: the likeliest of four is likelier than it is on average. So the prior of an option is its strength over
those of its question's options (Plackett and Luce's model), times how many of them are shown on average; its price
rises with its odds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from chestx_jax import files
from chestx_jax.errors import UserError
from chestx_jax.findings.slots import ASSERTED, HEDGED, Finding, Findings, pad_findings
from chestx_jax.findings.targets import Stakes, distinct, read_all, report_findings
from chestx_jax.findings.text import read_reports, read_texts
from chestx_jax.lexicon.lexicon import SIDES, Lexicon
from chestx_jax.lexicon.tables import Relations, relations
from chestx_jax.rewards.value import ValueConfig, claim_values, report_worth

OPTION, NEAR, NEITHER = "option", "near", "neither"  # rows of questions that ask for no single concept
HIGHEST = 0.95  # a prior beyond it would leave nothing to earn
_PSEUDO = 4.0  # questions' worth of the family's average in every row, so that rare rows are no guesswork
_ROUNDS = 5  # Z depends on the priors: they settle within three
_BLOCK = 4096  # questions valued at once
COUNTED = 20_000  # questions at most: beyond that a table hardly moves


class Question(NamedTuple):
    """What a question names, as indices of concepts."""

    family: str  # one of labels.TASKS; "" for a text that answers no question
    asked: frozenset[int] = frozenset()
    options: frozenset[int] = frozenset()


class Row(NamedTuple):
    """Priors and prices of all concepts in one kind of question."""

    prior: Float[np.ndarray, " C"]
    price: Float[np.ndarray, " C"]
    questions: int  # counted
    strength: Float[np.ndarray, " C"]  # of options against each other; 0 in other rows
    shown: float = 0.0  # share of a question's options that its film shows, on average


@dataclass(frozen=True, eq=False)
class Priors:
    """The table: a row for each family and context (a concept's name, `option`, `near` or `neither`)."""

    rows: Mapping[tuple[str, str], Row]
    default: Row  # for what no row covers

    def stakes(self, lexicon: Lexicon, relations: Relations, questions: Sequence[Question], unasked: float) -> Stakes:
        """What N questions are worth; `unasked` weighs denials of what is not asked for (0 without a question)."""
        keys = list(self.rows)
        row_NxC = _rows(lexicon, relations, questions, {key: index for index, key in enumerate(keys, 1)})
        table = [self.default, *self.rows.values()]
        concepts = np.arange(len(lexicon.concepts))
        prior, price, strength = (
            np.stack([getattr(row, name) for row in table])[row_NxC, concepts]
            for name in ("prior", "price", "strength")
        )
        shown_NxC = np.asarray([row.shown for row in table], np.float32)[row_NxC]
        weights = np.asarray([unasked if question.family else 0.0 for question in questions], np.float32)
        own = np.where(strength > 0, _among_options(strength, shown_NxC), prior)
        price = np.where(strength > 0, price * _odds(own) / _odds(prior), price)
        return Stakes(_asked(len(concepts), questions), own, price, weights)


def read_questions(lexicon: Lexicon, texts: Sequence[str], families: Sequence[str]) -> list[Question]:
    """The concepts that questions name, before and behind "Options:". Catch-alls are left out."""
    parts = [part for text in texts for part in (text.partition("Options:")[::2])]
    named = [
        frozenset(f.concept for f in reading.findings if not lexicon.concepts[f.concept].general)
        for reading in read_texts(lexicon, parts)
    ]
    return [Question(family, *named[2 * i : 2 * i + 2]) for i, family in enumerate(families)]


def count(
    config: ValueConfig, lexicon: Lexicon, relations: Relations, questions: Sequence[Question], reports: Findings
) -> Priors:
    """The table of a mix of n questions with their reports' distinct findings [n, R]."""
    keys = sorted({key for question in questions for key in _contexts(lexicon, question)})
    row_of = {key: index for index, key in enumerate(keys)}
    row_NxC = _rows(lexicon, relations, questions, {key: index + 1 for key, index in row_of.items()}) - 1
    family_K = np.asarray([sorted({family for family, _ in keys}).index(family) for family, _ in keys])
    asked = _asked(row_NxC.shape[1], questions)
    nothing = np.zeros((len(questions), row_NxC.shape[1]), np.float32)

    def summed(values_NxC: np.ndarray) -> np.ndarray:
        """Sums over the questions of each row, and a share of the family's average."""
        columns = range(values_NxC.shape[1])
        return np.stack([np.bincount(row_NxC[:, c], values_NxC[:, c], len(keys)) for c in columns], 1)

    def shares(part_NxC: np.ndarray, whole_NxC: np.ndarray, unit: float) -> np.ndarray:
        part, whole = summed(part_NxC), summed(whole_NxC)
        family_part, family_whole = (np.zeros((family_K.max() + 1, part.shape[1])) for _ in range(2))
        np.add.at(family_part, family_K, part)
        np.add.at(family_whole, family_K, whole)
        average = (family_part / np.maximum(family_whole, 1e-9))[family_K]
        return (part + _PSEUDO * unit * average) / (whole + _PSEUDO * unit)

    concepts = np.arange(row_NxC.shape[1])
    option_K = np.asarray([context == OPTION for _, context in keys])
    option_NxC = option_K[row_NxC]
    own = np.full(row_NxC.shape, 0.02, np.float32)
    for _ in range(_ROUNDS):
        worth = report_worth(config, relations, reports, Stakes(asked, own, nothing, nothing[:, 0]))
        weight = np.broadcast_to((1 / worth.total)[:, None], own.shape)
        prior = np.minimum(shares(weight * worth.shown, weight, float(weight.mean())), HIGHEST)
        option_weight = np.where(option_NxC, weight, 0.0)
        shown_K = summed(option_weight * worth.shown).sum(1) / np.maximum(summed(option_weight).sum(1), 1e-9)
        own = prior[row_NxC, concepts].astype(np.float32)
        strength = np.where(option_K[:, None], np.maximum(prior, 1e-4), 0.0)
        for _ in range(_ROUNDS if option_K.any() else 0):  # Hunter's minorization-maximization for Plackett and Luce
            among = _among_options(strength[row_NxC, concepts], shown_K[row_NxC])
            own = np.where(option_NxC, among, own).astype(np.float32)
            strength = strength * prior / np.maximum(shares(weight * own, weight, float(weight.mean())), 1e-6)
    stakes = Stakes(asked, own, nothing, nothing[:, 0])
    gain_WxNxC, false_NxC = _single_claims(config, relations, reports, stakes)
    # The price of an option is that at the row's average odds.
    false_NxC = np.where(option_NxC, false_NxC * _odds(own) / _odds(prior[row_NxC, concepts]), false_NxC)
    unit = float((1 / report_worth(config, relations, reports, stakes).total).mean()) / 2
    price = np.max([shares(gain, false_NxC, unit) for gain in gain_WxNxC], 0)
    price = np.maximum(price, config.price * np.asarray(relations.weight))
    counts = np.bincount(np.concatenate([np.unique(row) for row in row_NxC]), minlength=len(keys))
    rows = {
        key: Row(
            prior[i].astype(np.float32), price[i].astype(np.float32), int(counts[i]),
            strength[i].astype(np.float32), float(shown_K[i]),
        )
        for key, i in row_of.items()
    }  # fmt: skip
    return Priors(rows, default(lexicon).default)


def count_texts(
    config: ValueConfig,
    lexicon: Lexicon,
    questions: Sequence[str],
    families: Sequence[str],
    reports: Sequence[Sequence[str]],
) -> Priors:
    """The table of a mix of questions, with the texts of their reports (one, or an earlier and a current one): at most
    `COUNTED` of those that have one, evenly spaced. The default table where none has."""
    with_report = [i for i, texts in enumerate(reports) if any(text.strip() for text in texts)]
    counted = with_report[:: max(1, len(with_report) // COUNTED)]
    if not counted:
        return default(lexicon)
    readings = read_all(lexicon, [reports[i] for i in counted], read_reports)
    found = [distinct(report_findings(texts)) for texts in readings]
    named = read_questions(lexicon, [questions[i] for i in counted], [families[i] for i in counted])
    return count(config, lexicon, relations(lexicon), named, pad_findings(found, max(1, *map(len, found))))


def _single_claims(
    config: ValueConfig, relations: Relations, reports: Findings, stakes: Stakes
) -> tuple[np.ndarray, np.ndarray]:
    """What each bare claim would gain on each question if errors were free, for each way to put it [ways, N, C]: with
    each side, or hedged (as a share of what a hedged error costs); and 1/Z where it is false [N, C]. By `value` itself.
    """
    shape = stakes.asked.shape
    ways = [(ASSERTED, side) for side in range(len(SIDES))] + [(HEDGED, 0)]
    gain, false = np.zeros((len(ways), *shape), np.float32), np.zeros(shape, np.float32)
    for start in range(0, shape[0], _BLOCK):
        block = slice(start, start + _BLOCK)
        report, stake = Findings(*(x[block] for x in reports)), Stakes(*(x[block] for x in stakes))
        worth = report_worth(config, relations, report, stake)
        for concept in np.flatnonzero(relations.weight):
            for way, (certainty, side) in enumerate(ways):
                claim = pad_findings([[Finding(int(concept), 1, certainty, side)]] * len(report.valid), 1)
                values = claim_values(config, relations, claim, report, stake, worth)
                cost = config.hedge if certainty == HEDGED else 1.0
                gain[way, block, concept] = np.where(values.false[:, 0], 0.0, values.gain / cost)
            false[block, concept] = values.false[:, 0] / worth.total
    return gain, false


def _among_options(strength_NxC: np.ndarray, shown_NxC: np.ndarray) -> np.ndarray:
    """The priors of options by their strengths (0 where a concept is none)."""
    total = np.maximum(strength_NxC.sum(1, keepdims=True), 1e-9)
    count = (strength_NxC > 0).sum(1, keepdims=True)
    return np.minimum(strength_NxC / total * shown_NxC * count, HIGHEST).astype(np.float32)


def _odds(probability: np.ndarray) -> np.ndarray:
    return np.maximum(probability, 1e-4) / (1 - probability)


def _contexts(lexicon: Lexicon, question: Question) -> list[tuple[str, str]]:
    if len(question.asked) == 1 and not question.options:
        return [(question.family, lexicon.concepts[next(iter(question.asked))].name)]
    return [(question.family, context) for context in (OPTION, NEAR, NEITHER)]


def _rows(
    lexicon: Lexicon, relations: Relations, questions: Sequence[Question], row_of: Mapping[tuple[str, str], int]
) -> Int[np.ndarray, "N C"]:
    """The row of each question and concept; 0 where there is none."""
    rows = np.zeros((len(questions), len(lexicon.concepts)), np.int32)
    for index, question in enumerate(questions):
        contexts = [row_of.get(key, 0) for key in _contexts(lexicon, question)]
        rows[index] = contexts[-1]
        if len(contexts) > 1:
            named = sorted(question.asked | question.options)
            rows[index, (np.asarray(relations.credit)[:, named] > 0).any(1)] = contexts[1]
            rows[index, named] = contexts[0]
    return rows


def _asked(concepts: int, questions: Sequence[Question]) -> Bool[np.ndarray, "N C"]:
    asked = np.zeros((len(questions), concepts), bool)
    for index, question in enumerate(questions):
        asked[index, sorted(question.asked | question.options)] = True
    return asked


def default(lexicon: Lexicon) -> Priors:
    """The table for texts without a question: aggregate counts over the reports of Open-i (numbers alone)."""
    with resources.as_file(resources.files(__package__) / "default_priors.json") as path:
        return load(path, lexicon)


def save(path: Path, priors: Priors, lexicon: Lexicon) -> None:
    """Writes the table as JSON: `lexicon` (its digest), `default`, and `rows` with family, context and questions.

    Each row lists `priors`, `prices` and, of options, `strengths` by concept, those of 0 left out.
    """

    def as_json(row: Row) -> dict:
        names = [concept.name for concept in lexicon.concepts]
        listed = lambda values: {n: round(float(v), 5) for n, v in zip(names, values, strict=True) if v > 0}  # noqa: E731
        return {
            "questions": row.questions, "shown": round(row.shown, 5), "priors": listed(row.prior),
            "prices": listed(row.price), "strengths": listed(row.strength),
        }  # fmt: skip

    rows = [{"family": family, "context": context, **as_json(row)} for (family, context), row in priors.rows.items()]
    files.write_json(path, {"lexicon": lexicon.digest, "default": as_json(priors.default), "rows": rows})


def load(path: Path, lexicon: Lexicon) -> Priors:
    """The table that `save` wrote. Raises UserError for a file that is not one."""
    fix = "pass a table that a training job left in its folder"
    document = files.read_json(path, fix)
    names = {concept.name: index for index, concept in enumerate(lexicon.concepts)}

    def as_row(entry: dict) -> Row:
        columns = np.zeros((3, len(names)), np.float32)
        for values, field in zip(columns, ("priors", "prices", "strengths"), strict=True):
            for name, value in entry.get(field, {}).items():
                values[names[name]] = value
        prior, price, strength = columns
        return Row(prior, price, int(entry["questions"]), strength, float(entry.get("shown", 0.0)))

    try:
        rows = {(entry["family"], entry["context"]): as_row(entry) for entry in document["rows"]}
        return Priors(rows, as_row(document["default"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no table of priors ({type(error).__name__}: {error}): {fix}.") from error
