"""Judging stored predictions: by the lexicon's rules, or by an LLM behind an endpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chestx_jax.data.fields import FieldError
from chestx_jax.endpoint.client import Endpoint
from chestx_jax.endpoint.structured import Usage, dollars
from chestx_jax.eval.commands import Log, log_judgements
from chestx_jax.eval.judges import judgements, lexicon_judge, llm_judge, prompts
from chestx_jax.eval.judges.lexicon_judge import Judgement
from chestx_jax.eval.predictions.records import Prediction, from_record, raw_records
from chestx_jax.eval.report.tables import file_table
from chestx_jax.eval.statistics.intervals import mean, share_interval
from chestx_jax.files import write_json_lines
from chestx_jax.lexicon import load

SCORES = (*judgements.TERMS, "radrscore")


def judge_by_rules(paths: Sequence[str], per_item: str | None, log: Log) -> dict[str, Any]:
    """The offline judge over stored predictions: means per file with intervals, JSON lines of every item's findings.

    `index` counts the records of all files in order; one that cannot be read has null scores and a `problem`.
    """
    lexicon = load()
    files: list[dict[str, Any]] = []
    items: list[dict[str, Any]] = []
    for path in paths:
        records = [_prediction(record, index, path) for index, record in enumerate(raw_records(path))]
        predictions = [record for record in records if isinstance(record, Prediction)]
        judged = iter(lexicon_judge.judge_all(predictions, lexicon))
        verdicts = [next(judged) if isinstance(record, Prediction) else None for record in records]
        files.append({"file": str(path), **_file_row(verdicts)})
        for record, judgement in zip(records, verdicts, strict=True):
            items.append({"index": len(items), "file": str(path), **_item(record, judgement)})
    document = {"judge": "rules", "files": files, **_overall(files, items)}
    log(file_table(document, ("n", "malformed", *SCORES)))
    if per_item:
        write_json_lines(per_item, items)
    return document


def judge_by_endpoint(
    paths: Sequence[str],
    endpoint: Endpoint,
    per_item: str | None,
    aggregation: str,
    prices: Sequence[str] | None,
    log: Log,
) -> dict[str, Any]:
    """RadRScore by an LLM judge: the document of `score_judgements` and the tokens spent; replies are cached.

    Unreadable records are not judged and count as malformed. An interrupted run keeps what was paid for and logs how
    far it came; the judged records go to `per_item`, in the release's form.
    """
    sources = [(path, record) for path in paths for record in raw_records(path)]
    records = [_prediction(record, index, path) for index, (path, record) in enumerate(sources)]
    predictions = {index: record for index, record in enumerate(records) if isinstance(record, Prediction)}
    judged: list[dict[str, Any]] = [
        {"problem": record if isinstance(record, str) else "not judged"} for record in records
    ]
    numbers, readable = list(predictions), list(predictions.values())
    expected = llm_judge.estimate(readable)
    log(f"about to judge {len(predictions)} predictions: at most {expected}{dollars(expected, prices)}")
    usage = Usage()
    try:
        for position, record, record_usage in llm_judge.judge_all(endpoint, readable, log):
            judged[numbers[position]] = record
            usage = usage.sum(record_usage)
    except KeyboardInterrupt:
        log("interrupted; run the same command again, what is judged is not asked again")
    files = []
    for path in paths:
        in_file = [record for (source, _), record in zip(sources, judged, strict=True) if source == path]
        files.append({"file": str(path), **judgements.aggregate(in_file, aggregation)})
    document = judgements.summary(files, judgements.aggregate(judged, aggregation))
    log_judgements(document, log)
    if per_item:
        write_json_lines(per_item, [{"index": index, **record} for index, record in enumerate(judged)])
    spent = usage._asdict()
    log(f"spent: {spent}{dollars(spent, prices)}")
    header = {"judge": endpoint.model, "prompts": prompts.VERSION, "aggregation": aggregation, "usage": spent}
    return {**header, **document}


def _prediction(record: Any, index: int, path: str) -> Prediction | str:
    """The prediction of a record, or the problem with it."""
    try:
        return from_record(record, index, Path(path).stem)
    except FieldError as error:
        return f"field {error.field}: {error.problem}"


def _file_row(verdicts: Sequence[Judgement | None]) -> dict[str, Any]:
    intervals = {score: share_interval([getattr(verdict, score, None) for verdict in verdicts]) for score in SCORES}
    malformed = sum(verdict is None for verdict in verdicts)
    return {
        "n": len(verdicts),
        "n_valid": len(verdicts) - malformed,
        "malformed": malformed,
        **{score: interval.mean for score, interval in intervals.items()},
        "scored": {score: interval.n for score, interval in intervals.items()},
        "intervals": {score: [interval.low, interval.high] for score, interval in intervals.items()},
    }


def _item(record: Prediction | str, judgement: Judgement | None) -> dict[str, Any]:
    """Null scores where there is nothing to judge against."""
    if not isinstance(record, Prediction) or judgement is None:
        return {**dict.fromkeys(SCORES), "findings": [], "problem": record}
    scores = {score: getattr(judgement, score) for score in SCORES}
    return {"item_id": record.sample_id, **scores, "findings": [asdict(mark) for mark in judgement.marks]}


def _overall(files: Sequence[Mapping[str, Any]], items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`macro`: files count alike; `micro`: items count alike."""
    counts = {key: sum(file[key] for file in files) for key in ("n", "n_valid", "malformed")}
    macro = {score: mean(file[score] for file in files) for score in SCORES}
    micro = {score: mean(item[score] for item in items) for score in SCORES}
    return {"macro": {**counts, **macro}, "micro": {**counts, **micro}}
