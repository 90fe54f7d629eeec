"""A client for any OpenAI-compatible chat endpoint: replies cached on disk, failures retried with back-off.

Standard library only. A reply is cached under the hash of its request before it is used, so a killed run that starts
again pays for no reply twice; failures are not cached.
"""

import email.utils
import hashlib
import http.client
import json
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from chestx_jax.errors import UserError
from chestx_jax.files import write_json

T = TypeVar("T")
R = TypeVar("R")
RETRIED_STATUS = (408, 409, 425, 429, 500, 502, 503, 504, 529)
MAX_REPLY_BYTES = 16_000_000


@dataclass(frozen=True)
class Endpoint:
    """A model behind an API. `url` is the API's base (`http://host:port/v1`); `cache` a folder, one file per reply."""

    model: str
    url: str
    cache: Path
    key: str = ""
    timeout: float = 120.0  # seconds without a byte
    attempts: int = 6
    first_wait: float = 1.0  # seconds before the second attempt, doubled for each further one
    max_wait: float = 60.0
    workers: int = 8
    stream: bool = True
    patience: int = 24  # failed calls in a row after which the endpoint counts as down
    locks: dict[str, threading.Lock] = field(default_factory=dict, compare=False, repr=False)  # by request key


@dataclass(frozen=True)
class Reply:
    """One chat completion. `error` is why there is no text, or empty; token counts are the server's, or None."""

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached: bool = False
    truncated: bool = False
    refused: bool = False
    error: str = ""


class Transient(Exception):
    """A failure that may pass; `wait` is the number of seconds the server wants to be left alone, if it gives one."""

    def __init__(self, problem: str, wait: float | None = None):
        super().__init__(problem)
        self.wait = wait


def parse_model(value: str, cache: Path, **settings: Any) -> Endpoint:
    """The endpoint in `openai:MODEL@URL`; the key is taken from OPENAI_API_KEY. Raises UserError if it is none."""
    match = re.fullmatch(r"openai:(.+)@(https?://\S+)", value)
    if not match:
        raise UserError(
            f"{value!r} names no endpoint; write openai:MODEL@URL, for example openai:gpt-4o@https://api.openai.com/v1"
        )
    return Endpoint(match[1], match[2].rstrip("/"), cache, os.environ.get("OPENAI_API_KEY", ""), **settings)


def request_key(endpoint: Endpoint, body: Mapping[str, Any]) -> str:
    """SHA-256 of the request and the endpoint's address, whether or not the reply is streamed."""
    request = {key: value for key, value in body.items() if key not in ("stream", "stream_options")}
    text = json.dumps({"url": endpoint.url, **request}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def complete(endpoint: Endpoint, messages: Sequence[Mapping[str, Any]], **parameters: Any) -> Reply:
    """One chat completion, from the cache if it is there; failures come back as a `Reply` with an `error`.

    Of threads with the same request at the same time one sends it, and the others wait for its reply.

    Raises:
      UserError: the endpoint refuses the request itself (wrong key, unknown model, malformed request).
    """
    body = {"model": endpoint.model, "messages": list(messages), **parameters}
    key = request_key(endpoint, body)
    path = endpoint.cache / f"{key}.json"
    with endpoint.locks.setdefault(key, threading.Lock()):
        return _cached(path) or _request(endpoint, body, path)


def _request(endpoint: Endpoint, body: dict[str, Any], path: Path) -> Reply:
    if endpoint.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    problem = ""
    for attempt in range(1, endpoint.attempts + 1):
        try:
            reply = _post(endpoint, body)
        except Transient as error:
            problem = str(error)
            if attempt < endpoint.attempts:
                time.sleep(min(endpoint.max_wait, max(error.wait or 0.0, endpoint.first_wait * 2 ** (attempt - 1))))
            continue
        _store(path, reply)
        return reply
    return Reply("", error=f"gave up after {endpoint.attempts} attempts: {problem}")


def call_all(
    endpoint: Endpoint, call: Callable[[T], R], items: Sequence[T], failed: Callable[[R], bool]
) -> Iterator[tuple[T, R]]:
    """`call(item)` for every item, `endpoint.workers` at a time, in the order of completion.

    Ends after `endpoint.patience` failures in a row, since the endpoint is down then. When interrupted, calls in flight
    are waited for (their replies are cached) and no other is started.
    """
    workers = max(1, endpoint.workers)
    pool = ThreadPoolExecutor(workers)
    waiting = iter(items)
    running: dict[Future[R], T] = {}
    failures = 0
    try:
        while True:
            for item in islice(waiting, 2 * workers - len(running)):
                running[pool.submit(call, item)] = item
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                result = future.result()
                failures = failures + 1 if failed(result) else 0
                yield running.pop(future), result
                if failures >= endpoint.patience:
                    return
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _post(endpoint: Endpoint, body: Mapping[str, Any]) -> Reply:
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key}"
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{endpoint.url}/chat/completions", data, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=endpoint.timeout) as response:
            if "event-stream" in response.headers.get("Content-Type", ""):
                return _read_stream(response)
            return _read_reply(response.read(MAX_REPLY_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            detail = " ".join(error.read(500).decode("utf-8", "replace").split())
        if error.code in RETRIED_STATUS:
            raise Transient(
                f"HTTP {error.code} {detail}"[:200], _retry_after(error.headers.get("Retry-After"))
            ) from error
        problem = f"HTTP {error.code} {detail}"[:300]
        raise UserError(f"{endpoint.url} refuses {endpoint.model} ({problem}); check model, key and URL") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, OSError) as error:
        raise Transient(f"{type(error).__name__}: {error}"[:200]) from error


def _read_reply(data: bytes) -> Reply:
    try:
        document = json.loads(data)
        choice = document["choices"][0]
        return _reply(choice["message"], choice.get("finish_reason"), document.get("usage"))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise Transient(f"malformed reply ({type(error).__name__}): {data[:80]!r}") from error


def _read_stream(lines: Any) -> Reply:
    """A server-sent event stream; one that ends without `[DONE]` or a finish reason was cut off."""
    text, refusal, finish, usage, ended = [], [], None, None, False
    for raw in lines:
        line = raw.decode("utf-8", "replace").strip()
        if not line.startswith("data:"):
            continue
        if line[5:].strip() == "[DONE]":
            ended = True
            break
        try:
            event = json.loads(line[5:])
            usage = event.get("usage") or usage
            for choice in event.get("choices") or []:
                delta = choice.get("delta") or {}
                text.append(delta.get("content") or "")
                refusal.append(delta.get("refusal") or "")
                finish = choice.get("finish_reason") or finish
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise Transient(f"malformed event: {line[:80]!r}") from error
    if not (ended or finish):
        raise Transient("the stream ended in the middle")
    return _reply({"content": "".join(text), "refusal": "".join(refusal)}, finish, usage)


def _reply(message: Mapping[str, Any], finish: Any, usage: Any) -> Reply:
    content, refusal = message.get("content"), message.get("refusal")
    if isinstance(content, list):  # some servers send typed parts
        content = "".join(part.get("text", "") for part in content if isinstance(part, Mapping))
    if not isinstance(content, str) and not refusal:
        raise TypeError("the message has no text")
    counts = usage if isinstance(usage, Mapping) else {}
    prompt, completion = (
        counts.get(k) if isinstance(counts.get(k), int) else None for k in ("prompt_tokens", "completion_tokens")
    )
    refused = bool(refusal) or finish == "content_filter"
    return Reply(content or refusal or "", prompt, completion, truncated=finish == "length", refused=refused)


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header, given as a number or as a date."""
    if not value:
        return None
    if value.strip().isdigit():  # RFC 9110: whole seconds, or a date
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _cached(path: Path) -> Reply | None:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Reply(**{**fields, "cached": True})
    except (OSError, ValueError, TypeError):
        return None


def _store(path: Path, reply: Reply) -> None:
    fields = {
        name: getattr(reply, name) for name in ("text", "prompt_tokens", "completion_tokens", "truncated", "refused")
    }
    write_json(path, fields)
