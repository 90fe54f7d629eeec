"""Replies that are JSON documents: a schema goes with each request, and what came back otherwise is asked for again."""

import json
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from chestx_jax.endpoint.client import Endpoint, Reply, complete
from chestx_jax.errors import UserError


class Usage(NamedTuple):
    """Calls and tokens of structured calls; tokens of cached replies are in `saved` since they were paid for before."""

    calls: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    saved: int = 0

    def sum(self, other: "Usage") -> "Usage":
        """Field by field."""
        return Usage(*map(operator.add, self, other))


class Answer(NamedTuple):
    """A reply's document, or None and why there is none; `unreached`: the endpoint gave no reply, so that it can be
    asked again."""

    document: dict[str, Any] | None
    usage: Usage
    problem: str = ""
    unreached: bool = False


def ask(
    endpoint: Endpoint,
    name: str,
    schema: Mapping[str, Any],
    chat: Sequence[Mapping[str, Any]],
    needed: Sequence[str],
    tries: int,
) -> Answer:
    """The document that the chat is answered with, and what it took.

    A reply without the JSON that it should hold (an object with the keys `needed`) is asked for again under another
    seed, up to `tries` times in all.
    """
    usage, problem = Usage(), ""
    form = {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}
    for attempt in range(tries):
        reply = complete(endpoint, chat, temperature=0, seed=attempt, response_format=form)
        usage = usage if reply.error else usage.sum(_usage(reply))
        document = None if reply.error or reply.refused else parse_json(reply.text, needed)
        if document is not None:
            return Answer(document, usage)
        problem = reply.error or ("refused: " if reply.refused else "") + reply.text
        if reply.error:
            return Answer(None, usage, problem, unreached=True)
    return Answer(None, usage, problem)


def parse_json(text: str, needed: Sequence[str]) -> dict[str, Any] | None:
    """The first JSON object in `text` (prose and code fences around it allowed) that has the needed keys."""
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\{", text):
        try:
            document, _ = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict) and all(key in document for key in needed):
            return document
    return None


def dollars(tokens: Mapping[str, int], prices: Sequence[str] | None) -> str:
    """The price of `prompt_tokens` and `completion_tokens`, as text to append; empty without prices. Raises UserError
    unless there are two."""
    if not prices:
        return ""
    try:
        prompt_price, completion_price = (float(price) for price in prices)
    except ValueError:
        raise UserError(
            f"--prices={','.join(prices)}: write two numbers, dollars per million tokens in and out"
        ) from None
    total = tokens["prompt_tokens"] * prompt_price + tokens["completion_tokens"] * completion_price
    return f", {total / 1e6:.2f} dollars"


def _usage(reply: Reply) -> Usage:
    tokens = reply.prompt_tokens or 0, reply.completion_tokens or 0
    return Usage(cached=1, saved=sum(tokens)) if reply.cached else Usage(1, 0, *tokens)
