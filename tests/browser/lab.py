"""JupyterLab on loopback, and a page of it in headless Chromium, driven as a reader would."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Playwright, Request

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE_MS = 180_000
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
# No question about news on first start, and every cell drawn, not only those on the screen.
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}


def find_chromium() -> str | None:
    """The path of a Chromium or Chrome on this machine, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def require_chromium() -> str:
    """The browser's path; skips without one, or fails under FASTGEN_REQUIRE_CHROMIUM=1 (as CI)."""
    if executable := find_chromium():
        return executable
    reason = "there is no Chromium on this machine; install Chromium or Chrome to run this test"
    if os.environ.get("FASTGEN_REQUIRE_CHROMIUM") == "1":
        pytest.fail(f"{reason} (FASTGEN_REQUIRE_CHROMIUM is set)")
    pytest.skip(reason)


@contextmanager
def jupyter_lab(folder: Path, home: Path) -> Iterator[str]:
    """Serve `folder` with JupyterLab on a free loopback port; yields an address with `{}`.

    The blank takes a notebook's name. Settings and kernels' files go to `home`, so that neither
    reads nor changes the reader's own. Stops the server and its kernels at the end.
    """
    for name, value in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    environment = dict(
        os.environ,
        JUPYTERLAB_SETTINGS_DIR=str(home / "settings"),
        JUPYTERLAB_WORKSPACES_DIR=str(home / "workspaces"),
        JUPYTER_CONFIG_DIR=str(home / "config"),
        JUPYTER_RUNTIME_DIR=str(home / "runtime"),
        IPYTHONDIR=str(home / "ipython"),
        PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    )
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--expose-app-in-browser"]
    command += [
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
    ]
    command += [f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={token}"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    command += ["--ServerApp.allow_root=True", "--LabApp.collaborative=False"]
    log = home / "lab.log"
    address = f"http://127.0.0.1:{port}"
    with log.open("w") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            _wait_until_up(f"{address}/api/status?token={token}", server, log)
            # reset: or the workspace would open the last test's notebook again.
            yield f"{address}/lab/tree/{{}}?token={token}&reset"
        finally:
            server.terminate()
            try:
                server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_until_up(status: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(status, timeout=5) as answer:
                assert "started" in json.load(answer)
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


def launch(playwright: Playwright, executable: str, *flags: str) -> Browser:
    """Headless Chromium that can resolve no name but reach 127.0.0.1; `flags` are added."""
    arguments = [*FLAGS, *flags]
    return playwright.chromium.launch(executable_path=executable, headless=True, args=arguments)


class LabPage:
    """One notebook in JupyterLab. `console_errors` and `outside` collect while the page lives."""

    def __init__(self, browser: Browser) -> None:
        self.console_errors: list[str] = []
        self.outside: list[str] = []
        self.page: Page = browser.new_page(viewport={"width": 1200, "height": 1400})
        # Generous: a busy machine is slow, and a working page never waits this long.
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.console_errors.append(str(error)))
        self.page.on("request", self._on_request)

    def open(self, address: str) -> None:
        """Open a notebook and wait until its kernel is connected and idle."""
        self.page.goto(address, wait_until="commit")
        self._wait_until_idle()

    def save_and_reload(self) -> None:
        """Save the notebook, load the page again, and wait for its kernel as `open` does."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        self.page.reload(wait_until="commit")
        self._wait_until_idle()

    def _wait_until_idle(self) -> None:
        self.page.wait_for_function(
            """() => {
                const context = window.jupyterapp?.shell?.currentWidget?.sessionContext;
                const kernel = context?.session?.kernel;
                return kernel?.connectionStatus === 'connected' && kernel?.status === 'idle';
            }""",
        )

    def run_all(self, timeout_s: float) -> list[str]:
        """Run every cell; the errors that cells end in, in words. AssertionError when not done."""
        self.page.evaluate(
            """() => {
                window.runDone = false;
                window.jupyterapp.commands.execute('notebook:run-all-cells')
                    .finally(() => { window.runDone = true; });
            }"""
        )
        self.page.wait_for_function("() => window.runDone", timeout=1000 * timeout_s)
        return self.page.evaluate(
            """() => {
                const cells = [...window.jupyterapp.shell.currentWidget.content.model.cells];
                const wrong = [];
                cells.forEach((cell, index) => {
                    if (cell.type !== 'code' || !cell.sharedModel.source.trim()) return;
                    if (cell.executionCount === null) wrong.push(`cell ${index} did not run`);
                    for (const output of cell.outputs.toJSON()) {
                        if (output.output_type === 'error')
                            wrong.push(`cell ${index}: ${output.ename}: ${output.evalue}`);
                    }
                });
                return wrong;
            }"""
        )

    def nudge_slider(self, index: int, timeout_s: float = 60, key: str = "ArrowRight") -> bool:
        """Press an arrow key five times on a slider; whether the picture beside it changed.

        The picture is the first image widget in the slider's own output.
        """
        handle = self.page.locator(".widget-hslider .noUi-handle").nth(index)
        handle.wait_for(state="attached")
        output = handle.locator("xpath=ancestor::*[contains(@class, 'jp-OutputArea-output')][1]")
        picture = output.locator("img.widget-image").first
        picture.wait_for(state="attached")
        before = self.pixels(picture)
        handle.scroll_into_view_if_needed()
        handle.focus()
        for _ in range(5):
            self.page.keyboard.press(key)
        return self.changed(picture, before, timeout_s)

    def changed(self, picture: Locator, before: str, timeout_s: float = 60) -> bool:
        """Whether an image comes to show other `pixels` than `before`."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.pixels(picture) != before:
                return True
            self.page.wait_for_timeout(100)
        return False

    def close(self) -> None:
        """Close the page."""
        self.page.close()

    @staticmethod
    def pixels(picture: Locator) -> str:
        """What an image shows, as the address of a PNG."""
        return picture.evaluate(
            """async (image) => {
                await image.decode().catch(() => {});
                const canvas = document.createElement('canvas');
                canvas.width = image.naturalWidth;
                canvas.height = image.naturalHeight;
                canvas.getContext('2d').drawImage(image, 0, 0);
                return canvas.toDataURL('image/png');
            }"""
        )

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.console_errors.append(message.text)

    def _on_request(self, request: Request) -> None:
        inside = ("http://127.0.0.1:", "ws://127.0.0.1:", "blob:", "data:")
        if not request.url.startswith(inside):
            self.outside.append(request.url)
