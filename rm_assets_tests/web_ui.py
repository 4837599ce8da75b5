"""A web UI on loopback with its own instance, store and recipes, and the browser that looks at it."""

import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rm_assets_tests.processes import free_port, wait_for

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium on PATH (Debian: apt-get install chromium)"
)


def instance_folder(folder: Path) -> Path:
    """A DAGSTER_HOME with the settings of the repository's."""
    home = folder / "dagster"
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    return home


@contextmanager
def web_ui(folder: Path, *command: str) -> Iterator[str]:
    """The address of `command --host ... --port ...`, over `folder`'s dagster/, home/ and recipes/; ends with the block."""
    port = free_port()
    environment = os.environ | {
        "DAGSTER_HOME": str(folder / "dagster"),
        "RM_ASSETS_HOME": str(folder / "home"),
        "RM_ASSETS_RECIPES": str(folder / "recipes"),
    }
    options = ["--workspace", "workspace.yaml", "--host", "127.0.0.1", "--port", str(port)]
    with open(folder / "output.txt", "wb") as output:
        process = subprocess.Popen(
            [BIN / command[0], *command[1:], *options], cwd=ROOT, env=environment,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            urllib.request.urlopen(f"{address}/server_info", timeout=2).close()
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False
        return True

    try:
        wait_for(answers, 240, "the webserver")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def browser_page() -> Iterator[Any]:
    """A page of a headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(60_000)
        yield page
        browser.close()
