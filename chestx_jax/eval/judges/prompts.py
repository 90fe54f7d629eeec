"""What the LLM judge is asked, in our own words: the release's four kinds of call. A changed word is a new version."""

import json
from collections.abc import Sequence
from typing import Any

VERSION = "1"
SYSTEM = (
    "You are a careful chest radiologist who checks the reasoning of a reading program. You answer with JSON alone."
)


def _schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


_TEXT, _COUNT = {"type": "string"}, {"type": "integer"}
_OBSERVATIONS = {"type": "array", "items": _schema(observation=_TEXT, status=_TEXT)}
SCHEMAS = {
    "findings": _schema(key_conclusion=_OBSERVATIONS),
    "recall": _schema(recalled_findings=_OBSERVATIONS, recalled_count=_COUNT),
    "precision": _schema(correct_steps=_OBSERVATIONS, correct_count=_COUNT),
    "efficiency": _schema(
        effective_steps={"type": "array", "items": _TEXT}, effective_count=_COUNT, ineffective_count=_COUNT
    ),
}


def findings(reasoning: str) -> str:
    """Which observations a piece of reasoning makes, each with its status."""
    return f"""Below is a piece of reasoning about a chest film. List every observation it makes about the patient, each
once, with the status the text gives it (for example: present, not present, unlikely, unchanged). Leave out definitions
and plans; add nothing the text does not say. If it says two things about one observation, list what it settles on.

Reasoning:
{reasoning or "(empty)"}

Reply as {{"key_conclusion": [{{"observation": "…", "status": "…"}}]}}."""


def recall(reference: Sequence[Any], given: Sequence[Any]) -> str:
    """Which of the reference's observations the prediction makes too."""
    return f"""Two lists of observations about the same chest film follow. For each observation of the reference list
decide whether the model's list says the same thing with the same status, in whatever words. List those that it does.

Reference list:
{_listed(reference)}

Model's list:
{_listed(given)}

Reply as {{"recalled_findings": [{{"observation": "…", "status": "…"}}], "recalled_count": 0}}."""


def precision(report: str, given: Sequence[Any]) -> str:
    """Which of the prediction's observations are true to the report."""
    return f"""A radiologist's report and a model's observations about the same chest film follow. An observation is
correct if the report says so or does not speak against it. What the report does not mention was normal: an unmentioned
finding called absent is correct, called present it is wrong. A general statement is correct unless it misstates the
report. List the correct observations.

Report:
{report or "(empty)"}

Model's observations:
{_listed(given)}

Reply as {{"correct_steps": [{{"observation": "…", "status": "…"}}], "correct_count": 0}}."""


def efficiency(reference: str, reasoning: str) -> str:
    """Which of the prediction's steps the reference reasoning supports."""
    return f"""A reference line of reasoning and a model's reasoning about the same chest film follow. Split the model's
reasoning into its steps. A step is effective if the reference supports what it says, and ineffective if the reference
contradicts it or offers nothing for it. List the effective steps and count both kinds.

Reference:
{reference or "(empty)"}

Model's reasoning:
{reasoning or "(empty)"}

Reply as {{"effective_steps": ["…"], "effective_count": 0, "ineffective_count": 0}}."""


def _listed(observations: Sequence[Any]) -> str:
    return json.dumps(list(observations), ensure_ascii=False) if observations else "(none)"
