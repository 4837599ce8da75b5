"""The web UI in a real browser: the graph is there, a button builds an asset, its page shows what a person wants to see."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
RECIPE = """
extends: embedded
prompts: {source: {kind: generator, num_prompts: 24}, split: {train: 0.5, validation: 0, test: 0.5}}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH (Debian: apt-get install chromium)"),
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A webserver on loopback with one recipe of our own; no daemon."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "tiny.yaml").write_text(RECIPE)
    (tmp_path / "dagster").mkdir()
    shutil.copy(ROOT / "dagster.yaml", tmp_path / "dagster")
    environment = os.environ | {
        "DAGSTER_HOME": str(tmp_path / "dagster"),
        "RM_ASSETS_HOME": str(tmp_path / "store"),
        "RM_ASSETS_RECIPES": str(tmp_path / "recipes"),
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [BIN / "dagster-webserver", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/server_info", timeout=2).close()
                break
            except (urllib.error.URLError, TimeoutError, ConnectionError):
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def test_the_graph_shows_and_a_button_builds_an_asset(server: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(60_000)
        page.goto(f"{server}/asset-groups")
        page.get_by_text("hub_release").first.wait_for()
        page.screenshot(path=tmp_path / "lineage.png")

        page.goto(f"{server}/assets/prompts?view=partitions&partition=tiny")
        page.get_by_role("button", name="Materialize").first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_text("tiny").first.wait_for()
        page.screenshot(path=tmp_path / "dialog.png")
        dialog.get_by_role("button", name="Launch 1 run").click()
        manifests = tmp_path / "store" / "prompts"
        end = time.monotonic() + 90
        while time.monotonic() < end and not list(manifests.glob("*/manifest.json")):
            time.sleep(0.5)
        assert len(list(manifests.glob("*/manifest.json"))) == 1
        page.goto(f"{server}/assets/prompts?view=partitions&partition=tiny")
        page.get_by_text("data/num_train_prompts").first.wait_for()
        page.get_by_text("prompt chars, median").first.wait_for()
        page.screenshot(path=tmp_path / "prompts.png")
        browser.close()
