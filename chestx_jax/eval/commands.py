"""What the evaluation door does with files that exist already: each command returns the JSON it promises."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chestx_jax.data.reader import find_problems
from chestx_jax.data.schema import FieldError
from chestx_jax.eval import judgements, predicted
from chestx_jax.eval.audit import audit, record_remarks
from chestx_jax.eval.intervals import interval
from chestx_jax.eval.radrscore import Judgement, judge_all
from chestx_jax.eval.records import Prediction, from_record, raw_records, read_good_predictions
from chestx_jax.eval.tables import aligned
from chestx_jax.lexicon import load

Say = Callable[[str], None]


def score_predictions(paths: Sequence[str], rule: str, family: str, strip_echo: bool, say: Say) -> dict[str, Any]:
    """Accuracy of stored predictions: `{"files": […], "macro", "micro"}`, fractions, files in the order given."""
    files = [predicted.score_file(path, rule, family, strip_echo) for path in paths]
    for path, file in zip(paths, files, strict=True):
        file["remarks"] = record_remarks(raw_records(path))
    document = predicted.summary(files)
    rows = [(file["file"], file) for file in files] + [(key, document[key]) for key in ("macro", "micro")]
    columns = ("n", "n_valid", "n_correct", "unparsed", "accuracy", "accuracy_all")
    say(aligned([["file", *columns], *([name, *(_shown(row.get(c)) for c in columns)] for name, row in rows)]))
    for file in files:
        notes = [*file["remarks"], *([file["reason"]] if "reason" in file else []), *_unparsed(file)]
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
    columns = ("n", "n_valid", "malformed", *judgements.TERMS, "radrscore")
    rows = [(file["file"], file) for file in files] + [(key, document[key]) for key in ("macro", "micro")]
    say(aligned([["file", *columns], *([name, *(_shown(row.get(c)) for c in columns)] for name, row in rows)]))
    for file in files:
        for note in [*file["remarks"], *(f"{n} malformed: {problem}" for problem, n in file["problems"].items())]:
            say(f"{file['file']}: {note}")
    return document


def judge_predictions(paths: Sequence[str], per_item: str | None, say: Say) -> dict[str, Any]:
    """The offline judge over stored predictions: means per file with intervals, JSON lines of every item's findings.

    `index` counts the records of all files in order; one that cannot be read has null scores and a `problem`.
    """
    lexicon = load()
    files: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    for path in paths:
        records = [_parsed(record, index, path) for index, record in enumerate(raw_records(path))]
        sound = iter(judge_all([record for record in records if isinstance(record, Prediction)], lexicon))
        judged = [next(sound) if isinstance(record, Prediction) else None for record in records]
        values = {term: [getattr(j, term) if j else None for j in judged] for term in (*judgements.TERMS, "radrscore")}
        around = {term: interval(found) for term, found in values.items()}
        malformed = sum(j is None for j in judged)
        files.append({
            "file": str(path), "n": len(judged), "n_valid": len(judged) - malformed, "malformed": malformed,
            **{term: found.mean for term, found in around.items()},
            "scored": {term: found.n for term, found in around.items()},
            "intervals": {term: [found.low, found.high] for term, found in around.items()},
        })  # fmt: skip
        for record, judgement in zip(records, judged, strict=True):
            lines.append({"index": len(lines), "file": str(path), **_item(record, judgement)})
    document = {"judge": "rules", "files": files, **_overall(files, lines)}
    columns = ("n", "malformed", *judgements.TERMS, "radrscore")
    rows = [(file["file"], file) for file in files] + [(key, document[key]) for key in ("macro", "micro")]
    say(aligned([["file", *columns], *([name, *(_shown(row.get(c)) for c in columns)] for name, row in rows)]))
    if per_item:
        write_lines(per_item, lines)
    return document


def _parsed(record: Any, index: int, path: str) -> Prediction | str:
    try:
        return from_record(record, index, Path(path).stem)
    except FieldError as error:
        return f"field {error.field}: {error.problem}"


def _item(record: Prediction | str, judgement: Judgement | None) -> dict[str, Any]:
    """Null scores where there is nothing to judge against."""
    if not isinstance(record, Prediction) or judgement is None:
        return {**dict.fromkeys((*judgements.TERMS, "radrscore")), "findings": [], "problem": record}
    scores = {term: getattr(judgement, term) for term in ("factuality", "completeness", "effectiveness", "radrscore")}
    return {"item_id": record.sample_id, **scores, "findings": [asdict(mark) for mark in judgement.marks]}


def _overall(files: Sequence[Mapping[str, Any]], lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    terms = (*judgements.TERMS, "radrscore")
    counts = {key: sum(file[key] for file in files) for key in ("n", "n_valid", "malformed")}
    macro = {term: _mean([file[term] for file in files]) for term in terms}
    micro = {term: _mean([line[term] for line in lines]) for term in terms}
    return {"macro": {**counts, **macro}, "micro": {**counts, **micro}}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def score_audit(paths: Sequence[str], say: Say) -> dict[str, Any]:
    """Image-free baselines per file: `{"files": [{"file", "n", "tasks", …}]}`."""
    files = []
    for path in paths:
        items, problems = read_good_predictions(path)
        files.append({"file": str(path), **audit(items), "problems": problems})
    columns = ("n", "chance", "majority", "letter", "prior", "order", "combined", "blind", "f1")
    rows = [
        [f["file"], task, *(_shown(row.get(c)) for c in columns)] for f in files for task, row in f["tasks"].items()
    ]
    say(aligned([["file", "task", *columns], *rows]))
    for file in files:
        for note in [*file["remarks"], *file["problems"][:20]]:
            say(f"{file['file']}: {note}")
    return {"files": files}


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


def write_json(path: str | Path, document: Any) -> None:
    """Writes JSON whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def write_lines(path: str | Path, documents: Sequence[Any]) -> None:
    """Writes JSON lines whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n" for document in documents)
    os.replace(partial, path)


def _unparsed(file: Mapping[str, Any]) -> list[str]:
    return [f"{count} unparsed: {reason}" for reason, count in file["reasons"].items() if reason != file.get("reason")]


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.2f}" if isinstance(value, float) else str(value)
