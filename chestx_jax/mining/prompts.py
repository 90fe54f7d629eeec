"""What an LLM is asked when it writes reasoning: plan, evidence, chain. A changed word is a new version.

The plan is asked for without the report, so that it cannot give away what the report says; the chain without the
report's words, so that it cannot speak of them.
"""

import json
from collections.abc import Sequence
from typing import Any

from chestx_jax.mining.questions import Question

VERSION = "1"
SYSTEM = "You are a careful chest radiologist who teaches students to read films. You answer with JSON alone."
STATUSES = ("present", "absent", "uncertain", "not mentioned")


def _schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


_TEXT = {"type": "string"}
SCHEMAS = {
    "plan": _schema(plan={"type": "array", "items": _schema(finding=_TEXT, plan=_TEXT)}),
    "evidence": _schema(
        evidence={
            "type": "array",
            "items": _schema(finding=_TEXT, status={"type": "string", "enum": list(STATUSES)}, statement=_TEXT),
        }
    ),
    "chain": _schema(steps={"type": "array", "items": _TEXT}),
}


def plan(question: Question) -> str:
    """Where a reader would look for each finding that the question names, and why."""
    return f"""A question about a chest film follows. Say for each of the findings listed below where on the film you
would look for it and by what you would know it, in one or two sentences each. You have not seen the film: say nothing
of what it shows. Mention nothing that a film cannot show.

Question:
{question.text}

Findings: {", ".join(question.named)}

Reply as {{"plan": [{{"finding": "…", "plan": "…"}}]}}, with the findings named as they are listed."""


def evidence(question: Question, film: str, report: str) -> str:
    """What the report says of each finding, in its own words."""
    which = f" of the {film} film" if film else ""
    return f"""A radiologist's report{which} follows. Say for each finding listed below whether the report calls it
present, absent or uncertain, or does not mention it, and copy the sentence that says so word for word. Where several
do, copy the plainest. A general sentence such as "the lungs are clear" speaks of all that it covers. For what is not
mentioned leave the statement empty.

Report:
{report}

Findings: {", ".join(question.named)}

Reply as {{"evidence": [{{"finding": "…", "status": "present|absent|uncertain|not mentioned", "statement": "…"}}]}}."""


def chain(question: Question, plans: dict[str, str], findings: Sequence[dict[str, str]]) -> str:
    """The reasoning that leads from what is seen to the answer."""
    films = "two films, the reference image and the new image" if len(question.references) > 1 else "one chest film"
    looking = "\n".join(f"- {finding}: {text}" for finding, text in plans.items())
    answer = question.answer
    if question.options:
        answer = f"{answer}) {', '.join(question.options[ord(answer) - 65])}"
    return f"""Write how a radiologist reasons while looking at {films}, from the question to the answer: four to eight
steps of one or two short sentences. Begin with what the question needs and where to look; go through the findings in
the order of a systematic reading; say of each what is seen and what it means; end in the answer.

- Speak as one who sees the film. Never mention a report, a text, evidence, a plan or another reader.
- Speak of no earlier or later film than those shown, and of no change unless two films are shown.
- State nothing that is not in the findings below: no other finding, side, place or severity.
- What is absent or not mentioned is called absent. What is uncertain is called possible.
- Name every finding below. The last step must name the answer: {answer!r}.

Question:
{question.text}

Where to look:
{looking}

Findings:
{json.dumps(list(findings), ensure_ascii=False, indent=1)}

Reply as {{"steps": ["…", "…"]}}."""


def repair(problems: Sequence[str]) -> str:
    """What is said to a reply that cannot be used."""
    listed = "\n".join(f"- {problem}" for problem in problems)
    return f"""This cannot be used:
{listed}

Write the whole again, mended, in the same form."""
