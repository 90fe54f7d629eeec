"""What the evaluation door does with files that exist already: each command returns the JSON it promises."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chestx_jax.data.reader import find_problems
from chestx_jax.eval import score_files
from chestx_jax.eval.judges import judgements
from chestx_jax.eval.judges.ratescore import rated
from chestx_jax.eval.predictions.accuracy import outcomes
from chestx_jax.eval.predictions.records import raw_records, read_good_predictions
from chestx_jax.eval.report.tables import aligned
from chestx_jax.eval.statistics.audit import audit, record_remarks
from chestx_jax.eval.statistics.intervals import mean_interval

Say = Callable[[str], None]


def score_predictions(paths: Sequence[str], rule: str, family: str, strip_echo: bool, say: Say) -> dict[str, Any]:
    """Accuracy of stored predictions: `{"files": […], "macro", "micro"}`, fractions, files in the order given."""
    files = [score_files.score_file(path, rule, family, strip_echo) for path in paths]
    for path, file in zip(paths, files, strict=True):
        file["remarks"] = record_remarks(raw_records(path))
        file |= _open_answers(path, say)
    document = score_files.summary(files)
    rows = [(file["file"], file) for file in files] + [(key, document[key]) for key in ("macro", "micro")]
    columns = ("n", "n_valid", "n_correct", "unparsed", "accuracy", "accuracy_all")
    say(aligned([["file", *columns], *([name, *(shown(row.get(c)) for c in columns)] for name, row in rows)]))
    for file in files:
        notes = [*file["remarks"], *([file["reason"]] if "reason" in file else []), *_unparsed(file)]
        if "label_f1" in file:
            rate = "" if file["ratescore"] is None else f", RaTEScore {shown(file['ratescore'])}"
            notes.append(f"{file['open']} open answers: label F1 {shown(file['label_f1'])}{rate}")
        for note in notes:
            say(f"{file['file']}: {note}")
    return document


def score_judgements(paths: Sequence[str], aggregation: str, say: Say) -> dict[str, Any]:
    """RadRScore of stored judge replies: `{"files": […], "macro", "micro"}`."""
    records = [raw_records(path) for path in paths]
    files = [
        {"file": str(path), **judgements.aggregate(r, aggregation)} for path, r in zip(paths, records, strict=True)
    ]
    for file, found in zip(files, records, strict=True):
        file["remarks"] = record_remarks(found)
    pooled = judgements.aggregate([record for found in records for record in found], aggregation)
    document = judgements.summary(files, pooled)
    tell(document, say)
    return document


def tell(document: Mapping[str, Any], say: Say) -> None:
    """The table of a RadRScore document, and a line per remark and kind of malformed record."""
    columns = ("n", "n_valid", "malformed", *judgements.TERMS, "radrscore")
    rows = [(file["file"], file) for file in document["files"]] + [(key, document[key]) for key in ("macro", "micro")]
    say(aligned([["file", *columns], *([name, *(shown(row.get(c)) for c in columns)] for name, row in rows)]))
    for file in document["files"]:
        problems = [f"{n} malformed: {problem}" for problem, n in file["problems"].items()]
        put_right = [f"{n} put right: {note}" for note, n in file["notes"].items()]
        for note in [*file.get("remarks", ()), *problems, *put_right]:
            say(f"{file['file']}: {note}")


def score_audit(paths: Sequence[str], say: Say) -> dict[str, Any]:
    """Image-free baselines per file: `{"files": [{"file", "n", "tasks", …}]}`."""
    files = []
    for path in paths:
        items, problems = read_good_predictions(path)
        files.append({"file": str(path), **audit(items), "problems": problems})
    columns = ("n", "chance", "majority", "letter", "prior", "order", "combined", "blind", "f1")
    rows = [[f["file"], task, *(shown(row.get(c)) for c in columns)] for f in files for task, row in f["tasks"].items()]
    say(aligned([["file", "task", *columns], *rows]))
    for file in files:
        for note in [*file["remarks"], *file["problems"][:20]]:
            say(f"{file['file']}: {note}")
    return {"files": files}


def compare(places: Sequence[str], out: Path, say: Say) -> dict[str, Any]:
    """Runs side by side, on one page in `out` (see `comparing`)."""
    from chestx_jax.eval import compare  # with jax, which the other commands here start without

    return compare.compare_runs(places, out, say)


def validate(paths: Sequence[str], image_root: str | None, say: Say) -> dict[str, Any]:
    """Every problem of sample files by file, index and field: `{"files": [{"file", "n", "problems": […]}]}`."""
    files = []
    for path in paths:
        problems = list(find_problems(path, image_root, check_images=image_root is not None, require_images=False))
        files.append({
            "file": str(path),
            "n": len(raw_records(path)),
            "problems": [asdict(problem) for problem in problems],
        })  # fmt: skip
        for problem in problems:
            say(str(problem))
        say(f"{path}: {files[-1]['n']} records, {len(problems)} with problems")
    return {"files": files}


def _open_answers(path: str, say: Say) -> dict[str, Any]:
    """Means of label-set F1, and of RaTEScore where its package is installed, over a file's open questions, if any."""
    found = [prediction for prediction in read_good_predictions(path)[0] if prediction.task == "anomaly"]
    if not found:
        return {}
    labels, rates = ([o.f1 for o in outcomes(found)], rated(found, say))
    return {"open": len(found), "label_f1": mean_interval(labels).mean, "ratescore": mean_interval(rates).mean}


def _unparsed(file: Mapping[str, Any]) -> list[str]:
    return [f"{count} unparsed: {reason}" for reason, count in file["reasons"].items() if reason != file.get("reason")]


def shown(value: Any) -> str:
    """A cell: fractions as percent, counts as they are, a dash for None."""
    if value is None:
        return "–"
    return f"{100 * value:.2f}" if isinstance(value, float) else str(value)
