"""A chat-completions server on loopback that misbehaves on purpose, for the tests of the endpoint client."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# What a request gets: text to say, or a fault: 429, 500, 401, "html", "cut", "slow", "empty".
Script = Callable[[dict[str, Any], int], Any]


@dataclass
class Log:
    """What the server saw: requests by their content, and how many were answered."""

    asked: Counter = field(default_factory=Counter)
    answered: Counter = field(default_factory=Counter)
    bodies: list = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)


@contextmanager
def serve(script: Script, stream: bool = True) -> Iterator[tuple[str, Log]]:
    """Runs the server; yields its base URL and its log. `script(body, times_asked)` says what each request gets."""
    log = Log()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            del arguments

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            key = json.dumps(body["messages"], sort_keys=True) + str(body.get("seed"))
            with log.lock:
                before = log.asked[key]
                log.asked[key] += 1
                log.bodies.append(body)
            try:
                if self.answer(script(body, before), body):
                    with log.lock:
                        log.answered[key] += 1
            except (BrokenPipeError, ConnectionResetError):
                return

        def answer(self, what: Any, body: dict[str, Any]) -> bool:
            if what in (429, 500, 401):
                self.reply(what, b"no", "text/plain", {"Retry-After": "0.05"} if what == 429 else {})
                return False
            if what == "html":
                self.reply(200, b"<html><body>gateway</body></html>", "text/html")
                return False
            if what == "slow":
                time.sleep(1.5)
                what = "late"
            if stream and body.get("stream"):
                return self.events(what)
            message = {"choices": [{"message": {"content": what}, "finish_reason": "stop"}], "usage": usage(what)}
            self.reply(200, json.dumps(message).encode(), "application/json")
            return True

        def events(self, what: str) -> bool:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            cut = what == "cut"
            for start in range(0, len(what), 7):
                self.event({"choices": [{"delta": {"content": what[start : start + 7]}}]})
            if cut:
                return False
            self.event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
            self.event({"choices": [], "usage": usage(what)})
            self.wfile.write(b"data: [DONE]\n\n")
            return True

        def event(self, document: Any) -> None:
            self.wfile.write(b"data: " + json.dumps(document).encode() + b"\n\n")
            self.wfile.flush()

        def reply(self, status: int, data: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", log
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def usage(text: str) -> dict[str, int]:
    """Ten prompt tokens and one per word."""
    return {"prompt_tokens": 10, "completion_tokens": len(text.split())}
