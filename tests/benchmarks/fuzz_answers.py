"""Mutated answers through the strict rule: `python -m tests.benchmarks.fuzz_answers [N]` prints what became of N.

Every text is read, or counted as unread with its reason; a set of letters or labels written in any of many forms is
read back as it is, and is none with "or" in it. Nothing is raised (a TRACEBACK).
"""

import sys
from typing import Any

import numpy as np

from chestx_jax.eval.answers.parsing import (
    answer_text,
    given_labels,
    given_letters,
    reasoning_text,
    strict,
    without_thoughts,
)
from chestx_jax.labels import LABELS
from tests.helpers.fuzz import TRACEBACK, count_outcomes, mutated_bytes, table

OPTIONS = dict(zip("ABCD", ("Edema", "Fracture", "Pneumonia", "Lung Lesion"), strict=True))
QUESTION = "Which finding is in this chest X-ray? Options:\n" + "\n".join(f"{x}) {text}" for x, text in OPTIONS.items())
OPEN_QUESTION = "Which findings are in this chest X-ray?"
MARKS = ("{A}", "{A})", "({A})", "{A}.", "{A}:", "[{A}]", "**{A}**", "`{A}`", "{A}：", "Option {A}", "{a})", "({a})")
JOINTS = (", ", "; ", "\n", " and ", " & ", ",", "\n- ", ", and ")
WRAPS = (
    "{}",
    "**{}**",
    '"{}"',
    "“{}”",
    "\\boxed{{{}}}",
    "$\\boxed{{\\text{{{}}}}}$",
    "Answer: {}",
    "答案：{}",
    "{}.",
    "\n{}\n",
)
FORMS = (
    "<think>{}</think><answer>{}</answer>",
    "<think>{}</think>\n{}",
    "{}</think><answer> {}",
    "<think>{}<answer>{}</answer>",
)
THOUGHTS = ("", "Haze.", "Answer as <answer>A</answer>.", "A) or B)? The answer is C.", "No, a clear film.")
PIECES = (
    *(
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "<|im_end|>",
        " A ",
        "(B)",
        "A) Yes",
        "**B)**",
        "b.",
        "the answer is A",
    ),
    *(
        "If seen, A",
        "or",
        "/",
        "and",
        "Edema",
        "Lung Lesion",
        "I'm sorry",
        "\nassistant\n",
        "system\nYou help.\nuser\n",
    ),
    *(
        "\\boxed{",
        "}",
        '{"answer": "',
        "答案",
        "：",
        "1.",
        "\n",
        "\x00",
        "\ud800",
        "\u200b",
        "\U0001f600",
        "no",
        "Yes, a",
    ),
)


def _pick(rng: np.random.Generator, options: Any) -> Any:
    return options[rng.integers(len(options))]


def _framed(rng: np.random.Generator, answer: str) -> str:
    return _pick(rng, FORMS).format(_pick(rng, THOUGHTS), _pick(rng, WRAPS).format(answer))


def _letters(rng: np.random.Generator, joint: str) -> tuple[str, str, str]:
    letters = rng.permutation(list("ABCD"))[: rng.integers(1 if joint != " or " else 2, 5)]
    mark, words = _pick(rng, MARKS), rng.random() < 0.5
    items = [mark.format(A=x, a=x.lower()) + (f" {OPTIONS[x]}" if words else "") for x in letters]
    return _framed(rng, joint.join(items)), ", ".join(sorted(letters)), "none" if joint == " or " else "right"


def _labels(rng: np.random.Generator) -> tuple[str, str, str]:
    labels = [str(label) for label in rng.permutation(LABELS[:12])[: rng.integers(1, 4)]]
    items = [f"{number}. {label}" for number, label in enumerate(labels, 1)] if rng.random() < 0.3 else labels
    items = [_pick(rng, (str.lower, str.upper, str.title, str))(item) for item in items]
    return _framed(rng, _pick(rng, JOINTS).join(items)), "; ".join(labels), "right labels"


def _well_formed(rng: np.random.Generator) -> str:
    return f"<think> Haze at both bases. </think><answer> {_pick(rng, 'ABCD')}) Edema </answer>"


KINDS = {
    "letters in any form": lambda rng: _letters(rng, _pick(rng, JOINTS)),
    "letters with or": lambda rng: _letters(rng, " or "),
    "labels in any form": _labels,
    "bytes of an answer": lambda rng: (
        mutated_bytes(rng, _well_formed(rng).encode()).decode("utf-8", "surrogateescape"), "A", ""
    ),
    "pieces": lambda rng: ("".join(_pick(rng, PIECES) for _ in range(rng.integers(0, 12))), "A, C", ""),
}  # fmt: skip


def attempt(answer: tuple[str, str, str]) -> str:
    """What the strict rule makes of an answer; raises where it is not what was written, or is unaccounted for."""
    text, gold, expected = answer
    question = OPEN_QUESTION if expected == "right labels" else QUESTION
    verdict = strict(text, gold, question)
    assert verdict.valid == bool(verdict.given)
    assert not verdict.correct or verdict.valid
    assert verdict.valid or verdict.reason
    given = given_labels(text) if question == OPEN_QUESTION else given_letters(text, question)
    assert given == verdict.given
    assert len(without_thoughts(text)) == len(text)
    answer_text(text), reasoning_text(text)
    if expected:
        assert verdict.correct == (expected != "none"), (text, verdict)
    return ("right" if verdict.correct else "wrong") if verdict.valid else verdict.reason


def main(number: int) -> None:
    outcomes = count_outcomes(KINDS, attempt, number)
    print(table(outcomes))
    sys.exit(any(TRACEBACK in outcome for _, outcome in outcomes))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
