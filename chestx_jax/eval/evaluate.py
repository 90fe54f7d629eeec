"""One evaluation from samples to page: `predictions.jsonl`, `scores.json` and `report.html` in a folder."""

import errno
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chestx_jax.data.reader import find_problems, read_good_samples, read_samples
from chestx_jax.data.schema import Sample
from chestx_jax.errors import UserError
from chestx_jax.eval.config import EvalConfig
from chestx_jax.eval.judges.ratescore import rated
from chestx_jax.eval.predictions.records import Prediction
from chestx_jax.eval.predictions.resume import Predict, predict_missing
from chestx_jax.eval.report.html import write_report
from chestx_jax.eval.report.tables import aligned, comparison_table, source_table
from chestx_jax.eval.statistics.blind_baselines import KINDS, baselines, cross_fitted
from chestx_jax.eval.statistics.scores import evaluate_predictions
from chestx_jax.files import write_json
from chestx_jax.lexicon import Lexicon

Say = Callable[[str], None]


def wanted(config: EvalConfig, say: Say) -> list[Sample]:
    """The samples to ask, in file order; bad records (missing films among them) are listed before anything starts.

    Raises:
      UserError: no file is given, a file cannot be read, or more than `max_bad` of its records are bad.
    """
    if not config.files:
        raise UserError("config.files is empty; name the files of records, for example --config.files=test.jsonl")
    root = config.image_root or None
    for path in config.files:
        for problem in find_problems(path, root):
            say(str(problem))
    found = [sample for path in config.files for sample in read_good_samples(path, root, bad_share=config.max_bad)[0]]
    counts: dict[str, int] = {}
    kept = []
    for sample in found:
        counts[sample.task] = counts.get(sample.task, 0) + 1
        if not config.limit or counts[sample.task] <= config.limit:
            kept.append(sample)
    return kept


def evaluate(
    config: EvalConfig,
    samples: Sequence[Sample],
    name: str,
    predict: Predict,
    out: str | Path,
    lexicon: Lexicon,
    say: Say,
) -> dict[str, Any]:
    """Answers what `out` lacks, scores everything, writes the three files, prints the table; returns the scores.

    An interrupted run scores what it has: its documents say how many samples of how many were answered. Where the disk
    is full the table is printed all the same, and the OSError raised after it.
    """
    out = Path(out)
    interrupted, full = False, None
    try:
        predictions = predict_missing(out / "predictions.jsonl", samples, predict, say, name)
    except (KeyboardInterrupt, OSError) as stop:
        if isinstance(stop, OSError) and stop.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        interrupted, full = True, stop if isinstance(stop, OSError) else None
        predictions = predict_missing(out / "predictions.jsonl", samples, lambda missing: iter(()), say, name)
    rates = rated(predictions, say)
    evaluation = evaluate_predictions(predictions, lexicon, config.seed, rates) if predictions else None
    blind = _baselines(config, samples)
    document = {
        "model": name,
        "asked": len(samples),
        "answered": len(predictions),
        "complete": len(predictions) == len(samples),
        "config": {"files": list(config.files), "limit": config.limit, "blind": config.blind, "length": config.length},
        **(evaluation.to_json() if evaluation else {"tasks": {}, "sources": {}}),
        "baselines": blind,
    }
    if evaluation:
        say(comparison_table({name: evaluation}))
        if len(evaluation.sources) > 1:
            say(source_table({name: evaluation}))
    say(baseline_table(blind))
    again = " (interrupted; run the same command again to go on)" if interrupted else ""
    say(_answered(predictions, samples) + again)
    if full:
        raise full
    write_json(out / "scores.json", document)
    if evaluation:
        notes = {"Without the film": baseline_table(blind), "Answered": _answered(predictions, samples)}
        write_report(out / "report.html", {name: (predictions, evaluation)}, f"{name} on {len(samples)} samples", notes)
    return document


def _baselines(config: EvalConfig, samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    if not samples:
        return {}
    if config.train:
        train = read_samples(config.train, require_images=False, check_images=False)
        return baselines(train, samples)
    return cross_fitted(samples)


def baseline_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Accuracy of each guesser that never sees a film, by task family, in percent."""
    columns = (*KINDS, "f1")
    shown = lambda row, key: f"{100 * row[key]:.1f}" if key in row else "–"  # noqa: E731
    body = [[task, str(int(row["n"])), *(shown(row, key) for key in columns)] for task, row in rows.items()]
    return aligned([["image-free", "n", *columns], *body])


def _answered(predictions: Sequence[Prediction], samples: Sequence[Sample]) -> str:
    return f"{len(predictions)} of {len(samples)} samples answered"
