"""The interactive page with 5,000 clips: how long after a click the picture appears, in a real browser.

The run is made by a script (`tests.support.served_runs`): tables and maps of 5,000 clips of a synthetic world. Each
click is on a clip that was not displayed before, so that its film is decoded and its map read from disk. `python -m
benchmarks.serve`; needs playwright and Chromium.
"""

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.timing import Timing, as_row, write_results
from tests.serve.serve_process import ServeProcess
from tests.support.served_runs import CONCEPTS, make_run, vector


def wait_for(page: Any, expression: str, seconds: float = 60.0) -> Any:
    """Return the value of an expression as soon as it is true; the page's policy forbids playwright's own waiting."""
    deadline = time.monotonic() + seconds
    while not (value := page.evaluate(expression)):
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds} seconds: {expression}")
        page.wait_for_timeout(2)
    return value


def memory_mib(process_id: int) -> float:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{process_id}/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def time_clicks(page: Any, clicks: int, seed: int) -> tuple[list[float], list[float]]:
    """Click on random clips of random pages; return the seconds until the film and until the map over it."""
    draw, films, maps, seen = random.Random(seed), [], [], set()
    n_pages = int(page.evaluate("Number(document.querySelector('#pages').textContent.match(/of (\\d+)/)[1])")) // 24
    while len(films) < clicks:
        number = draw.randrange(n_pages)
        page.evaluate(f"import('/assets/state.js').then(module => module.change({{page: {number}}}))")
        wait_for(page, f"document.body.dataset.list?.endsWith('#{number}')")
        card = page.locator("#cards .card").nth(draw.randrange(24))
        if (name := card.get_attribute("title")) in seen:
            continue
        seen.add(name)
        page.wait_for_timeout(700)  # a person looks before the click; the thumbnails are there then
        card.click()
        films.append(float(wait_for(page, "document.body.dataset.clickMs")) / 1000)
        maps.append(float(wait_for(page, "document.body.dataset.mapMs")) / 1000)
    return films, maps


def time_action(page: Any, act: Callable[[int], object], is_done: str, repeats: int) -> list[float]:
    """Return the seconds from an action to the new list."""
    seconds = []
    for i in range(repeats):
        page.evaluate("delete document.body.dataset.list")
        start = time.perf_counter()
        act(i)
        wait_for(page, is_done)
        seconds.append(time.perf_counter() - start)
    return seconds


def measure(folder: Path, n_clips: int, clicks: int) -> list[dict[str, Any]]:
    from playwright.sync_api import sync_playwright  # pyright: ignore[reportMissingImports] (not in the test environment)

    start = time.perf_counter()
    run = make_run(folder / "run", n_clips)
    print(f"made the run in {time.perf_counter() - start:.0f} s", flush=True)
    start = time.perf_counter()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with ServeProcess(f"--run={run.folder}", "--port=0") as server, sync_playwright() as playwright:
        ready = time.perf_counter() - start
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        start = time.perf_counter()
        page.goto(server.address)
        wait_for(page, "document.body.dataset.drawn && document.body.dataset.list")
        opened = time.perf_counter() - start
        page.wait_for_timeout(3000)
        films, maps = time_clicks(page, clicks, seed=0)
        lists = time_action(
            page,
            lambda i: page.select_option("#vector", vector(CONCEPTS[i % 2])),
            "document.body.dataset.list",
            min(clicks, 20),
        )
        similar = time_action(page, lambda _: page.keyboard.press("s"), "document.body.dataset.list", min(clicks, 20))
        rss = memory_mib(server.process.pid)
        browser.close()
    timings = {
        "click to film": films,
        "click to film with map": maps,
        "another concept to the sorted list": lists,
        "similar clips, and back": similar,
    }
    rows: list[dict[str, Any]] = [
        {"what": what, "clips": n_clips, "median_s": round(seconds, 3), "repeats": 1}
        for what, seconds in (("command to address", ready), ("address to first picture", opened))
    ]
    for what, seconds in timings.items():
        timing = as_row(Timing.from_seconds(seconds))
        columns = {name: timing[name] for name in ("median_s", "p10_s", "p90_s", "repeats")}
        rows.append({"what": what, "clips": n_clips, "memory_mib": round(rss), **columns})
        print(f"{what}: median {timing['median_s']:.3f} s, 90 % within {timing['p90_s']:.3f} s", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=5000)
    parser.add_argument("--clicks", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), options.clips, options.clicks)
    write_results("serve", rows)


if __name__ == "__main__":
    main()
