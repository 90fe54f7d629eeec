"""One evaluation from samples to page: `predictions.jsonl`, `scores.json` and `report.html` in a folder."""

import errno
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from chestx_jax.data.reader import find_problems, read_good_samples, read_samples
from chestx_jax.data.schema import Sample, distinct_ids
from chestx_jax.errors import UserError
from chestx_jax.eval.config import EvalConfig
from chestx_jax.eval.judges.ratescore import rated
from chestx_jax.eval.predictions.records import Prediction
from chestx_jax.eval.predictions.resume import Predict, predict_missing
from chestx_jax.eval.report.tables import closing_tables
from chestx_jax.eval.results import write_results
from chestx_jax.eval.statistics.blind_baselines import Accuracies, cross_fitted_baselines, fitted_baselines
from chestx_jax.eval.statistics.comparison import compare_models
from chestx_jax.lexicon import Lexicon

Log = Callable[[str], None]


def read_eval_samples(config: EvalConfig, log: Log) -> list[Sample]:
    """The samples to ask, in file order; bad records (missing films among them) are listed before anything starts.

    Raises:
      UserError: no file is given, a file cannot be read, or more than `max_bad` of its records are bad.
    """
    if not config.files:
        raise UserError("config.files is empty; name the files of records, for example --config.files=test.jsonl")
    root = config.image_root or None
    for path in config.files:
        for problem in find_problems(path, root):
            log(str(problem))
    files = [read_good_samples(path, root, bad_share=config.max_bad)[0] for path in config.files]
    samples = [sample for samples in files for sample in samples]
    ids = distinct_ids([(sample.id, sample.question) for sample in samples])  # files may share some
    return first_per_task([replace(sample, id=id) for sample, id in zip(samples, ids, strict=True)], config.limit)


def first_per_task(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """The first `limit` samples of each task, in order; all with 0."""
    counts: dict[str, int] = {}
    kept = []
    for sample in samples:
        counts[sample.task] = counts.get(sample.task, 0) + 1
        if not limit or counts[sample.task] <= limit:
            kept.append(sample)
    return kept


def evaluate(
    config: EvalConfig,
    samples: Sequence[Sample],
    name: str,
    predict: Predict,
    out: str | Path,
    lexicon: Lexicon,
    log: Log,
) -> dict[str, Any]:
    """Answers what `out` lacks, scores everything, prints the tables, writes the results; returns the scores document.

    An interrupted run scores what it has: its documents say how many samples of how many were answered. Where the disk
    is full the tables are printed all the same, and the OSError raised after them.
    """
    out = Path(out)
    predictions, stop = _answer(out / "predictions.jsonl", samples, predict, log, name)
    comparison = compare_models(
        {name: predictions} if predictions else {},
        lexicon,
        _guessers(config, samples),
        config.seed,
        {name: rated(predictions, log)},
    )
    log(closing_tables(comparison))
    resume = " (interrupted; run the same command again to go on)" if stop else ""
    log(f"{len(predictions)} of {len(samples)} samples answered{resume}")
    if isinstance(stop, OSError):
        raise stop
    settings = {"files": list(config.files), "limit": config.limit, "blind": config.blind, "length": config.length}
    title = f"{name} on {len(samples)} samples"
    return write_results(out, comparison, title=title, asked=len(samples), config=settings)


def _answer(
    path: Path, samples: Sequence[Sample], predict: Predict, log: Log, name: str
) -> tuple[list[Prediction], KeyboardInterrupt | OSError | None]:
    """The predictions, and what stopped the run before all were there: ctrl-C or a full disk."""
    try:
        return predict_missing(path, samples, predict, log, name), None
    except (KeyboardInterrupt, OSError) as stop:
        if isinstance(stop, OSError) and stop.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return predict_missing(path, samples, lambda missing: iter(()), log, name), stop


def _guessers(config: EvalConfig, samples: Sequence[Sample]) -> Accuracies:
    """Accuracy of the guessers that never see a film, fitted on the training records or else on the samples."""
    if config.train and samples:
        train = read_samples(config.train, require_images=False, check_images=False)
        return fitted_baselines(train, samples)
    return cross_fitted_baselines(samples)
