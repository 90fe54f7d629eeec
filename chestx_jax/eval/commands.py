"""What the evaluation command does with files that exist already; each function returns a JSON document."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

from chestx_jax.data.reader import find_problems
from chestx_jax.eval import score_files
from chestx_jax.eval.judges import judgements
from chestx_jax.eval.judges.ratescore import rated
from chestx_jax.eval.predictions.accuracy import outcome
from chestx_jax.eval.predictions.records import raw_records, read_good_predictions
from chestx_jax.eval.report.tables import aligned, file_table, number
from chestx_jax.eval.statistics.audit import audit, record_remarks
from chestx_jax.eval.statistics.intervals import mean

Log = Callable[[str], None]


def score_predictions(paths: Sequence[str], rule: str, family: str, strip_echo: bool, log: Log) -> dict[str, Any]:
    """Accuracy of stored predictions: `{"files": […], "macro", "micro"}`, fractions, files in the order given."""
    files = [score_files.score_file(path, rule, family, strip_echo) for path in paths]
    for path, file in zip(paths, files, strict=True):
        file["remarks"] = record_remarks(raw_records(path))
        file |= _open_answers(path, log)
    document = score_files.summary(files)
    log(file_table(document, ("n", "n_valid", "n_correct", "unparsed", "accuracy", "accuracy_all")))
    for file in files:
        unparsed = [f"{n} unparsed: {reason}" for reason, n in file["reasons"].items() if reason != file.get("reason")]
        notes = [*file["remarks"], *([file["reason"]] if "reason" in file else []), *unparsed]
        if "label_f1" in file:
            ratescore = "" if file["ratescore"] is None else f", RaTEScore {number(file['ratescore'])}"
            notes.append(f"{file['open']} open answers: label F1 {number(file['label_f1'])}{ratescore}")
        for note in notes:
            log(f"{file['file']}: {note}")
    return document


def score_judgements(paths: Sequence[str], aggregation: str, log: Log) -> dict[str, Any]:
    """RadRScore of stored judge replies: `{"files": […], "macro", "micro"}`."""
    records = [raw_records(path) for path in paths]
    files = [
        {"file": str(path), **judgements.aggregate(judged, aggregation), "remarks": record_remarks(judged)}
        for path, judged in zip(paths, records, strict=True)
    ]
    pooled = judgements.aggregate(list(chain(*records)), aggregation)
    document = judgements.summary(files, pooled)
    log_judgements(document, log)
    return document


def log_judgements(document: Mapping[str, Any], log: Log) -> None:
    """Logs a RadRScore document as a table, and a line for each remark and each kind of malformed record."""
    log(file_table(document, ("n", "n_valid", "malformed", *judgements.TERMS, "radrscore")))
    for file in document["files"]:
        problems = [f"{n} malformed: {problem}" for problem, n in file["problems"].items()]
        corrections = [f"{n} corrected: {note}" for note, n in file["notes"].items()]
        for note in [*file.get("remarks", ()), *problems, *corrections]:
            log(f"{file['file']}: {note}")


def score_audit(paths: Sequence[str], log: Log) -> dict[str, Any]:
    """Image-free baselines per file: `{"files": [{"file", "n", "tasks", …}]}`."""
    files = []
    for path in paths:
        predictions, problems = read_good_predictions(path)
        files.append({"file": str(path), **audit(predictions), "problems": problems})
    columns = ("n", "chance", "majority", "letter", "prior", "order", "combined", "blind", "f1")
    rows = [
        [f["file"], task, *(number(row.get(c)) for c in columns)] for f in files for task, row in f["tasks"].items()
    ]
    log(aligned([["file", "task", *columns], *rows]))
    for file in files:
        for note in [*file["remarks"], *file["problems"][:20]]:
            log(f"{file['file']}: {note}")
    return {"files": files}


def validate(paths: Sequence[str], image_root: str | None, log: Log) -> dict[str, Any]:
    """Every problem of sample files by file, index and field: `{"files": [{"file", "n", "problems": […]}]}`."""
    files = []
    for path in paths:
        problems = list(find_problems(path, image_root, check_images=image_root is not None, require_images=False))
        count = len(raw_records(path))
        files.append({"file": str(path), "n": count, "problems": [asdict(problem) for problem in problems]})
        for problem in problems:
            log(str(problem))
        log(f"{path}: {count} records, {len(problems)} with problems")
    return {"files": files}


def _open_answers(path: str, log: Log) -> dict[str, Any]:
    """Means of label-set F1, and of RaTEScore where its package is installed, over a file's open questions, if any."""
    predictions = [prediction for prediction in read_good_predictions(path)[0] if prediction.task == "anomaly"]
    if not predictions:
        return {}
    label_f1 = mean(outcome(prediction).f1 for prediction in predictions)
    return {"open": len(predictions), "label_f1": label_f1, "ratescore": mean(rated(predictions, log))}
