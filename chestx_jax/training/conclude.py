"""What a job says at its end: the closing table, the scores as JSON, the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from chestx_jax.data.schema import Sample
from chestx_jax.eval.predictions.records import Prediction
from chestx_jax.eval.report.html import write_report
from chestx_jax.eval.report.tables import aligned, comparison_table, difference_table
from chestx_jax.eval.statistics import blind_baselines
from chestx_jax.eval.statistics.scores import CLOSED, Evaluation, compare, evaluate_predictions
from chestx_jax.files import write_json
from chestx_jax.lexicon import Lexicon

COLUMNS = (
    "accuracy",
    "f1",
    "factuality",
    "completeness",
    "effectiveness",
    "ground_truth_factuality",
    "claims",
    "words",
)


def conclude(
    folder: Path,
    tested: Mapping[str, Sequence[Prediction]],
    seen: Sequence[Sample],
    asked: Sequence[Sample],
    lexicon: Lexicon,
) -> str:
    """Scores every model's predictions, writes `scores.json` and `report.html` to `folder`, returns the closing tables.

    `tested` maps a model's name ("blind" among them, if it was trained) to its predictions on `asked`; the baselines
    without the film are fitted on the training records `seen`.
    """
    scored = {name: evaluate_predictions(predictions, lexicon) for name, predictions in tested.items()}
    without = blind_baselines.baselines(seen, asked)
    blind = blind_accuracy(scored.get("blind"), without)
    changes = {
        f"{second} minus {first}": compare(scored[first], scored[second])
        for first, second in zip(list(scored), list(scored)[1:], strict=False)
        if first != "blind"
    }
    tables = [comparison_table(scored, COLUMNS), blind_table(blind, scored)]
    tables += [difference_table(name, table) for name, table in changes.items()]
    document = {
        "models": {name: found.to_json() for name, found in scored.items()},
        "blind": blind,
        "baselines": without,
        "changes": {name: _plain(table) for name, table in changes.items()},
    }
    write_json(folder / "scores.json", document)
    pages = {name: (list(tested[name]), found) for name, found in scored.items()}
    write_report(folder / "report.html", pages, "Test of the job's stages", {"Without the film": tables[1]})
    return "\n".join(tables)


def blind_accuracy(model: Evaluation | None, without: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The blind baseline of each closed family: the best of the model that saw no film and of the guessers from
    letters, labels and order; and their mean over the families, `closed`."""
    best = {}
    for task in CLOSED:
        guesses = [value for kind, value in without.get(task, {}).items() if kind in blind_baselines.KINDS]
        seen = model.mean(task, "accuracy") if model else None
        candidates = guesses + ([] if seen is None else [seen])
        if candidates:
            best[task] = max(candidates)
    return {**best, "closed": sum(best.values()) / len(best)} if best else {}


def blind_table(blind: Mapping[str, float], scored: Mapping[str, Evaluation]) -> str:
    """How far each model is above the blind baseline, in points of accuracy."""
    models = [name for name in scored if name != "blind"]
    lines = [["accuracy above blind", "blind %", *models]]
    for row, value in blind.items():
        means = [scored[name].mean(row, "accuracy") for name in models]
        lines.append([row, f"{100 * value:.1f}", *("–" if m is None else f"{100 * (m - value):+.1f}" for m in means)])
    return aligned(lines)


def _plain(table) -> dict:
    return {
        row: {m: [cell.mean, cell.low, cell.high, cell.p] for m, cell in cells.items()} for row, cells in table.items()
    }
