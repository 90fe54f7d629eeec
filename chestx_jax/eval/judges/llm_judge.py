"""RadRScore by an LLM judge behind an OpenAI-compatible endpoint: the release's calls and record form, our audit trail.

The judged records have the release's fields, so that `judgements.aggregate` reads them; a reply that never became the
JSON it should be is stored as `{"error": …}` and counts as malformed. Each record also carries `judge`: model, prompt
version and tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from chestx_jax.endpoint.client import Endpoint, call_all
from chestx_jax.endpoint.structured import Usage, ask
from chestx_jax.eval.answers.parsing import reasoning_text
from chestx_jax.eval.judges import prompts
from chestx_jax.eval.predictions.accuracy import outcome
from chestx_jax.eval.predictions.records import Prediction, to_record

FIELDS = ("gt_key_finding", "pred_key_finding", "recall_res", "precision_res", "efficiency")
TRIES = 3  # of a call whose reply is not the JSON it should be
NEEDED = {
    "findings": ("key_conclusion",),
    "recall": ("recalled_count",),
    "precision": ("correct_count",),
    "efficiency": ("effective_count", "ineffective_count"),
}


def judge_all(
    endpoint: Endpoint, predictions: Sequence[Prediction], log: Callable[[str], None]
) -> Iterator[tuple[int, dict[str, Any], Usage]]:
    """(index, judged record, usage) as they come, every prediction accounted for.

    Raises:
      UserError: the endpoint refuses the request itself.
    """
    pending = dict(enumerate(predictions))
    judged = call_all(endpoint, partial(_judge, endpoint), list(pending.items()), _unreachable)
    for (index, _), (record, usage) in judged:
        del pending[index]
        for field in FIELDS:
            if "error" in record[field]:
                log(f"item {index}: {field} could not be judged ({record[field]['error'][:80]})")
        yield index, record, usage
    for index, prediction in pending.items():  # the endpoint is down
        yield index, to_record(prediction) | {field: {"error": "not asked"} for field in FIELDS}, Usage()


def estimate(predictions: Sequence[Prediction]) -> dict[str, int]:
    """Calls and tokens that judging will take, at four characters a token: an upper bound, the cache not looked at."""
    characters = 0
    for p in predictions:
        reasoning, gold, report = len(reasoning_text(p.pred)), sum(map(len, p.steps)), sum(map(len, p.reports))
        characters += 2 * (reasoning + gold) + report + (reasoning + gold) // 2 + 5 * 700
    return {
        "calls": 5 * len(predictions),
        "prompt_tokens": characters // 4,
        "completion_tokens": 5 * 150 * len(predictions),
    }


def _judge(endpoint: Endpoint, numbered: tuple[int, Prediction]) -> tuple[dict[str, Any], Usage]:
    _, prediction = numbered
    usage = Usage()

    def call(kind: str, prompt: str) -> dict[str, Any]:
        nonlocal usage
        answer, call_usage = _call(endpoint, kind, prompt)
        usage = usage.sum(call_usage)
        return answer

    reasoning, reference = reasoning_text(prediction.pred), "\n".join(prediction.steps)
    gold = call("findings", prompts.findings(reference))
    given = call("findings", prompts.findings(reasoning))
    observed = [reply.get("key_conclusion") or [] for reply in (gold, given)]
    record = to_record(prediction) | {
        "correct": "yes" if outcome(prediction).correct else "no",
        "gt_key_finding": gold,
        "pred_key_finding": given,
        "recall_res": call("recall", prompts.recall(*observed)),
        "precision_res": call("precision", prompts.precision(_reports(prediction), observed[1])),
        "efficiency": call("efficiency", prompts.efficiency(reference, reasoning)),
    }
    record["judge"] = {"model": endpoint.model, "url": endpoint.url, "prompts": prompts.VERSION, **usage._asdict()}
    return record, usage


def _unreachable(result: tuple[dict[str, Any], Usage]) -> bool:
    """Whether the server was never reached for an item: no call of it came back."""
    record, usage = result
    return usage.calls + usage.cached == 0 and all("error" in record[field] for field in FIELDS)


def _reports(prediction: Prediction) -> str:
    if len(prediction.reports) < 2:
        return "".join(prediction.reports)
    return "\n\n".join(
        f"{name} film: {text}" for name, text in zip(("Reference", "New"), prediction.reports, strict=False)
    )


def _call(endpoint: Endpoint, kind: str, prompt: str) -> tuple[dict[str, Any], Usage]:
    chat = [{"role": "system", "content": prompts.SYSTEM}, {"role": "user", "content": prompt}]
    answer = ask(endpoint, kind, prompts.SCHEMAS[kind], chat, NEEDED[kind], TRIES)
    return answer.document if answer.document is not None else {"error": answer.problem[:500]}, answer.usage
