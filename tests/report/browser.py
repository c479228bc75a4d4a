"""Drives a headless Chromium through its developer tools' pipe; nothing but the browser is needed.

Messages are JSON objects that end with a zero byte: the browser reads them from its file descriptor
3 and writes to 4 (`--remote-debugging-pipe`).
"""

import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LIMIT = 60  # seconds to wait for an answer


def find():
    """The browser's program; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def open_page(path: Path, profile: Path, width=1000, height=800):
    """Opens a file, with every request recorded; yields the page."""
    ours_read, theirs_write = os.pipe()
    theirs_read, ours_write = os.pipe()
    options = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run"
    command = (
        f'exec "$0" {options} --remote-debugging-pipe --user-data-dir="$1" '
        f"3<&{theirs_read} 4>&{theirs_write}"
    )
    process = subprocess.Popen(
        ["bash", "-c", command, find(), str(profile)],
        pass_fds=(theirs_read, theirs_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_read)
    os.close(theirs_write)
    try:
        page = Page(ours_read, ours_write)
        page.attach(width, height)
        page.open(path)
        yield page
    finally:
        os.close(ours_write)
        os.close(ours_read)
        process.terminate()
        process.wait(LIMIT)


class Page:
    """A tab and the requests that it made."""

    def __init__(self, read, write):
        self.read, self.write = read, write
        self.numbers, self.rest, self.session = itertools.count(1), b"", None
        self.requests, self.blocked, self.events = [], [], []

    def attach(self, width, height):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = found["sessionId"]
        for domain in ("Network", "Page", "Runtime"):
            self.call(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def open(self, path):
        self.path, self.events = path, []
        self.call("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in self.events:
            self.take()

    def open_again(self):
        """Loads the page anew, as it was."""
        self.requests.clear()
        self.open(self.path)

    def call(self, method, **parameters):
        """Sends a command and waits for its result."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.take()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def take(self):
        """The next message of the browser; events are noted."""
        end = time.monotonic() + LIMIT
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.read], [], [], max(0, end - time.monotonic()))
            chunk = os.read(self.read, 1 << 20) if ready else b""
            assert chunk, "the browser does not answer"
            self.rest += chunk
        text, self.rest = self.rest.split(b"\0", 1)
        message = json.loads(text)
        self.events.append(message.get("method"))
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        if message.get("method") == "Network.loadingFailed":
            self.blocked.append(message["params"].get("blockedReason"))
        return message

    def evaluate(self, expression):
        """The value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key, code):
        """Presses and releases a key."""
        text = {"text": "\r"} if key == "Enter" else {}
        keys = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **keys, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **keys)
