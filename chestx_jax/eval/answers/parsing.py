"""What a completion answers: the strict rule (one for all models) and the release's own rules, bugs included.

Closed questions are answered by option letters, open ones (anomaly detection) by a set of label names. Every function
here is pure and total: any text is accounted for, an answer that cannot be read is `None` and counts as wrong.
"""

import re
from dataclasses import dataclass

from chestx_jax.data.fields import ANSWER_BLOCK, bare_answer
from chestx_jax.data.schema import options
from chestx_jax.labels import label_names

_OPEN = re.compile(r"<answer>((?:(?!<answer>).)*)\Z", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"</?(?:think|answer)>|<\|[a-z_]+\|>", re.IGNORECASE)
_ECHO = re.compile(r"\A\s*(?:system\s*\n.*?\n)?user\s*\n.*?\nassistant\s*\n", re.DOTALL)
_TURN = re.compile(r"<\|im_start\|>assistant\s*\n|\[/INST\]|\bASSISTANT:")
_MARKED = re.compile(r"(?<![A-Za-z0-9])\(?([A-Z])\)")
_LEADING = re.compile(r"\A[\s*_#\"'\[]*(?i:option\s+|answer\s*(?:is|:)?\s*)?\(?([A-Z])(?:[).:\]*]|\s*\Z|\s*[\n,])")
_LIST = re.compile(r"\A\W*[A-Z](?:(?:\W|\band\b|\bor\b|\boptions?\b)+[A-Z])*\W*\Z")
_VERDICT = re.compile(
    r"(?i:\b(?:answer|option|choice|conclusion)\b(?:\s+(?:is|would\s+be|are))?[\s:*_]*(?:most\s+likely\s+|likely\s+)?"
    r"(?:(?:option|choice)\s+)?)[*_(\[\"']*([A-Z])(?![A-Za-z'’])"
)
_STATED = re.compile(r"^[\s*_#>-]*\(?([A-Z])\)", re.MULTILINE)
_CONDITIONAL = re.compile(r"\b(?:if|whether|either|or)\b|→", re.IGNORECASE)
_REFUSAL = re.compile(
    r"(?i)\b(?:i['’]?m|i am)\s+(?:sorry|unable|not able)|\bi\s+can(?:no|['’])t\b|\bi do not have the ability\b"
    r"|without (?:the ability|visual access)|as an ai\b"
)
TAIL = 200  # characters at the end of a text without an answer block in which a verdict is looked for


@dataclass(frozen=True)
class Verdict:
    """One record's answer under one rule. `valid`: the rule found something to compare; `reason`: why not."""

    given: frozenset[str] | None
    valid: bool
    correct: bool
    reason: str = ""


def strip_echo(text: str) -> str:
    """The completion alone: what follows the echoed chat (`system … user … assistant`), or all of a plain text."""
    match = _ECHO.match(text)
    if match:
        return text[match.end() :]
    turns = list(_TURN.finditer(text))
    return text[turns[0].end() :] if turns else text


def answer_text(text: str) -> str | None:
    """What stands in the answer block: the last closed one, else after an unclosed tag; None without a block."""
    blocks = ANSWER_BLOCK.findall(text)
    if blocks:
        return blocks[-1].strip()
    tail = _OPEN.search(text)
    return _TAG.sub(" ", tail.group(1)).strip() if tail else None


def reasoning_text(text: str) -> str:
    """The reasoning to judge: the think block(s), else the whole text less its answer block (echo stripped)."""
    completion = strip_echo(text)
    blocks = re.findall(r"<think>(.*?)(?:</think>|\Z)", completion, re.DOTALL | re.IGNORECASE)
    body = "\n".join(blocks) if blocks else completion
    body = ANSWER_BLOCK.sub(" ", body)
    return _TAG.sub(" ", re.sub(r"<answer>.*\Z", " ", body, flags=re.DOTALL | re.IGNORECASE)).strip()


def given_letters(text: str, question: str) -> frozenset[str] | None:
    """Option letters a completion answers with under the strict rule; None where a reader would find no answer.

    In order: the last closed answer block; what follows an unclosed one; a leading `A)`, `(A)` or `A`; in the closing
    200 characters a verdict such as "the answer is A", then the last `A)`; anywhere, a line that begins with `A)` or a
    verdict, if all such name one letter. Sentences that describe how to answer ("if …, A") are passed over. Inside a
    block an option's text counts as its letter.
    """
    choices = options(question)
    completion = strip_echo(text)
    block = answer_text(completion)
    letters = _letters_in_block(block, choices) if block is not None else _letters_in_prose(completion, choices)
    return letters if letters and (not choices or letters <= choices.keys()) else None


def given_labels(text: str) -> frozenset[str] | None:
    """Label set of an open answer, lower case: the answer block, else the last line of a short text; None if empty."""
    completion = strip_echo(text)
    block = answer_text(completion)
    if block is None and "<think>" not in completion.lower() and len(completion) <= TAIL:
        block = completion
    return label_set(block) or None if block is not None else None


def label_set(answer: str) -> frozenset[str]:
    """Comma-, semicolon- or line-separated labels as a set of lower-case names."""
    return frozenset(label_names(_TAG.sub(" ", answer)))


def strict(text: str, answer: str, question: str) -> Verdict:
    """One rule for every model: the answer read as above; correct only if its set equals the gold set."""
    gold_text = bare_answer(answer)
    choices = options(question)
    letters = bool(choices) or bool(_LIST.match(gold_text))
    gold = frozenset(re.findall(r"[A-Z]", gold_text)) if letters and _LIST.match(gold_text) else label_set(gold_text)
    if letters and not _LIST.match(gold_text):  # the gold names the option instead of its letter
        gold = _letters_in_block(gold_text, choices)
    if not gold:
        return Verdict(None, False, False, "no gold answer")
    given = given_letters(text, question) if letters else given_labels(text)
    if given is None:
        return Verdict(None, False, False, _why_none(strip_echo(text)))
    return Verdict(given, True, given == gold)


def _why_none(completion: str) -> str:
    if not completion.strip():
        return "empty"
    return "refused" if _REFUSAL.search(completion) else "no answer found"


def _letters_in_block(block: str, choices: dict[str, str]) -> frozenset[str]:
    text = _TAG.sub(" ", block).strip()
    if _LIST.match(text):
        return frozenset(re.findall(r"(?<![A-Za-z])[A-Z](?![A-Za-z])", text))
    marked = frozenset(_MARKED.findall(text))
    if marked:
        return marked
    leading = _LEADING.match(text)
    if leading:
        return frozenset(leading.group(1))
    named = [letter for letter, words in choices.items() if words and _plain(words) == _plain(text)]
    if len(named) == 1:
        return frozenset(named)
    verdicts = _VERDICT.findall(text)
    return frozenset(verdicts[-1:])


def _letters_in_prose(text: str, choices: dict[str, str]) -> frozenset[str]:
    plain = _TAG.sub(" ", text).strip()
    leading = _LEADING.match(plain)
    if leading:
        return frozenset(leading.group(1))
    for pattern, part in ((_VERDICT, plain[-TAIL:]), (_MARKED, plain[-TAIL:]), (_STATED, plain), (_VERDICT, plain)):
        letters = [match.group(1) for match in pattern.finditer(part) if not _conditional(part, match)]
        if letters and (part is not plain or len(set(letters)) == 1):
            return frozenset(letters[-1:])
    named = [letter for letter, text in choices.items() if text and _plain(text) == _plain(plain)]
    return frozenset(named) if len(named) == 1 else frozenset()


def _conditional(text: str, match: re.Match[str]) -> bool:
    """Whether the match stands in a line such as "if …, the answer is A", which describes how to answer."""
    start = max(text.rfind("\n", 0, match.start()), text.rfind(". ", 0, match.start())) + 1
    after = text[match.end() :].partition("\n")[0][:80]
    return bool(
        _CONDITIONAL.search(text[start : match.start()]) or re.search(r"^[^.,;]*\bif\b|\bor\b.*\b[A-Z]\)", after)
    )


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()
