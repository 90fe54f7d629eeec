"""Mutated records through every reader of them: `python -m tests.benchmarks.fuzz_records [N]` prints what became of N.

A file is read, or refused in one sentence that names it; of a file that is read every record is a sample, a prediction
or a problem with its number, and counted by every rule. Nothing else is raised (a TRACEBACK).
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from chestx_jax.data.reader import find_problems, read_good_samples
from chestx_jax.errors import UserError
from chestx_jax.eval.predictions.records import keys, raw_records, read_good_predictions, to_record
from chestx_jax.eval.score_files import score_file
from chestx_jax.eval.statistics.audit import audit, record_remarks
from chestx_jax.files import write_json_lines
from chestx_jax.inference.generate import read_questions
from tests.helpers.fuzz import ODD_VALUES, TRACEBACK, count_outcomes, mutated_bytes, mutated_tree, table

QUESTION = "Does this chest X-ray show edema? Options:\nA) Yes\nB) No"
RECORDS = [
    {
        "item_id": f"r{number}",
        "dataset_name": "openi",
        "question": question,
        "answer": answer,
        "image_path": images,
        "pred": f"<think> Haze. </think><answer> {answer} </answer>",
        "reason_steps": ["The heart is large.", "There is edema."],
        "original_report": "Edema.",
    }
    for number, (question, answer, images) in enumerate(
        [
            (QUESTION, "A", ["a.png"]),
            ("Which findings are in this chest X-ray?", "Edema, Fracture", "p1/s1/view.png"),
            (f"{QUESTION}\nLet's think step by step. Answer in <answer></answer>.", "<answer> B </answer>", ["b.png"]),
        ]
    )
]
PIECES = (
    *("Options:", "Choices: ", "options", "\n", "\r\n", " ", "A)", "B)", "(a)", "1.", "2.", "B.", "A:", "**", "- "),
    *("Yes", "No", ",", ";", "or", "<answer>", "Let's think step by step.", "\x00", "\u2028", "：", "\ufeff", "27)"),
)
TWICE = (
    '"answer": "A", "answer": "B", ',
    '"item_id": 1, "item_id": "1", ',
    '"a": {"b": 1, "b": NaN}, ',
    '"x": 1e999, ',
)


def lines(records: Any) -> bytes:
    """Records as JSONL, half of a surrogate pair and NaN included, as Python's json writes them."""
    return "\n".join(map(json.dumps, records if isinstance(records, list) else [records])).encode()


def _question(rng: np.random.Generator) -> bytes:
    question = "".join(rng.choice(PIECES, rng.integers(1, 14)))
    return lines([{**record, "question": question} if rng.random() < 0.7 else record for record in RECORDS])


def _odd_field(rng: np.random.Generator) -> bytes:
    records = [dict(record) for record in RECORDS]
    for _ in range(rng.integers(1, 4)):
        record = records[rng.integers(3)]
        record[str(rng.choice([*record, "process", "task", "drawn"]))] = ODD_VALUES[rng.integers(len(ODD_VALUES))]
    return lines(records)


def _named_twice(rng: np.random.Generator) -> bytes:
    text = lines(RECORDS).decode()
    at = [i for i, sign in enumerate(text) if sign == "{"]
    place = at[rng.integers(len(at))] + 1
    return (text[:place] + str(rng.choice(TWICE)) + text[place:]).encode()


def _line_ends(rng: np.random.Generator) -> bytes:
    ends = [b"\n", b"\r\n", b"\n\n", b"\r", b"\n\xef\xbb\xbf", b" \n\t"]
    marks = [b"", b"\xef\xbb\xbf", b"\n", b"\xff\xfe"]
    text = lines(RECORDS).replace(b"\n", ends[rng.integers(len(ends))])
    return marks[rng.integers(len(marks))] + text[: len(text) - int(rng.integers(0, 3)) * int(rng.integers(0, 40))]


KINDS = {
    "bytes of JSONL": lambda rng: mutated_bytes(rng, lines(RECORDS)),
    "bytes of a JSON list": lambda rng: mutated_bytes(rng, json.dumps(RECORDS).encode()),
    "fields": lambda rng: lines(mutated_tree(rng, RECORDS)),
    "odd values": _odd_field,
    "questions and options": _question,
    "fields named twice": _named_twice,
    "line ends and marks": _line_ends,
}


def attempt(content: bytes) -> str:
    """What the readers make of a file; raises where a record is unaccounted for."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ours.jsonl")
        path.write_bytes(content)
        try:
            count = len(raw_records(path))
        except UserError as error:
            return _named(path, error)
        problems = list(find_problems(path, check_images=False, require_images=False))
        assert all(str(path) in str(problem) and f"record {problem.index}" in str(problem) for problem in problems)
        predictions, bad_predictions = read_good_predictions(path)
        assert len(predictions) + len(bad_predictions) == count
        assert all(str(path) in problem and "record" in problem for problem in bad_predictions)
        assert len(set(keys(predictions))) == len(predictions)
        for rule, family in (("strict", "auto"), ("official", "ours"), ("official", "qwen"), ("official", "chexagent")):
            score = score_file(path, rule, family)
            assert score["n"] == count == score["n_valid"] + score["unparsed"]
        record_remarks(raw_records(path))
        if predictions:
            audit(predictions)
            write_json_lines(Path(folder, "again.jsonl"), map(to_record, predictions))
            assert len(read_good_predictions(Path(folder, "again.jsonl"))[0]) == len(predictions)
        for read in (lambda: read_good_samples(path, bad_share=1.0), lambda: read_questions(path)):
            try:
                read()
            except UserError as error:
                _named(path, error)
        bad = max(len(problems), len(bad_predictions))
        return "all read" if not bad else "some bad" if bad < count else "all bad"


def _named(path: Path, error: UserError) -> str:
    assert str(path) in str(error)
    return "file refused"


def main(number: int) -> None:
    outcomes = count_outcomes(KINDS, attempt, number)
    print(table(outcomes))
    sys.exit(any(TRACEBACK in outcome for _, outcome in outcomes))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
