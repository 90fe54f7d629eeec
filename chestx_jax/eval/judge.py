"""Judges over stored predictions, as the door offers them: the lexicon's rules, or an LLM behind an endpoint."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chestx_jax.data.fields import FieldError
from chestx_jax.endpoint.client import Endpoint, parse_model
from chestx_jax.errors import UserError
from chestx_jax.eval.commands import shown, tell
from chestx_jax.eval.judges import judgements, llm_judge, prompts
from chestx_jax.eval.judges.lexicon_judge import Judgement, judge_all
from chestx_jax.eval.judges.llm_judge import Usage, estimate
from chestx_jax.eval.predictions.records import Prediction, from_record, raw_records
from chestx_jax.eval.report.tables import aligned
from chestx_jax.eval.statistics.intervals import share_interval
from chestx_jax.files import write_json_lines
from chestx_jax.lexicon import load

Say = Callable[[str], None]


def judge_files(
    paths: Sequence[str],
    judge: str,
    cache: str,
    workers: int,
    per_item: str | None,
    aggregation: str,
    prices: Sequence[str] | None,
    say: Say,
) -> dict[str, Any]:
    """Judges stored predictions by "rules" or by "openai:MODEL@URL", whose replies are kept in the folder `cache`."""
    if judge == "rules":
        return judge_predictions(paths, per_item, say)
    endpoint = parse_model(judge, Path(cache), workers=workers)
    return judge_remotely(paths, endpoint, per_item, aggregation, prices, say)


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
        intervals = {term: share_interval(found) for term, found in values.items()}
        malformed = sum(j is None for j in judged)
        files.append({
            "file": str(path), "n": len(judged), "n_valid": len(judged) - malformed, "malformed": malformed,
            **{term: found.mean for term, found in intervals.items()},
            "scored": {term: found.n for term, found in intervals.items()},
            "intervals": {term: [found.low, found.high] for term, found in intervals.items()},
        })  # fmt: skip
        for record, judgement in zip(records, judged, strict=True):
            lines.append({"index": len(lines), "file": str(path), **_item(record, judgement)})
    document = {"judge": "rules", "files": files, **_overall(files, lines)}
    columns = ("n", "malformed", *judgements.TERMS, "radrscore")
    rows = [(file["file"], file) for file in files] + [(key, document[key]) for key in ("macro", "micro")]
    say(aligned([["file", *columns], *([name, *(shown(row.get(c)) for c in columns)] for name, row in rows)]))
    if per_item:
        write_json_lines(per_item, lines)
    return document


def judge_remotely(
    paths: Sequence[str],
    endpoint: Endpoint,
    per_item: str | None,
    aggregation: str,
    prices: Sequence[str] | None,
    say: Say,
) -> dict[str, Any]:
    """RadRScore by an LLM judge: the document of `score_judgements` and the tokens spent; replies are cached.

    Unreadable records are judged by nobody and counted as malformed. An interrupted run keeps what was paid for and
    tells how far it came; the judged records go to `per_item`, in the release's form.
    """
    sources = [(path, record) for path in paths for record in raw_records(path)]
    read = [_parsed(record, index, path) for index, (path, record) in enumerate(sources)]
    asked = {index: record for index, record in enumerate(read) if isinstance(record, Prediction)}
    judged: dict[int, dict[str, Any]] = {
        index: {"problem": text} for index, text in enumerate(read) if isinstance(text, str)
    }
    expected = estimate(list(asked.values()))
    say(f"about to judge {len(asked)} predictions: at most {expected}{_cost(expected, prices)}")
    spent = Usage()
    try:
        numbers = list(asked)
        for place, record, usage in llm_judge.judge_all(endpoint, list(asked.values()), say):
            judged[numbers[place]] = record
            spent = spent.sum(usage)
    except KeyboardInterrupt:
        say("interrupted; run the same command again, what is judged is not asked again")
    records = [judged.get(index, {"problem": "not judged"}) for index in range(len(read))]
    files = []
    for path in paths:
        own = [record for (source, _), record in zip(sources, records, strict=True) if source == path]
        files.append({"file": str(path), **judgements.aggregate(own, aggregation)})
    document = judgements.summary(files, judgements.aggregate(records, aggregation))
    tell(document, say)
    if per_item:
        write_json_lines(per_item, [{"index": index, **record} for index, record in enumerate(records)])
    say(f"spent: {asdict(spent)}{_cost(asdict(spent), prices)}")
    return {
        "judge": endpoint.model,
        "prompts": prompts.VERSION,
        "aggregation": aggregation,
        "usage": asdict(spent),
        **document,
    }


def _cost(tokens: Mapping[str, int], prices: Sequence[str] | None) -> str:
    """The dollars of so many tokens, in words; empty without prices. Raises UserError for prices not two numbers."""
    if not prices:
        return ""
    try:
        read, written = (float(price) for price in prices)
    except ValueError:
        raise UserError(
            f"--prices={','.join(prices)}: write two numbers, dollars per million tokens in and out"
        ) from None
    return f", {(tokens['prompt_tokens'] * read + tokens['completion_tokens'] * written) / 1e6:.2f} dollars"


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
