"""A headless Chromium that tests drive through chromedriver, with the standard library alone.

The protocol: https://www.w3.org/TR/webdriver2.
Debian's packages chromium and chromium-driver have both programs.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

_SECONDS = 60
_PORT = r"port ([1-9]\d*)"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's id, from the standard


class Browser:
    """A session. Scripts run in the page."""

    def __init__(self, driver: str, session: str) -> None:
        self.driver, self.session = driver, session

    @classmethod
    def start(cls, driver: str, binary: str, profile: Path, *arguments: str) -> Self:
        """A new session of a chromedriver at the address `driver`."""
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        flags += [f"--user-data-dir={profile}", "--disable-background-networking", "--disable-component-update"]
        options = {"binary": binary, "args": [*flags, *arguments]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        started = _call(f"{driver}/session", {"capabilities": {"alwaysMatch": wanted}})
        return cls(driver, started["sessionId"])

    def call(self, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        """One command of the session."""
        return _call(f"{self.driver}/session/{self.session}/{path}", body, method)

    def open(self, address: str) -> None:
        """Goes to a page."""
        self.call("url", {"url": address})

    def run(self, script: str, *arguments: Any) -> Any:
        """What the body of an async function returns, with `arguments` in the page."""
        body = f"const [done, ...args] = [arguments[arguments.length - 1], ...arguments];(async () => {{{script}}})()"
        body += ".then((value) => done({value}), (error) => done({error: String(error)}))"
        answer = self.call("execute/async", {"script": body, "args": list(arguments)})
        assert "error" not in answer, answer["error"]
        return answer.get("value")

    def choose_file(self, selector: str, path: Path) -> None:
        """Gives a file to an <input type="file">."""
        found = self.call("element", {"using": "css selector", "value": selector})
        self.call(f"element/{found[_ELEMENT]}/value", {"text": str(path)})

    def wait_for(self, *states: str) -> str:
        """Waits until the page is in one of the states; returns the state. Fails after a minute."""
        latest = time.monotonic() + _SECONDS
        while (state := self.run("return document.body.dataset.state")) not in states:
            assert time.monotonic() < latest, f"{state}: {self.run('return document.body.innerText')}"
            time.sleep(0.05)
        return str(state)

    def save_screenshot(self, path: Path, width: int = 1200, height: int = 900) -> None:
        """Writes what a window of that size shows, as PNG."""
        self.call("window/rect", {"width": width, "height": height})
        path.write_bytes(base64.b64decode(self.call("screenshot", method="GET")))

    def complaints(self) -> list[str]:
        """What stands in the page's console since the last call, errors and warnings."""
        return [str(entry["message"]) for entry in self.call("se/log", {"type": "browser"})]


def requests_in(log: Path) -> list[tuple[str, str]]:
    """Origin and address of every request that pages and their workers made. log: a browser's, once it has ended.

    Chromium itself asks for updates and the like, of no page's origin; these are left out.
    """
    events = [event.get("params") or {} for event in json.loads(log.read_text("utf-8"))["events"]]
    asked = [(str(event["initiator"]), str(event["url"])) for event in events if {"initiator", "url"} <= event.keys()]
    return [(origin, address) for origin, address in asked if urlsplit(origin).netloc]


@contextmanager
def chromium(folder: Path, *arguments: str) -> Iterator[Browser]:
    """A browser with its profile in a folder, and net.json for `requests_in`.

    Skips the test where Chromium or its driver is not installed.
    """
    binary, program = next(filter(None, map(shutil.which, _BROWSERS)), None), shutil.which("chromedriver")
    if binary is None or program is None:
        pytest.skip("Chromium and chromedriver are not installed (Debian: chromium chromium-driver)")
    environment = {**os.environ, "HOME": str(folder), "DBUS_SESSION_BUS_ADDRESS": "disabled:"}
    process = _start([program, "--port=0"], environment)
    browser = None
    try:
        port = _port_in(process, _PORT)
        log = f"--log-net-log={folder / 'net.json'}"
        browser = Browser.start(f"http://127.0.0.1:{port}", binary, folder / "profile", log, *arguments)
        browser.call("timeouts", {"script": 1000 * _SECONDS})
        yield browser
    finally:
        if browser is not None:
            browser.call("", method="DELETE")
        _stop(process)


@contextmanager
def static_host(folder: Path) -> Iterator[str]:
    """`python -m http.server` on a folder; yields its address."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    process = _start(command)
    try:
        yield f"http://127.0.0.1:{_port_in(process, _PORT)}"
    finally:
        _stop(process)


def _start(command: list[str], env: dict[str, str] | None = None) -> "subprocess.Popen[str]":
    """A program whose standard output is read."""
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)


def _port_in(process: "subprocess.Popen[str]", pattern: str) -> int:
    """The port that a program names on its standard output."""
    assert process.stdout is not None
    for line in process.stdout:
        if match := re.search(pattern, line):
            return int(match.group(1))
    raise AssertionError("the program ended without naming its port")


def _stop(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    process.wait(timeout=_SECONDS)
    assert process.stdout is not None
    process.stdout.close()


def _call(address: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
    """One command of the protocol: what its answer's value is. Fails with the driver's own words."""
    data = json.dumps(body or {}).encode() if method == "POST" else None
    request = urllib.request.Request(address.rstrip("/"), data, {"Content-Type": "application/json"}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the driver is on this machine
    try:
        with opener.open(request, timeout=2 * _SECONDS) as response:
            return json.loads(response.read())["value"]
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(error.read().decode(errors="replace")) from error
