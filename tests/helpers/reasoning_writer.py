"""A stand-in for an LLM that writes reasoning: right replies to each prompt, and every kind of mistake on request."""

import json
from collections.abc import Callable, Sequence

from chestx_jax.findings import Finding
from chestx_jax.labels import LABELS
from chestx_jax.mining import plans, prompts, wording
from chestx_jax.mining.dataset import by_rules
from chestx_jax.mining.rules import evidence_entry, seen

# What comes in place of a right chain, and the reason for which it must be refused; "" where a server's fault passes.
CHAIN_MISTAKES = {
    "prose": "the chain is not of the form asked for",
    "wrong JSON": "the chain is not of the form asked for",
    "no list": "the chain is not of the form asked for",
    "truncated": "the chain is not of the form asked for",
    "empty": "the chain is not of the form asked for",
    "no steps": "wrong number of steps",
    "contradiction": "contradicts the report",
    "invention": "invents a finding",
    "other answer": "ends in another answer",
    "no answer": "ends in another answer",
    "report": "speaks of a report",
    "blank": "speaks of a report",
    "earlier film": "speaks of films that are not shown",
    "change": "speaks of films that are not shown",
    "asked left out": "leaves out what was asked",
    "long": "a step is too long",
}
EVIDENCE_MISTAKES = {
    "prose": "the evidence is not of the form asked for",
    "invented quotation": "the evidence quotes what the report does not say",
    "other reading": "the evidence reads the report otherwise than the rules",
    "finding left out": "the evidence leaves a finding out",
}
FAULTS = (429, 500, "html", "cut", "slow")  # of the server, that pass


def right_replies(lexicon, questions, seed=0):
    """Each prompt of the three calls with (kind, question, the document that answers it)."""
    replies = {}
    for question in questions:
        where = plans.plan(question.named)
        listed = [{"finding": label, "plan": text} for label, text in where.items()]
        replies[prompts.plan(question)] = ("plan", question, {"plan": listed})
        films = ("",) if len(question.references) == 1 else ("reference", "new")
        entries = []
        for film, reference in zip(films, question.references, strict=True):
            told = [evidence_entry(label, reference, film) for label in question.named]
            document = {
                "evidence": [
                    {
                        "finding": entry["finding"],
                        "status": entry["status"] if entry["statement"] else "not mentioned",
                        "statement": entry["statement"],
                    }
                    for entry in told
                ]
            }
            replies[prompts.evidence(question, film, reference.report)] = ("evidence", question, document)
            entries += [{k: v for k, v in entry.items() if k in ("film", "finding", "status")} for entry in told]
        shown = [*entries, *(seen(lexicon, question.reference) if films == ("",) else [])]
        steps = list(by_rules(lexicon, question, seed).reasoning.steps)
        replies[prompts.chain(question, where, shown)] = ("chain", question, {"steps": steps})
    return replies


def writer(lexicon, questions: Sequence, mistake: Callable):
    """A script of `chat_server.serve`: `mistake(kind, question, again)` names what to do in place of the right reply
    ("" for none); `again` is whether a repair is asked for."""
    replies = right_replies(lexicon, questions)

    def script(body, before):
        texts = [message["content"] for message in body["messages"] if message["role"] == "user"]
        kind, question, document = replies[texts[0]]
        name = mistake(kind, question, len(texts) > 1)
        if name in FAULTS:
            return name if before == 0 else json.dumps(document)
        return spoil(lexicon, question, kind, document, name) if name else json.dumps(document)

    return script


def spoil(lexicon, question, kind, document, name):
    """The reply with a mistake."""
    whole = json.dumps(document)
    shapes = {
        "prose": "Certainly! The film shows what it shows.",
        "wrong JSON": json.dumps({"reasoning": "…"}),
        "no list": json.dumps({"steps": "There is edema. The answer is A."}),
        "truncated": whole[: len(whole) * 2 // 3],
        "empty": "",
    }
    if name in shapes:
        return shapes[name]
    return json.dumps(
        {"evidence": _evidence(document["evidence"], name)}
        if kind == "evidence"
        else _chain(lexicon, question, document, name)
    )


def _evidence(entries, name):
    entries = [dict(entry) for entry in entries]
    first = next(entry for entry in entries if entry["finding"] != "No Finding")
    if name == "finding left out":
        return [entry for entry in entries if entry is not first]
    if name == "invented quotation":
        first["statement"] = "A mass is seen behind the heart."
    else:
        first["status"] = "absent" if first["status"] == "present" else "present"
    return entries


def _chain(lexicon, question, document, name):
    """The steps with a mistake."""
    first, *middle, last = document["steps"]
    statuses = question.reference.statuses
    stated = (LABELS.index(label) for label in LABELS[:-1] if statuses[label][:2] == ("absent", "stated"))
    known = {f.concept for f in question.reference.findings}
    new = next(
        c
        for c in (lexicon.concept(n) - 1 for n in ("Kyphosis", "Hiatal Hernia", "Azygos Lobe", "Pectus"))
        if c not in known
    )
    added = {
        "contradiction": wording.present(lexicon, Finding(next(stated, new), 1, 2), 0),
        "invention": wording.present(lexicon, Finding(new, 1, 2), 0),
        "report": "The radiologist reports this as well.",
        "blank": "The XXXX is seen well.",
        "earlier film": "This was so on the prior study.",
        "change": "The heart is unchanged.",
        "long": "The lungs are looked at with care. " * 20,
    }
    if name in added:
        return {"steps": [first, *middle, added[name], last]}
    if name == "no steps":
        return {"steps": []}
    if name == "asked left out":
        ending = f"So the answer is {question.answer}." if question.options else "No more is to be said."
        return {"steps": [first, "No more is needed.", ending]}
    if name == "no answer" and question.options:
        return {"steps": [first, *middle]}
    assert name in ("other answer", "no answer")
    other = "B" if question.answer == "A" else "A"
    return {"steps": [first, *middle, f"So the answer is {other}." if question.options else "That is what is seen."]}
