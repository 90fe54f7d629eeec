"""A client for any OpenAI-compatible chat endpoint: cached on disk, retried with back-off, never asked twice.

Standard library only. A reply is cached under the hash of its request before anyone sees it, so a killed run that
starts again pays for nothing it already has; failures are not cached.
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
from pathlib import Path
from typing import Any, TypeVar

from chestx_jax.errors import UserError
from chestx_jax.files import write_json

T = TypeVar("T")
R = TypeVar("R")
RETRIED = (408, 409, 425, 429, 500, 502, 503, 504, 529)
MOST_BYTES = 16_000_000  # of one reply


@dataclass(frozen=True)
class Endpoint:
    """Where and how to ask. `url` is the API's base (`http://host:port/v1`); `cache` a folder, one file per reply."""

    model: str
    url: str
    cache: Path
    key: str = ""
    timeout: float = 120.0  # seconds without a byte
    attempts: int = 6
    first_wait: float = 1.0  # seconds before the second attempt, doubled each time
    longest_wait: float = 60.0
    workers: int = 8
    stream: bool = True
    patience: int = 24  # failed calls in a row after which it counts as down
    asking: dict[str, threading.Lock] = field(default_factory=dict, compare=False, repr=False)  # by request


@dataclass(frozen=True)
class Reply:
    """What came back. `error` is empty or says why there is no text; token counts are the server's, if it gave any."""

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached: bool = False
    truncated: bool = False
    refused: bool = False
    error: str = ""


class Refused(Exception):
    """The endpoint will not answer however often it is asked (wrong key, unknown model, malformed request)."""


class Transient(Exception):
    """Worth asking again, after `wait` seconds if the server said so."""

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
    """SHA-256 of what is asked of whom, independent of how (streaming, retries)."""
    asked = {key: value for key, value in body.items() if key not in ("stream", "stream_options")}
    text = json.dumps({"url": endpoint.url, **asked}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def ask(endpoint: Endpoint, messages: Sequence[Mapping[str, Any]], **parameters: Any) -> Reply:
    """One chat completion, from the cache if it is there; failures come back as a `Reply` with an `error`.

    Threads that ask the same at the same time ask once: the others wait for the reply.

    Raises:
      Refused: the endpoint rejects the request itself, so that asking on makes no sense.
    """
    body = {"model": endpoint.model, "messages": list(messages), **parameters}
    key = request_key(endpoint, body)
    path = endpoint.cache / f"{key}.json"
    with endpoint.asking.setdefault(key, threading.Lock()):
        return _cached(path) or _ask(endpoint, body, path)


def _ask(endpoint: Endpoint, body: dict[str, Any], path: Path) -> Reply:
    if endpoint.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    problem = ""
    for attempt in range(1, endpoint.attempts + 1):
        try:
            reply = _post(endpoint, body)
        except Transient as error:
            problem = str(error)
            if attempt < endpoint.attempts:
                time.sleep(min(endpoint.longest_wait, max(error.wait or 0.0, endpoint.first_wait * 2 ** (attempt - 1))))
            continue
        _store(path, reply)
        return reply
    return Reply("", error=f"gave up after {endpoint.attempts} attempts: {problem}")


def each(workers: int, work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R]]:
    """`work` on every item, `workers` at a time, in the order of completion.

    When interrupted, calls in flight are waited for (their replies are cached) and none is started any more.
    """
    pool = ThreadPoolExecutor(max_workers=max(1, workers))
    waiting = iter(items)
    running: dict[Future[R], T] = {}
    try:
        while True:
            for item in waiting:
                running[pool.submit(work, item)] = item
                if len(running) >= 2 * workers:
                    break
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def until_down(results: Iterator[tuple[T, R]], failed: Callable[[R], bool], patience: int) -> Iterator[tuple[T, R]]:
    """The results, ended after `patience` failures in a row: an endpoint that is down is not asked to the last item."""
    in_a_row = 0
    for item, result in results:
        in_a_row = in_a_row + 1 if failed(result) else 0
        yield item, result
        if in_a_row >= patience:
            results.close()  # type: ignore[attr-defined]
            return


def _post(endpoint: Endpoint, body: Mapping[str, Any]) -> Reply:
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key}"
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{endpoint.url}/chat/completions", data, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=endpoint.timeout) as response:
            if "event-stream" in response.headers.get("Content-Type", ""):
                return _streamed(response)
            return _whole(response.read(MOST_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            detail = " ".join(error.read(500).decode("utf-8", "replace").split())
        if error.code in RETRIED:
            raise Transient(
                f"HTTP {error.code} {detail}"[:200], _retry_after(error.headers.get("Retry-After"))
            ) from error
        raise Refused(f"HTTP {error.code} {detail}"[:300]) from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, OSError) as error:
        raise Transient(f"{type(error).__name__}: {error}"[:200]) from error


def _whole(data: bytes) -> Reply:
    try:
        document = json.loads(data)
        choice = document["choices"][0]
        return _reply(choice["message"], choice.get("finish_reason"), document.get("usage"))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise Transient(f"malformed reply ({type(error).__name__}): {data[:80]!r}") from error


def _streamed(lines: Any) -> Reply:
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
        found = json.loads(path.read_text(encoding="utf-8"))
        return Reply(**{**found, "cached": True})
    except (OSError, ValueError, TypeError):
        return None


def _store(path: Path, reply: Reply) -> None:
    fields = {
        name: getattr(reply, name) for name in ("text", "prompt_tokens", "completion_tokens", "truncated", "refused")
    }
    write_json(path, fields)
