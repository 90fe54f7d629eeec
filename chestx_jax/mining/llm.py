"""Reasoning by an LLM behind an OpenAI-compatible endpoint: plan, evidence and chain in three structured calls, each
reply checked, asked for again once, and else refused."""

import ipaddress
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from chestx_jax.endpoint.client import Endpoint, call_all
from chestx_jax.endpoint.structured import Usage, ask
from chestx_jax.findings import HYPOTHETICAL, extract
from chestx_jax.lexicon import Lexicon
from chestx_jax.mining import plans, prompts, readback
from chestx_jax.mining.questions import Question
from chestx_jax.mining.reference import Reference
from chestx_jax.mining.rules import Reasoning, evidence_entry, seen

_TRIES = 2  # of a reply that is no JSON
_CHARACTERS = {"plan": 900, "evidence": 1100, "chain": 2400}  # of a prompt, the report not counted


class Mined(NamedTuple):
    """What became of a question. `refused`, and what was wrong before a repair, are (reason, detail)."""

    reasoning: Reasoning | None
    refused: tuple[str, str] = ("", "")
    repaired: str = ""  # reason
    unanswered: str = ""  # why the endpoint gave no reply: the question can be asked again
    usage: Usage = Usage()


class _Refused(Exception):
    def __init__(self, reason: str, detail: str):
        super().__init__(reason)
        self.pair = reason, detail


class _NoReply(Exception):
    """The endpoint gave none: the question can be asked again."""


def mine_all(endpoint: Endpoint, lexicon: Lexicon, questions: Sequence[Question]) -> Iterator[tuple[int, Mined]]:
    """What becomes of each question, with its number, as the replies come; every question is accounted for.

    Raises UserError where the endpoint refuses the request itself.
    """
    pending = dict(enumerate(questions))
    mine = lambda numbered: _mine(endpoint, lexicon, numbered[1])  # noqa: E731
    calls = call_all(endpoint, mine, list(pending.items()), lambda mined: bool(mined.unanswered))
    for (number, _), mined in calls:
        del pending[number]
        yield number, mined
    for number in pending:
        yield number, Mined(None, unanswered="not asked, since the endpoint did not answer the calls before")


def estimate(questions: Sequence[Question]) -> dict[str, int]:
    """Calls and tokens that mining takes without repairs, at four characters a token; the cache is not looked at."""
    characters = 0
    for question in questions:
        reports = sum(len(reference.report) for reference in question.references)
        characters += reports + len(question.references) * _CHARACTERS["evidence"]
        characters += _CHARACTERS["plan"] + _CHARACTERS["chain"] + 2 * len(question.text)
    calls = sum(2 + len(question.references) for question in questions)
    return {"calls": calls, "prompt_tokens": characters // 4, "completion_tokens": 150 * calls}


def is_local(url: str) -> bool:
    """Whether requests to a URL stay on this machine: its host is loopback, and no proxy is set for it."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    proxied = parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(parts.netloc)
    return loopback and not proxied


def _mine(endpoint: Endpoint, lexicon: Lexicon, question: Question) -> Mined:
    calls = _Calls(endpoint)
    try:
        where = _plan(lexicon, question, calls.document("plan", prompts.plan(question), lambda document: []))
        films: tuple[str, ...] = ("",) if len(question.references) == 1 else ("reference", "new")
        entries = []
        for film, reference in zip(films, question.references, strict=True):
            if reference.report.strip():
                prompt = prompts.evidence(question, film, reference.report)
                check = partial(evidence_problems, question, reference)
                calls.document("evidence", prompt, check)
            entries += [evidence_entry(label, reference, film) for label in question.named]
        shown = [*_told(entries), *(seen(lexicon, question.reference) if films == ("",) else [])]
        check_chain = lambda document: chain_problems(lexicon, question, document)  # noqa: E731
        document = calls.document("chain", prompts.chain(question, where, shown), check_chain)
        steps = tuple(" ".join(step.split()) for step in document["steps"])
        return Mined(Reasoning(where, entries, steps), repaired=calls.repaired, usage=calls.usage)
    except _Refused as refusal:
        return Mined(None, refused=refusal.pair, usage=calls.usage)
    except _NoReply as error:
        return Mined(None, unanswered=str(error), usage=calls.usage)


class _Calls:
    """The calls of one question: what they took, and what had to be repaired."""

    def __init__(self, endpoint: Endpoint):
        self.endpoint, self.usage, self.repaired = endpoint, Usage(), ""

    def document(
        self, kind: str, prompt: str, check: Callable[[dict[str, Any]], list[tuple[str, str]]]
    ) -> dict[str, Any]:
        """The reply to a prompt, repaired once where `check` finds problems (reason, detail)."""
        chat = [{"role": "system", "content": prompts.SYSTEM}, {"role": "user", "content": prompt}]
        document = self._ask(kind, chat)
        problems = check(document)
        if not problems:
            return document
        self.repaired = self.repaired or problems[0][0]
        said = [{"role": "assistant", "content": str(document)}]
        details = [f"{reason}: {detail}" for reason, detail in problems]
        document = self._ask(kind, [*chat, *said, {"role": "user", "content": prompts.repair(details)}])
        problems = check(document)
        if problems:
            raise _Refused(*problems[0])
        return document

    def _ask(self, kind: str, chat: list[dict[str, str]]) -> dict[str, Any]:
        key = "steps" if kind == "chain" else kind
        answer = ask(self.endpoint, kind, prompts.SCHEMAS[kind], chat, (key,), _TRIES)
        self.usage = self.usage.sum(answer.usage)
        if answer.unreached:
            raise _NoReply(answer.problem)
        if answer.document is None or not _is_list_of(answer.document[key], str if kind == "chain" else dict):
            raise _Refused(f"the {kind} is not of the form asked for", (answer.problem or str(answer.document))[:200])
        return answer.document


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _plan(lexicon: Lexicon, question: Question, document: dict[str, Any]) -> dict[str, str]:
    """The plan of each label; our own where the reply has none, or one that asserts what a film shows."""
    told = {str(entry.get("finding", "")).lower(): str(entry.get("plan", "")) for entry in document["plan"]}
    own = plans.plan(question.named)
    texts = {label: " ".join(told.get(label.lower(), "").split()) for label in question.named}
    return {label: text if text and _asserts_nothing(lexicon, text) else own[label] for label, text in texts.items()}


def _asserts_nothing(lexicon: Lexicon, text: str) -> bool:
    return all(finding.certainty == HYPOTHETICAL for finding in extract(lexicon, text))


def evidence_problems(question: Question, reference: Reference, document: dict[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with a reply's evidence: findings left out, quotations that the report does not hold, and another
    reading than the rules' (one of the two is wrong, so neither is used)."""
    told = {str(entry.get("finding", "")).lower(): entry for entry in document["evidence"]}
    report, problems = _plain(reference.report), []
    for label in question.named:
        entry, status = told.get(label.lower()), reference.statuses[label]
        if label == "No Finding":
            continue
        if entry is None:
            problems.append(("the evidence leaves a finding out", label))
            continue
        value, quoted = str(entry.get("status", "")), str(entry.get("statement", ""))
        expected = ("absent", "not mentioned") if status.value == "absent" else (status.value,)
        if quoted.strip() and _plain(quoted) not in report:
            problems.append(("the evidence quotes what the report does not say", f"{label}: {quoted[:100]!r}"))
        elif value not in expected and status.basis != "labels":
            problems.append(("the evidence reads the report otherwise than the rules", f"{label} {value}"))
    return problems


def _plain(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def _told(entries: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The evidence without the report's words."""
    return [{key: value for key, value in entry.items() if key in ("film", "finding", "status")} for entry in entries]


def chain_problems(lexicon: Lexicon, question: Question, document: dict[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with a reply's steps, read back."""
    found = readback.problems(lexicon, question, document["steps"])
    return [
        (problem.reason, problem.detail if problem.step is None else f"step {problem.step + 1}, {problem.detail}")
        for problem in found
    ]
