"""Names on the hub: fetched once through the cache, pinned by revision, offline too. The hub is a local server here."""

import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest

from chestx_jax.errors import UserError
from chestx_jax.model.hf.hub import resolve

COMMITS = {"main": "1" * 40, "v1": "2" * 40}
FILES = {"1" * 40: {"config.json": b'{"age": "new"}'}, "2" * 40: {"config.json": b'{"age": "old"}', "x.bin": b"no"}}


class Hub(http.server.BaseHTTPRequestHandler):
    """The two routes a snapshot needs: a revision's file list, and the files."""

    def do_GET(self):
        self.server.requests.append(self.path)
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"] and parts[2:4] == ["owner", "film-reader"]:
            commit = COMMITS.get(parts[5], parts[5]) if len(parts) > 5 else COMMITS["main"]
            if "tree" in parts:
                listed = [
                    {"type": "file", "path": name, "size": len(content), "oid": name}
                    for name, content in FILES[commit].items()
                ]
                return self.reply(200, json.dumps(listed).encode())
            listed = [{"rfilename": name} for name in FILES[commit]]
            answer = {"id": "owner/film-reader", "sha": commit, "siblings": listed}
            return self.reply(200, json.dumps(answer).encode())
        if parts[:3] == ["owner", "film-reader", "resolve"]:
            commit = COMMITS.get(parts[3], parts[3])
            if parts[4] in FILES[commit]:
                return self.reply(200, FILES[commit][parts[4]], {"X-Repo-Commit": commit, "ETag": f'"{commit[:4]}"'})
        return self.reply(404, b"", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def reply(self, status, body, headers=()):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        """Silence: requests are kept in `requests`."""


@pytest.fixture
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.requests = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(path, hub, home, offline="0"):
    """`resolve(path)` in a process of its own: huggingface_hub reads its environment when it is imported."""
    endpoint = f"http://127.0.0.1:{hub.server_address[1]}"
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": offline, "NO_PROXY": "127.0.0.1"}
    program = f"from chestx_jax.model.hf.hub import resolve; print(resolve({path!r}))"
    root = pathlib.Path(__file__).resolve().parents[3]
    return subprocess.run(
        [sys.executable, "-c", program], cwd=root, env={**os.environ, **settings}, capture_output=True, text=True
    )


def test_names_are_fetched_once_and_pinned(hub, tmp_path):
    process = fetch("owner/film-reader", hub, tmp_path)
    assert process.returncode == 0, process.stderr
    folder = pathlib.Path(process.stdout.strip())
    assert json.loads((folder / "config.json").read_text()) == {"age": "new"}
    pinned = pathlib.Path(fetch("owner/film-reader@v1", hub, tmp_path).stdout.strip())
    assert json.loads((pinned / "config.json").read_text()) == {"age": "old"}
    assert [path.name for path in pinned.iterdir()] == ["config.json"]
    requests = len(hub.requests)
    again = fetch("owner/film-reader", hub, tmp_path, offline="1")
    assert again.stdout.strip() == str(folder)
    assert len(hub.requests) == requests


@pytest.mark.parametrize(("path", "offline"), [("owner/nothing", "0"), ("owner/film-reader", "1")])
def test_what_cannot_be_fetched_is_one_sentence(hub, tmp_path, path, offline):
    process = fetch(path, hub, tmp_path, offline)
    assert process.returncode == 1
    assert f"chestx_jax.errors.UserError: {path} is no folder here and could not be fetched" in process.stderr


def test_folders_are_used_as_they_are_and_other_names_refused(tmp_path):
    assert resolve(tmp_path) == tmp_path
    for path in (tmp_path / "missing", "nothing here", "./owner/name", "name"):
        with pytest.raises(UserError, match="is no folder"):
            resolve(path)
