"""A headless Chromium, driven through its pipe; nothing but the browser is needed."""

import base64
import contextlib
import json
import os
import shutil
import subprocess

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


class Page:
    """A page in the browser.

    Attributes:
        errors: errors in its console, and requests for anything other than the page itself.
    """

    def __init__(self, to, back):
        self._to, self._back, self._rest = to, back, b""
        self._number, self._session, self.errors = 0, None, []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, path):
        self.errors.clear()
        self._loaded = False
        self._call("Page.navigate", url=path.resolve().as_uri())
        while not self._loaded:
            self._read()

    def do(self, script):
        """The value of a JavaScript expression, through JSON."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key, code=0):
        """Presses a key, as a user does."""
        text = {"Enter": "\r", " ": " "}.get(key)
        for kind in ("keyDown", "keyUp"):
            said = {"key": key, "windowsVirtualKeyCode": code} | ({"text": text} if text and kind == "keyDown" else {})
            self._call("Input.dispatchKeyEvent", type=kind, **said)

    def emulate(self, scheme="light", media="", width=1100, height=900):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", media=media, features=features)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)

    def screenshot(self, whole=True):
        """A PNG of the page."""
        return base64.b64decode(self._call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def pdf(self):
        return base64.b64decode(self._call("Page.printToPDF", printBackground=True)["data"])

    def _call(self, method, **parameters):
        self._number += 1
        own = self._number
        message = {"id": own, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != own:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self):
        while b"\0" not in self._rest:
            more = os.read(self._back, 2**20)
            assert more, "the browser ended"
            self._rest += more
        line, self._rest = self._rest.split(b"\0", 1)
        message = json.loads(line)
        said = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.exceptionThrown":
                self.errors.append(said["exceptionDetails"])
            case "Runtime.consoleAPICalled" if said["type"] in ("error", "warning", "assert"):
                self.errors.append(said["args"])
            case "Log.entryAdded" if said["entry"]["level"] in ("error", "warning"):
                self.errors.append(said["entry"])
            case "Network.requestWillBeSent" if not said["request"]["url"].startswith(("file:", "data:", "about:")):
                self.errors.append(said["request"]["url"])
        return message


@contextlib.contextmanager
def browser(profile):
    """A `Page` of a browser with its profile in the folder `profile`. Skips the test if there is no browser."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("needs Chromium")
    ours, theirs = os.pipe(), os.pipe()
    flags = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --remote-debugging-pipe"
    pipes = f"3<&{ours[0]} 4>&{theirs[1]}"
    command = f'exec "$0" {flags} --user-data-dir="$1" about:blank {pipes}'
    process = subprocess.Popen(
        ["bash", "-c", command, program, str(profile)],
        pass_fds=(ours[0], theirs[1]),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    os.close(ours[0])
    os.close(theirs[1])
    try:
        yield Page(ours[1], theirs[0])
    finally:
        process.terminate()
        process.wait()
        os.close(ours[1])
        os.close(theirs[0])
