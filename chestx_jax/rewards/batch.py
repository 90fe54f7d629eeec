"""Files of texts scored line by line: JSON lines in, JSON lines out, continued where a run was stopped.

In: `{"id", "text", "report": text or [earlier, current], "steps"?, "question"?, "answer"?, "task"?}`, `steps` those of
the reference reasoning and `answer` the gold one. Out, one line each in order: `id`, `process`, `gain`, `terms`,
`findings`, `report_findings`, `version`; or `id` and `error` for a line that cannot be scored.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from chestx_jax import files
from chestx_jax.errors import UserError
from chestx_jax.findings import FILMS, SEVERITIES, Finding
from chestx_jax.labels import TASKS
from chestx_jax.lexicon import Lexicon
from chestx_jax.lexicon.lexicon import CHANGES, SIDES
from chestx_jax.rewards.priors import Priors
from chestx_jax.rewards.texts import RULES_VERSION, Item, TextScore, score_texts

CERTAINTIES = ("hypothetical", "hedged", "asserted")
POLARITIES = ("absent", "present")
_CHUNK = 256  # lines scored and written at once


def score_file(source: Path, out: Path, lexicon: Lexicon, rule: str, table: Priors | None) -> int:
    """Scores the lines of `source` that `out` does not have yet; returns how many lines `out` has.

    Raises UserError where `source` cannot be read or `out` holds other ids.
    """
    try:
        lines = [line for line in source.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"{source} cannot be read ({error.strerror}): pass a file of JSON lines.") from error
    done = _lines_done(out, lines)
    for start in range(done, len(lines), _CHUNK):
        chunk = [_parse(line, number) for number, line in enumerate(lines[start : start + _CHUNK], start + 1)]
        files.append_json_lines(out, _score(chunk, lexicon, rule, table))
    if not lines:
        files.append_json_lines(out, [])
    return len(lines)


def as_json(name: Any, score: TextScore, lexicon: Lexicon) -> dict[str, Any]:
    """One line of the output."""
    findings = [
        {**finding_json(scored.finding, lexicon), "value": round(scored.value, 6), "verdict": scored.verdict}
        for scored in score.findings
    ]
    return {
        "id": name,
        "process": round(score.process, 6),
        "gain": round(score.gain, 6),
        "terms": {term: round(value, 6) for term, value in score.terms.items()},
        "findings": findings,
        "report_findings": [finding_json(finding, lexicon) for finding in score.report],
        "version": {"lexicon": lexicon.digest[:12], "rules": RULES_VERSION},
    }


def finding_json(finding: Finding, lexicon: Lexicon) -> dict[str, Any]:
    """A finding with the names of its codes; null where something is not said."""
    return {
        "concept": lexicon.concepts[finding.concept].name,
        "polarity": POLARITIES[finding.polarity],
        "certainty": CERTAINTIES[finding.certainty],
        "side": SIDES[finding.side] or None,
        "site": lexicon.sites[finding.site - 1] if finding.site else None,
        "severity": SEVERITIES[finding.severity] or None,
        "change": CHANGES[finding.change] or None,
        "film": FILMS[finding.film] or None,
        "step": finding.step,
    }


def _lines_done(out: Path, lines: Sequence[bytes]) -> int:
    """Lines that an earlier run has written; a torn last one is dropped."""
    if not out.exists():
        return 0
    files.drop_torn_line(out)
    written = [json.loads(line) for line in files.complete_lines(out)]
    for number, (line, record) in enumerate(zip(lines, written, strict=False), 1):
        if _parse(line, number)[0] != record.get("id"):
            raise UserError(
                f"{out}, line {number} is of id {record.get('id')!r}, not of this input: choose another --out."
            )
    if len(written) > len(lines):
        raise UserError(f"{out} has {len(written)} lines and the input {len(lines)}: choose another --out.")
    return len(written)


def _score(
    chunk: Sequence[tuple[Any, Item | str]], lexicon: Lexicon, rule: str, table: Priors | None
) -> Iterator[dict[str, Any]]:
    items = [item for _, item in chunk if isinstance(item, Item)]
    scores = iter(score_texts(lexicon, items, rule=rule, table=table))
    for name, item in chunk:
        yield {"id": name, "error": item} if isinstance(item, str) else as_json(name, next(scores), lexicon)


def _parse(line: bytes, number: int) -> tuple[Any, Item | str]:
    """The id of a line, and what it asks to score or what is wrong with it."""
    try:
        record = json.loads(line)
    except ValueError:
        return None, f"line {number} is no JSON"
    if not isinstance(record, dict):
        return None, f"line {number} is no JSON object"
    name = record.get("id")
    try:
        reports = record.get("report", "")
        item = Item(
            text=_text(record, "text"),
            reports=tuple(map(str, reports)) if isinstance(reports, list) else (_text(record, "report"),),
            question=_text(record, "question", ""),
            task=_text(record, "task", ""),
            answer=_text(record, "answer", ""),
            steps=tuple(map(str, record.get("steps") or ())),
        )
        if item.task not in ("", *TASKS):
            raise UserError(f"its task is {item.task!r}: use one of {', '.join(TASKS)}")
        if len(item.reports) > 2:
            raise UserError(f"it has {len(item.reports)} reports: give one, or the earlier and the current one")
    except (UserError, TypeError) as error:
        return name, f"line {number}: {error}"
    return name, item


def _text(record: dict[str, Any], field: str, default: str | None = None) -> str:
    value = record.get(field, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise UserError(f"its {field!r} is {'missing' if value is None else 'no text'}")
    return re.sub("[\ud800-\udfff]", "\ufffd", value)
