"""The process reward for other trainers: decoded text in, numbers out, on the host. Imports neither jax nor flax.

    from chestx_jax.rewards.adapters import trl_reward, verl_score

TRL: `GRPOTrainer(reward_funcs=[trl_reward], …)` with a data set that has a column `report`. verl: `compute_score` of a
custom reward file.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from chestx_jax.lexicon import load
from chestx_jax.rewards.texts import Item, score_texts

Message = Mapping[str, Any]


def trl_reward(
    completions: Sequence[str | Sequence[Message]],
    report: Sequence[str | Sequence[str]],
    question: Sequence[str] | None = None,
    answer: Sequence[str] | None = None,
    task: Sequence[str] | None = None,
    **columns: Any,
) -> list[float]:
    """The process reward of each completion, in [-1, 1], as TRL calls a reward function.

    A completion is text, or a chat's messages, of which the last is read. `report` and the optional columns have one
    entry a completion, as TRL repeats them; two reports are the earlier and the current one. `columns`: ignored.
    """
    blank = [""] * len(completions)
    rows = zip(completions, report, question or blank, task or blank, answer or blank, strict=True)
    items = [Item(_completion(text), _reports(texts), asked, kind, gold) for text, texts, asked, kind, gold in rows]
    return [score.process for score in score_texts(load(), items)]


def verl_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """The score of one solution, as verl calls `compute_score`: the mean of format, accuracy and process.

    `ground_truth` is the gold answer; `extra_info` has `report` (one text, or the earlier and the current one), and
    may have `question` and `task`. Without a report the process term is left out, without a gold answer the other two.
    """
    info = extra_info or {}
    reports = _reports(info.get("report") or ())
    answer = "" if ground_truth is None else str(ground_truth)
    item = Item(solution_str, reports, info.get("question", ""), info.get("task", ""), answer)
    scored = score_texts(load(), [item])[0]
    terms = {name: value for name, value in scored.terms.items() if name in ("format", "accuracy")}
    if reports:
        terms["process"] = scored.process
    return {"score": sum(terms.values()) / max(len(terms), 1), **terms}


def _completion(completion: str | Sequence[Message]) -> str:
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _reports(report: str | Sequence[str]) -> tuple[str, ...]:
    return (report,) if isinstance(report, str) else tuple(report)
