"""What this project exists for, done by a person in a browser with a real hub, a real Lab and a real kernel."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.lab import log_in, run_in_new_notebook, save_notebook, start_server, stop_server
from tests.e2e.running_hub import RunningHub, eventually

pytestmark = pytest.mark.browser

NOTE = "For GPU access, please contact your administrator."
WRITE_FILES = """\
from pathlib import Path
Path("results").mkdir(exist_ok=True)
Path("results/numbers.csv").write_text("n,square\\n" + "".join(f"{n},{n*n}\\n" for n in range(1000)))
print("written by", __import__("os").getpid())
"""
WRITE_EVERY_100_MS = """\
import hashlib, threading, time
from pathlib import Path
Path("stream").mkdir(exist_ok=True)
def write():
    for number in range(100000):
        body = f"{number} {time.time()} ".encode() * 200
        content = hashlib.sha256(body).hexdigest().encode() + b"\\n" + body
        Path(f"stream/{number:06d}.txt").write_bytes(content)
        Path("stream/latest.txt").write_bytes(content)
        time.sleep(0.1)
threading.Thread(target=write, daemon=True).start()
"""


def test_a_researcher_finds_the_notebook_again(page: Page, hub: RunningHub, screenshots: Path) -> None:
    log_in(page, hub, "researcher")
    expect(page.get_by_text("Standard Notebook Environment")).to_be_visible()
    expect(page.get_by_text(NOTE)).to_be_visible()
    expect(page.locator("input[type=radio][name=profile]")).to_have_count(1)
    page.screenshot(path=screenshots / "profiles.png", full_page=True)

    said = start_server(page, screenshots, "first")
    assert "home" in said
    assert "saved" in said or "Persist" in said
    run_in_new_notebook(page, WRITE_FILES)
    notebook = hub.home("researcher") / "Untitled.ipynb"
    content = save_notebook(page, notebook)
    page.screenshot(path=screenshots / "notebook.png")
    numbers = (hub.home("researcher") / "results/numbers.csv").read_bytes()
    assert b"written by" in content
    assert numbers.endswith(b"999,998001\n")
    save = hub.home("researcher") / "Save"
    assert save.resolve() == hub.persist("researcher").resolve(), "Save leads to Persist"

    stop_server(page, hub, "researcher")
    page.screenshot(path=screenshots / "stopped.png")
    assert (hub.mirror("researcher") / "Untitled.ipynb").read_bytes() == content
    assert (hub.mirror("researcher") / "results/numbers.csv").read_bytes() == numbers

    page.goto(f"{hub.url}/hub/spawn")
    said = start_server(page, screenshots, "second")
    assert re.search(r"\d+ files", said), said
    assert notebook.read_bytes() == content
    assert (hub.home("researcher") / "results/numbers.csv").read_bytes() == numbers
    expect(page.locator(".jp-DirListing-item", has_text="Untitled.ipynb")).to_be_visible()
    page.screenshot(path=screenshots / "back-again.png")

    took_s = hub.stop()
    assert took_s < 20, f"Ctrl-C took {took_s:.1f} s"
    assert (hub.mirror("researcher") / "Untitled.ipynb").exists()


def test_an_hpc_user_chooses_among_four_profiles_and_hears_of_the_gpu(
    page: Page, hub: RunningHub, screenshots: Path
) -> None:
    log_in(page, hub, "hpc")
    profiles = page.locator("input[type=radio][name=profile]")
    expect(profiles).to_have_count(4)
    for name in ("CPU Only (Basic)", "Single A100 GPU", "Dual A100 GPUs", "Custom Configuration"):
        expect(page.get_by_text(name)).to_be_visible()
    assert page.locator("input[name=profile]:checked").get_attribute("value") == "cpu-basic"
    page.get_by_text("Custom Configuration").click()
    page.screenshot(path=screenshots / "custom.png", full_page=True)
    chosen = {
        option: page.locator(f"#profile-option-custom--{option}").evaluate(
            "e => [e.options[e.selectedIndex].value, [...e.options].map(o => o.value)]"
        )
        for option in ("gpus", "cpus", "memory")
    }
    assert chosen == {
        "gpus": ["1", ["0", "1", "2"]],
        "cpus": ["8", ["2", "4", "8", "16"]],
        "memory": ["32G", ["4G", "8G", "16G", "32G", "64G", "128G"]],
    }
    images = page.locator("#profile-option-custom--image option").all_inner_texts()
    assert images[:3] == ["PyTorch", "TensorFlow", "Data Science"]
    assert len(images) == 4, "and one of the user's own"

    page.get_by_text("Single A100 GPU").click()
    said = start_server(page, screenshots, "gpu")
    assert "GPU check" in said
    page.screenshot(path=screenshots / "lab.png")
    log = (hub.data / "hub" / "hub.log").read_text()
    assert "GPU check" in log, "the verdict is in the log too"


def test_a_power_cut_loses_at_most_three_seconds(page: Page, hub: RunningHub, screenshots: Path) -> None:
    log_in(page, hub, "researcher")
    start_server(page, screenshots, "before")
    run_in_new_notebook(page, WRITE_EVERY_100_MS)
    stream = hub.home("researcher") / "stream"
    eventually("the kernel has written 50 files", lambda: stream.is_dir() and len(list(stream.iterdir())) > 50, 60)

    hub.kill()
    written = {path.name: (path.read_bytes(), path.stat().st_mtime) for path in stream.iterdir()}
    died_at = max(mtime for _, mtime in written.values())
    shutil.rmtree(hub.home("researcher"))  # the node is gone, and the fast home with it

    hub.start()
    page.goto(hub.url)
    if page.locator("#username_input").is_visible():
        log_in(page, hub, "researcher")
    page.goto(f"{hub.url}/hub/spawn")
    start_server(page, screenshots, "after")
    back = {path.name: path.read_bytes() for path in stream.iterdir()}
    for name, content in back.items():
        digest, _, body = content.partition(b"\n")
        assert _sha256(body) == digest.decode(), f"{name} is torn"
    lost = [mtime for name, (_, mtime) in written.items() if name not in back]
    assert all(died_at - mtime <= 3.0 for mtime in lost), f"{len(lost)} files older than 3 s are lost"
    assert len(back) >= 20
    page.screenshot(path=screenshots / "after-the-cut.png")


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
