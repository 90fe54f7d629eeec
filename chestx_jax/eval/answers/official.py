"""The release's answer rules by model family, bugs included, so that its printed accuracies can be reproduced.

Facts from the public scoring script (MAGIC-AI4Med/ChestX-Reasoner, eval/accuracy_eval.py). What a rule cannot decide
without an LLM judge or RaTEScore is a `Verdict` with a reason, left out of the score.
"""

import re
from pathlib import Path
from typing import Any

from chestx_jax.data.questions import options
from chestx_jax.errors import UserError
from chestx_jax.eval.answers.parsing import Verdict, strip_echo

FAMILIES = ("ours", "qwen", "chexagent", "auto")
JUDGED = "this family was scored by an LLM judge whose verdicts the release does not store"
OPEN = "open questions were scored by RaTEScore, which is not part of this rule"


def family_of(path: str | Path) -> str:
    """Family by the model's name in the file's path (`ours…`, `qwen…`, `chexagent…`), `judged` for any other model."""
    for part in reversed(Path(path).parts):
        for family in ("ours", "qwen", "chexagent"):
            if family in part.lower():
                return family
    return "judged"


def official(pred: Any, answer: Any, question: str, family: str, echo_stripped: bool = False) -> Verdict:
    """The release's verdict on one record; `echo_stripped` first removes the echoed chat, which hides 7B answers."""
    if family not in ("ours", "qwen", "chexagent", "judged"):
        raise UserError(f"--family={family} is not one of {', '.join(FAMILIES)}; name the family of the model")
    if not isinstance(question, str) or not options(question):
        return Verdict(None, False, False, OPEN)
    if family == "judged":
        return Verdict(None, False, False, JUDGED)
    if echo_stripped and isinstance(pred, str):
        pred = strip_echo(pred)
    if family == "chexagent":
        return _contains(answer, pred, answer, pred)
    if not isinstance(pred, str) or not isinstance(answer, str):
        return Verdict(None, False, False, "the release's rule stops at a value that is not text")
    if family == "qwen":
        given, gold = _qwen_answer(pred), _tagged(answer) if _has_block(answer) else answer
        return _contains(gold, given, gold, given)
    given, gold = _tagged(pred.split("assistant")[-1]), _tagged(answer)
    return _contains(given.lower(), gold.lower(), gold, given)


def _contains(needle: Any, hay: Any, gold: Any, given: Any) -> Verdict:
    """Containment as Python's `in` has it, which also is membership where a list came in place of a string."""
    if not given or not gold:
        return Verdict(None, False, False, "empty")
    try:
        correct = needle in hay
    except TypeError:
        return Verdict(None, False, False, "the release's rule stops at a value that is not text")
    return Verdict(frozenset([str(given)]), True, correct)


def _has_block(text: str) -> bool:
    return "<answer>" in text and "</answer>" in text


def _tagged(text: str, across_lines: bool = False) -> str:
    """The first answer block with its blanks squeezed; a block that spans lines is missed unless `across_lines`."""
    match = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL if across_lines else 0)
    return " ".join(match.group(1).split()) if match else ""


def _qwen_answer(pred: str) -> str:
    if _has_block(pred):
        return _tagged(pred, across_lines=True)
    return pred.split("<answer>")[-1].strip() if "<answer>" in pred else pred
