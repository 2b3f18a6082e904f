"""The review of concepts in a real browser: two tabs, and a server that is killed."""

import csv
import time

import pytest

from tests.serve.browser_tab import DESKTOP, Tab, open_tab
from tests.serve.serve_process import ServeProcess


@pytest.fixture(scope="module")
def server(made):
    with ServeProcess(f"--run={made.folder}", "--port=0") as process:
        yield process


@pytest.fixture
def tab(browser, server):
    with open_tab(browser, server) as opened:
        yield opened
        assert not opened.messages


def saved(made):
    path = made.concepts / "review.csv"
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {row["file"]: (row["verdict"], row["name"]) for row in csv.DictReader(file)}


def wait_until(true, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def files_of(concept):
    return [f"{concept}/dynamic/{i:03d}.mp4" for i in range(30)]


@pytest.mark.slow
def test_concepts_are_reviewed_named_merged_and_rejected(tab, made):
    page = tab.page
    page.keyboard.press("v")
    page.click("#concepts button[data-concept=ball]")
    tab.until_data("concept", "ball#0")
    page.click("#concept-cards .card >> nth=1")
    wait_until(lambda: saved(made) == {files_of("ball")[1]: ("reject", "")})
    assert "rejected" in page.inner_text("#concept-cards .card >> nth=1")
    page.focus("#concept-cards .card >> nth=3")
    for key in ("k", "r", "ArrowLeft", "u"):  # keeps 3, rejects 4, takes the verdict of 4 back
        page.keyboard.press(key)
    expected = {files_of("ball")[1]: "reject", files_of("ball")[3]: "keep", files_of("ball")[4]: ""}
    wait_until(lambda: {file: verdict for file, (verdict, _) in saved(made).items()} == expected)
    page.fill("#concept-name", "globe")
    page.press("#concept-name", "Enter")
    wait_until(lambda: all(saved(made).get(file, ("", ""))[1] == "globe" for file in files_of("ball")))
    page.click("#concepts button[data-concept=bat]")
    tab.until_data("concept", "bat#0")
    page.select_option("#merge", "ball")
    wait_until(lambda: all(saved(made).get(file, ("", ""))[1] == "globe" for file in files_of("bat")))
    tab.until("document.querySelector('#concept-title').textContent === 'globe (bat)'")
    page.click("#reject-concept")
    wait_until(lambda: all(saved(made)[file] == ("reject", "globe") for file in files_of("bat")))
    tab.until("document.querySelector('#concepts [aria-current=true]').textContent.includes('0 of 30')")
    page.click("#concept-next")
    tab.until_data("concept", "bat#1")
    assert page.locator("#concept-cards .card").count() == 6
    page.reload()
    tab.until_data("concept", "bat#1")
    tab.until("document.querySelector('#concept-title').textContent === 'globe (bat)'")


@pytest.mark.slow
def test_two_tabs_lose_nothing_of_each_other(browser, server, made):
    with open_tab(browser, server, "&view=concepts&concept=ball") as first:
        second = Tab(first.page.context, f"http://127.0.0.1:{server.port}/?view=concepts&concept=ball")
        for tab in (first, second):
            tab.until_data("concept", "ball#0")
        first.page.click("#concept-cards .card >> nth=0")
        second.page.click("#concept-cards .card >> nth=1")
        wait_until(lambda: len(saved(made)) == 2)
        for tab in (first, second):
            tab.until("document.querySelectorAll('#concept-cards .card.reject').length === 2")
        second.page.click("#concept-cards .card >> nth=0")  # the last verdict of a clip counts
        first.until("document.querySelectorAll('#concept-cards .card.keep').length === 1")
        assert saved(made) == {files_of("ball")[0]: ("keep", ""), files_of("ball")[1]: ("reject", "")}
        assert not first.messages + second.messages


@pytest.mark.slow
def test_a_killed_server_is_reported_and_verdicts_are_sent_when_it_is_back(browser, made):
    with ServeProcess(f"--run={made.folder}", "--port=0") as server:
        port = server.port
        context = browser.new_context(viewport={"width": DESKTOP[0], "height": DESKTOP[1]})
        tab = Tab(context, server.address + "&view=concepts&concept=ball")
        tab.until_data("concept", "ball#0")
        server.kill()
    try:
        tab.page.click("#concept-cards .card >> nth=0")
        tab.until("!document.querySelector('#gone').hidden")
        message = tab.page.inner_text("#gone")
        assert f"restart it with: vtcav serve --run={made.folder} --port={port}" in message
        assert "1 unsaved verdict is kept" in message and not saved(made)
        tab.page.click("#concept-cards .card >> nth=1")
        tab.until("document.querySelector('#gone').textContent.includes('2 unsaved')")
        assert tab.page.locator("#concept-cards .card.reject").count() == 2
        assert "not saved" in tab.page.inner_text("#review-state")
        with ServeProcess(f"--run={made.folder}", f"--port={port}") as server:
            tab.until("document.querySelector('#gone').textContent.includes('was restarted; open the address')")
            assert not saved(made)
            other = Tab(context, server.address + "&view=concepts&concept=ball")
            wait_until(lambda: len(saved(made)) == 2)
            for each in (tab, other):
                each.until("document.querySelector('#gone').hidden")
                each.until("document.querySelectorAll('#concept-cards .card.reject').length === 2")
                each.until("document.body.dataset.unsent === '0'")
            assert {verdict for verdict, _ in saved(made).values()} == {"reject"}
    finally:
        context.close()


def test_only_what_is_of_this_folder_and_possible_is_sent(browser, server, made):
    """Another server may have left verdicts on this port, and a clip may be gone since."""
    entries = [
        {"id": "1", "path": "/another/folder", "file": "ball/dynamic/000.mp4", "verdict": "reject"},
        {"id": "2", "path": str(made.concepts.resolve()), "file": "ball/dynamic/999.mp4", "verdict": "reject"},
        {"id": "3", "path": str(made.concepts.resolve()), "file": "ball/dynamic/001.mp4", "verdict": "keep"},
    ]
    with open_tab(browser, server, "&view=concepts&concept=ball") as tab:
        tab.page.evaluate("entries => localStorage.setItem('vtcav unsent verdicts', JSON.stringify(entries))", entries)
        tab.page.reload()
        wait_until(lambda: saved(made) == {"ball/dynamic/001.mp4": ("keep", "")})
        tab.until("document.body.dataset.unsent === '0'")
        left = tab.page.evaluate("JSON.parse(localStorage.getItem('vtcav unsent verdicts')).map(entry => entry.id)")
        assert left == ["1"] and "999.mp4" in tab.page.inner_text("#review-error")
