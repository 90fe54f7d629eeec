"""What a completion answers under the strict rule, one for all models (docs/evaluation.md, "How an answer is read").

Closed questions are answered by option letters, open ones (anomaly detection) by a set of label names. Every function
here is pure and total: any text is accounted for, an answer that cannot be read is `None` and counts as wrong.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from chestx_jax.data.fields import ANSWER_BLOCK, bare_answer
from chestx_jax.data.option_lists import Choices, Token, bracketed, label_set, listed_letters, plain, read_list, tokens
from chestx_jax.data.questions import parts

_OPEN = re.compile(r"<answer>((?:(?!<answer>).)*)\Z", re.DOTALL | re.IGNORECASE)
_FINAL = re.compile(r"<answer>(?:(?!</?answer>).)*(?:</answer>\s*)?\Z", re.DOTALL | re.IGNORECASE)
_CLOSED_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL | re.IGNORECASE)
_THOUGHTS_BEFORE = re.compile(r"\A.*</think>", re.DOTALL | re.IGNORECASE)
_OPEN_THOUGHTS = re.compile(r"<think>.*\Z", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"</?(?:think|answer)>|<\|[a-z_]+\|>", re.IGNORECASE)
_ECHO = re.compile(r"\A\s*(?:system\s*\n.*?\n)?user\s*\n.*?\nassistant\s*\n", re.DOTALL)
_TURN = re.compile(r"<\|im_start\|>assistant\s*\n|\[/INST\]|\bASSISTANT:")
_ANNOUNCED = re.compile(  # "the answer is", "Option", "Final answer:", "答案是"
    r"(?:\b(?:answers?|option|choice|conclusion|respuesta|réponse|antwort|resposta|risposta)\b"
    r"(?:\s+(?:is|are|would\s+be|should\s+be|es|est|ist|é|è)\b)?|(?:答案|选项|选择|選択肢|答え|정답)[是为はは은]?)"
    r"[\s:=]*(?:(?:most\s+)?(?:likely|probably)\s+)?(?:(?:the\s+)?(?:option|choice|letter)\s+)?",
    re.IGNORECASE,
)
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


def without_thoughts(text: str) -> str:
    """The text with blanks in place of its thoughts, so that what is quoted there is no answer.

    Thoughts are think blocks, what precedes a `</think>` whose tag was part of the prompt, and what follows an unclosed
    tag, but for an answer block with which the text ends.
    """
    for thoughts in (_CLOSED_THOUGHTS, _THOUGHTS_BEFORE):
        text = thoughts.sub(lambda match: " " * len(match[0]), text)
    final = _FINAL.search(text)
    end = final.start() if final else len(text)
    return _OPEN_THOUGHTS.sub(lambda match: " " * len(match[0]), text[:end]) + text[end:]


def answer_text(text: str) -> str | None:
    """What stands in the answer block outside of the thoughts: the last closed one, else after an unclosed tag; None
    without a block."""
    text = without_thoughts(text)
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

    Thoughts are passed over. In the answer block: a list of options (`data.option_lists`), which may be followed by
    prose, else the last verdict such as "the answer is A and C", else all letters with a bracket. Without a block: a
    list that begins the text; in the closing 200 characters the last verdict, else the last letter with a bracket;
    anywhere, lines that begin with such a letter, or verdicts, if all name the same. Sentences that describe how to
    answer ("if …, A") are passed over. Small letters count where no capital answers.
    """
    return _letters(strip_echo(text), question) or None


def given_labels(text: str) -> frozenset[str] | None:
    """Label set of an open answer, lower case: the answer block, else a short text; None if empty."""
    completion = strip_echo(text)
    block = answer_text(completion)
    if block is None:
        block = without_thoughts(completion).strip()
        block = block if len(block) <= TAIL else ""
    return label_set(block) or None


def strict(text: str, answer: str, question: str) -> Verdict:
    """One rule for every model: the answer read as above; correct only if its set equals the gold set."""
    gold_text = bare_answer(answer)
    if parts(question).unreadable:
        return Verdict(None, False, False, "the question's options cannot be read")
    gold = _first_read(_letters_in_block, gold_text, question)
    closed = bool(parts(question).options) or gold is not None
    gold = gold if closed else label_set(gold_text)
    if not gold:
        return Verdict(None, False, False, "no gold answer")
    completion = strip_echo(text)
    given = _letters(completion, question) if closed else given_labels(completion)
    if not given:
        return Verdict(None, False, False, _why_none(completion, undecided=given is not None))
    return Verdict(given, True, given == gold)


def _why_none(completion: str, undecided: bool) -> str:
    if undecided:
        return "several options joined by or"
    if not completion.strip():
        return "empty"
    if _REFUSAL.search(completion):
        return "refused"
    inside = ANSWER_BLOCK.search(completion) and not ANSWER_BLOCK.search(without_thoughts(completion))
    return "answered inside the think block" if inside else "no answer found"


def _letters(completion: str, question: str) -> frozenset[str] | None:
    """As `given_letters`; empty where the answer is undecided."""
    block = answer_text(completion)
    if block is not None:
        letters = _first_read(_letters_in_block, block, question)
    else:
        letters = _first_read(_letters_in_prose, without_thoughts(completion), question)
    options = parts(question).options
    return letters if letters is None or not options or letters <= options.keys() else None


def _first_read(read, text: str, question: str) -> frozenset[str] | None:
    """What is read of a text's capitals, else with its small letters too, if the question has options."""
    letters = read(text, Choices.of(question))
    return read(text, Choices.of(question, small=True)) if letters is None and parts(question).options else letters


class _Statement(NamedTuple):
    """Options that a text states somewhere: no letters where it is undecided between them."""

    letters: frozenset[str]
    start: int  # of the words that announce it, in characters
    end: int


def _letters_in_block(block: str, choices: Choices) -> frozenset[str] | None:
    whole = listed_letters(block, choices)
    if whole is not None:
        return whole
    text = plain(block)
    words = tokens(text)
    marked = list(_marked(words, choices))
    leading = _leading(text, words, choices)
    if leading:
        return _union([leading, *marked])
    verdicts = list(_verdicts(text, words, choices))
    return verdicts[-1].letters if verdicts else _union(marked)


def _letters_in_prose(prose: str, choices: Choices) -> frozenset[str] | None:
    whole = listed_letters(prose, choices)
    if whole is not None:
        return whole
    text = plain(prose)
    words = tokens(text)
    leading = _leading(text, words, choices)
    if leading:
        return leading.letters
    unconditional = [
        [s for s in statements if s.letters and not _conditional(text, s)]
        for statements in (_verdicts(text, words, choices), () if choices.small else _marked(words, choices))
    ]
    for statements in unconditional:
        closing = [s for s in statements if s.start >= len(text) - TAIL]
        if closing:
            return closing[-1].letters
    verdicts, marked = unconditional
    for statements in ([s for s in marked if _begins_line(text, s)], verdicts):
        if len({s.letters for s in statements}) == 1:
            return statements[0].letters
    return None


def _leading(text: str, words: Sequence[Token], choices: Choices) -> _Statement | None:
    """The options with which a text begins, perhaps behind "Answer:"."""
    announced = _ANNOUNCED.match(text)
    start = _token_at(words, announced.end()) if announced else 0
    listed = read_list(words, start, choices)
    return _Statement(listed.letters, 0, words[listed.end - 1].end) if listed else None


def _verdicts(text: str, words: Sequence[Token], choices: Choices) -> Iterator[_Statement]:
    """Options behind words such as "the answer is"."""
    for match in _ANNOUNCED.finditer(text):
        listed = read_list(words, _token_at(words, match.end()), choices, announced=True)
        if listed:
            yield _Statement(listed.letters, match.start(), words[listed.end - 1].end)


def _marked(words: Sequence[Token], choices: Choices) -> Iterator[_Statement]:
    """Lists that begin with a bracketed letter ("A)", "(A)"), wherever they stand."""
    behind = 0
    for at in bracketed(words, choices):
        listed = read_list(words, at, choices) if at >= behind else None
        if listed:
            behind = listed.end
            yield _Statement(listed.letters, words[at].start, words[listed.end - 1].end)


def _union(statements: Sequence[_Statement]) -> frozenset[str] | None:
    if not statements:
        return None
    letters = [statement.letters for statement in statements]
    return frozenset().union(*letters) if all(letters) else frozenset()


def _token_at(words: Sequence[Token], position: int) -> int:
    return next((i for i, word in enumerate(words) if word.start >= position), len(words))


def _begins_line(text: str, statement: _Statement) -> bool:
    return not text[text.rfind("\n", 0, statement.start) + 1 : statement.start].strip(" -")


def _conditional(text: str, statement: _Statement) -> bool:
    """Whether a statement stands in a line such as "if …, the answer is A", which describes how to answer."""
    start = max(text.rfind("\n", 0, statement.start), text.rfind(". ", 0, statement.start)) + 1
    after = text[statement.end :].partition("\n")[0][:80]
    return bool(
        _CONDITIONAL.search(text[start : statement.start]) or re.search(r"^[^.,;]*\bif\b|\bor\b.*\b[A-Z]\)", after)
    )
