"""Headless Chromium over the W3C WebDriver protocol, with the standard library alone, for the tests of the page."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's key of an element reference


def available() -> bool:
    """Whether a browser and its driver are installed."""
    return bool(shutil.which("chromedriver") and (shutil.which("chromium") or shutil.which("google-chrome")))


class Browser:
    """One open page."""

    def __init__(self, base: str, session: str):
        self._base, self._session = base, session

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One protocol command of this session."""
        return _call(f"{self._base}/session/{self._session}{path}", method, body)

    def open(self, url: str) -> None:
        """Loads a page and waits for its load event."""
        self.call("POST", "/url", {"url": url})

    def resize(self, width: int, height: int = 900) -> None:
        """Sets the size of the viewport, below 500 pixels as on a phone, and loads the page anew."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("POST", "/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": size})
        self.call("POST", "/refresh", {})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value a script returns."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def until(self, script: str, seconds: float = 5.0) -> Any:
        """Waits until a script returns something true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = self.run(script)
            if value:
                return value
            time.sleep(0.05)
        raise AssertionError(f"never came true: {script}")

    def press(self, *keys: str) -> None:
        """Presses keys one after another."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def log(self) -> list[dict[str, Any]]:
        """The console's messages so far."""
        return self.call("POST", "/se/log", {"type": "browser"})

    def network(self) -> list[str]:
        """URLs the page asked for, from the performance log."""
        events = [
            json.loads(entry["message"])["message"] for entry in self.call("POST", "/se/log", {"type": "performance"})
        ]
        sent = [event for event in events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def screenshot(self, path: Any) -> None:
        """Saves the whole page as PNG, what lies below the window too."""
        command = {"cmd": "Page.captureScreenshot", "params": {"captureBeyondViewport": True}}
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("POST", "/goog/cdp/execute", command)["data"]))


@contextmanager
def browser(dark: bool = False) -> Iterator[Browser]:
    """Starts driver and browser, and ends them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    base = f"http://127.0.0.1:{port}"
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1400,1200"]
    options = {"args": flags + ["--blink-settings=preferredColorScheme=0"] * dark}
    capabilities = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
    try:
        _wait(base)
        session = _call(f"{base}/session", "POST", {"capabilities": {"alwaysMatch": capabilities}})["sessionId"]
        page = Browser(base, session)
        yield page
        page.call("DELETE", "")
    finally:
        driver.terminate()
        driver.wait(10)


def _wait(base: str) -> None:
    for _ in range(100):
        try:
            _call(f"{base}/status", "GET", None)
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the driver did not start")


def _call(url: str, method: str, body: Any) -> Any:
    data = None if body is None and method != "POST" else json.dumps(body or {}).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["value"]
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(error.read(2000).decode()) from None
