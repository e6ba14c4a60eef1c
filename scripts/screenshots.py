"""Make the pictures of the README: a sweep's report, MLflow's charts and compare page, and the page of `tlx serve`.

    python scripts/screenshots.py                       with the embedded digits alone; some minutes on 2 cores
    python scripts/screenshots.py --images ROOT         the page shows an image of yours, a folder per class

It needs what `pip install -e ".[dev,serve]"` installs, and Chromium.
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page, sync_playwright

from tl_experiments.tracking.links import charts_link

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "images"
SWEEP = ("-m", "strategy=feature,finetune", "seed=0,1,2", "dataset.train_size=300", "epochs=5")
FEW = ("backbone.image_size=96", "epochs=8", "tracking=none")
WIDE, TALL = {"width": 1500, "height": 900}, {"width": 1200, "height": 1500}
EXPERIMENT = "1"  # the first of a new store
ASSISTANT = '[data-component-id="mlflow.assistant.chat_panel.close"]'
FOLDED = ("perf", "test")  # sections of charts
SETTLED_MS = 4000  # that charts may take to be drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, metavar="ROOT", help="a folder per class, for the page of tlx serve")
    parser.add_argument("--chromium", default=shutil.which("chromium"), metavar="PATH", help="default: the one on PATH")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made, sync_playwright() as playwright:
        desk = Path(made)
        run(desk, *SWEEP)
        if options.images:
            run(desk, "dataset=image_folder", f"dataset.root={options.images.absolute()}", *FEW)
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        take_report(browser.new_page(viewport=TALL), desk)
        take_mlflow(browser.new_page(viewport=WIDE), desk)
        take_page(browser.new_page(viewport=WIDE), desk, "latest" if options.images else "best")
        browser.close()


def run(desk: Path, *overrides: str) -> None:
    subprocess.run([sys.executable, ROOT / "run.py", *overrides], cwd=desk, check=True)


def take_report(page: Page, desk: Path) -> None:
    [report] = desk.glob("outputs/sweeps/*/report.html")
    page.goto(report.as_uri())
    page.wait_for_timeout(SETTLED_MS)
    page.screenshot(path=PICTURES / "report.png")


def take_mlflow(page: Page, desk: Path) -> None:
    """Take the charts of all runs of the sweep, and MLflow's own page that compares them."""
    [plan] = desk.glob("outputs/sweeps/*/plan.json")
    ids = [json.loads(path.read_text())["run_id"] for path in sorted(plan.parent.glob("*/result.json"))]
    tags = {"tl.sweep_id": json.loads(plan.read_text())["uid"], "tl.kind": "run"}
    runs, experiments = (quote(json.dumps(chosen)) for chosen in (ids, [EXPERIMENT]))
    compared = f"#/compare-runs?runs={runs}&experiments={experiments}&workflowType=machine_learning"
    with serving(desk, "ui", path="/") as address:
        take(page, charts_link(EXPERIMENT, tags=tags, server=address), "charts.png")
        take(page, f"{address}/{compared}", "compare.png")


def take_page(page: Page, desk: Path, named: str) -> None:
    with serving(desk, "serve", named, path="/ready") as address:
        page.goto(address)
        page.locator("#examples button").nth(1).click()
        page.wait_for_timeout(SETTLED_MS)
        page.screenshot(path=PICTURES / "serve.png")


def take(page: Page, address: str, name: str) -> None:
    """Take a page of MLflow without its assistant, and from the charts that people look at first."""
    page.goto(address)
    page.wait_for_timeout(3 * SETTLED_MS)
    for open_part in (ASSISTANT, *(f'div[aria-expanded="true"]:has-text("{section}")' for section in FOLDED)):
        if page.locator(open_part).count():
            page.locator(open_part).first.click()
    page.wait_for_timeout(SETTLED_MS)
    page.screenshot(path=PICTURES / name)


@contextmanager
def serving(desk: Path, *verb: str, path: str) -> Iterator[str]:
    """Yield the address of `tlx VERB` once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tl_experiments", *verb, "--port", str(port)]
    server = subprocess.Popen(command, cwd=desk, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}{path}", seconds=120)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=60)


def wait_for(address: str, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


if __name__ == "__main__":
    main()
