"""The page in a real browser: clicks, keys, scrubbing, steering, maps, reload and links."""

import pytest

from tests.serve.browser_tab import DESKTOP, PHONE, Tab, open_tab
from tests.serve.serve_process import ServeProcess
from tests.support.served_runs import CONCEPTS, STAGES, STRONGEST, TARGETS, vector


@pytest.fixture(scope="module")
def server(made):
    with ServeProcess(f"--run={made.folder}", "--port=0") as process:
        yield process


@pytest.fixture
def tab(browser, server):
    with open_tab(browser, server) as opened:
        yield opened
        assert not opened.messages


def ranked(made, target, stage, concept):
    effects = made.effects[TARGETS.index(target), STAGES.index(stage), CONCEPTS.index(concept)]
    return [made.clips[i] for i in (-effects).argsort(kind="stable")]


def test_it_opens_on_the_strongest_test_with_the_map_of_its_top_clip(tab, made):
    top = ranked(made, *STRONGEST)
    tab.until_drawn(top[0], f"{STRONGEST[0]} gradcam@convs.2 map")
    assert "supports" in tab.page.inner_text("#finding")
    assert [t[-15:] for t in tab.texts("#cards .card span:last-child")] == [name[-15:] for name in top[:24]]
    query = tab.query()
    assert (query["clip"], query["vector"], query["target"]) == (top[0], vector(STRONGEST[2]), STRONGEST[0])
    assert "token" not in query


def test_clicks_choose_class_concept_stage_and_clip(tab, made):
    page, top = tab.page, ranked(made, *STRONGEST)
    tab.until_drawn(top[0])
    page.click("#cards .card >> nth=5")
    tab.until_drawn(top[5], "map")
    assert 0 < float(tab.until("document.body.dataset.clickMs")) < 5000
    assert page.get_attribute("#cards .card >> nth=5", "aria-current") == "true"
    page.select_option("#vector", vector("ball"))
    page.select_option("#stage", STAGES[0])
    tab.until_data("list", "#".join(["all", STRONGEST[0], STAGES[0], vector("ball"), "0"]))
    assert tab.texts("#cards .card span:last-child")[:3] == ranked(made, STRONGEST[0], STAGES[0], "ball")[:3]
    page.select_option("#target", TARGETS[1])
    tab.until_drawn(ranked(made, TARGETS[1], STAGES[0], "ball")[0])
    assert "not significant" in page.inner_text("#finding")
    page.click("#tests tr:has-text('bat') >> nth=0")
    tab.until("document.querySelector('#vector').value === 'bat/dynamic/random'")
    page.select_option("#task", "attribute")
    tab.until("document.querySelector('#list-title').textContent.includes('class score')")
    tab.until_drawn("small_5_000059", "map")
    assert not page.is_visible("#vector") and not page.is_visible("#steering")
    page.click("#more-filters summary")
    assert page.is_visible("#text") and not page.is_visible("#answers") and not page.is_visible("#notice")


def test_lists_are_sorted_filtered_and_paged(tab, made):
    page, top = tab.page, ranked(made, *STRONGEST)
    page.select_option("#sort", "up")
    tab.until(f"document.querySelector('#cards .card').title === {top[-1]!r}")
    page.click("#next")
    tab.until(f"document.querySelector('#cards .card').title === {top[-25]!r}")
    assert "25 to 48 of 60" in page.inner_text("#pages") and tab.query()["page"] == "1"
    page.click("#more-filters summary")
    page.fill("#text", "_00004")
    tab.until("document.querySelectorAll('#cards .card').length === 10")
    assert "1 to 10 of 10 (60 without the filter)" in page.inner_text("#pages")
    page.fill("#text", "")
    page.select_option("#answers", "wrong")
    tab.until("document.querySelector('#pages').textContent.includes('without the filter')")
    page.select_option("#answers", "all")
    tab.until("document.querySelectorAll('#cards .card').length === 24")
    box = page.locator("#histogram").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"], box["y"] + 10, steps=3)
    page.mouse.up()
    tab.until("document.querySelector('#pages').textContent.includes('60 without')")
    values = [float(text.replace("−", "-")) for text in tab.texts("#cards .card .value")]
    assert float(tab.query()["min"]) <= min(values)
    page.click("#histogram")
    tab.until("document.querySelector('#pages').textContent.includes('of 60')")


def test_similar_clips_and_back(tab, made):
    tab.until_drawn(ranked(made, *STRONGEST)[0])
    tab.page.click("#similar")
    tab.until("document.querySelector('#list-title').textContent.startsWith('Similar to')")
    assert tab.page.locator("#cards .card").count() == 12
    first = tab.page.get_attribute("#cards .card", "title")
    tab.page.click("#cards .card")
    tab.until_drawn(first)
    tab.page.keyboard.press("s")
    tab.until("document.querySelectorAll('#cards .card').length === 24")


def test_one_timeline_moves_film_map_and_curves(tab, made):
    page, clip = tab.page, ranked(made, *STRONGEST)[0]
    tab.until_drawn(clip, "map")
    tab.until_data("curves", f"{clip}#0")
    film, curves = tab.pixels("#film"), tab.pixels("#curves")
    box = page.locator("#curves").bounding_box()
    page.mouse.move(box["x"] + 8, box["y"] + 40)
    page.mouse.down()
    frames = []
    for share in (0.25, 0.5, 0.75, 0.99):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + 40)
        page.wait_for_timeout(60)
        frames.append(tab.frame)
    page.mouse.up()
    assert frames == sorted(set(frames)) and frames[-1] == 7
    assert tab.pixels("#film") != film and tab.pixels("#curves") != curves
    assert page.input_value("#frame") == "7" and "frame 8 of 8" in page.inner_text("#time")
    page.mouse.move(box["x"] + 8, box["y"] + 40)
    page.mouse.down()
    page.mouse.up()
    assert tab.frame == 0 and tab.pixels("#film") == film
    page.fill("#frame", "3")
    assert tab.frame == 3
    assert tab.query()["frame"] == "3"
    shown = set()
    for value in ("film", "motion", "map"):
        page.select_option("#show", value)
        tab.until(f"document.body.dataset.shown.endsWith({'film' if value == 'film' else value!r})")
        shown.add(tab.pixels("#film"))
    assert len(shown) == 3
    page.select_option("#map", f"{STRONGEST[0]}|saliency@video")
    tab.until_drawn(clip, "saliency@video")
    assert "8 × 32 × 32 cells" in page.inner_text("#map-facts")


def test_keys(tab, made):
    page, top = tab.page, ranked(made, *STRONGEST)
    tab.until_drawn(top[0], "map")
    for key, frame in (
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowLeft", 1),
        ("End", 7),
        ("ArrowRight", 7),
        ("Home", 0),
    ):
        page.keyboard.press(key)
        assert tab.frame == frame
    page.keyboard.press(" ")
    tab.until("document.querySelector('#play').textContent === 'Pause' && document.querySelector('#frame').value > 2")
    page.keyboard.press(" ")
    assert page.inner_text("#play") == "Play"
    page.keyboard.press("j")
    tab.until_drawn(top[1])
    page.keyboard.press("k")
    tab.until_drawn(top[0])
    page.keyboard.press("n")
    tab.until("document.querySelector('#pages').textContent.startsWith('25 to')")
    page.keyboard.press("p")
    tab.until("document.querySelector('#pages').textContent.startsWith('1 to')")
    for kind in ("motion", "film", "map"):
        page.keyboard.press("m")
        assert page.input_value("#show") == kind
    page.keyboard.press("+")
    page.keyboard.press("+")
    page.keyboard.press("-")
    tab.until("document.body.dataset.steered?.startsWith('0.5#')")
    page.keyboard.press("0")
    tab.until("document.body.dataset.steered?.startsWith('0#')")
    page.keyboard.press("?")
    assert page.is_visible("#help") and "steer the concept up and down" in page.inner_text("#help")
    page.keyboard.press("Escape")
    assert not page.is_visible("#help")
    page.click("#more-filters summary")
    page.focus("#text")
    page.keyboard.type("jkm?")
    assert page.input_value("#text") == "jkm?" and page.input_value("#show") == "map"


def test_keys_reach_clips_of_the_next_page(tab, made):
    top = ranked(made, *STRONGEST)
    tab.page.click("#cards .card >> nth=23")
    tab.until_drawn(top[23])
    tab.page.keyboard.press("j")
    tab.until_drawn(top[24])


def test_steering_changes_the_answer(tab, made):
    page = tab.page
    tab.until("document.querySelectorAll('#answers-bars .number').length === 4")
    before = tab.texts("#answers-bars .number")
    page.fill("#step", "-3")
    tab.until("document.body.dataset.steered?.startsWith('-3#')")
    after = tab.texts("#answers-bars .number")
    assert after != before and all("→" in text for text in after) and page.inner_text("#step-text") == "−3 steps"
    curve = tab.pixels("#steer-curve")
    page.click("#steer-all")
    tab.until("!document.querySelector('#steering').hasAttribute('aria-busy')")
    page.wait_for_timeout(300)
    assert tab.pixels("#steer-curve") != curve
    assert tab.query()["step"] == "-3"


def test_another_map_is_requested(tab, made):
    page, clip = tab.page, ranked(made, *STRONGEST)[0]
    tab.until_drawn(clip, "map")
    page.click("#map-request summary")
    tab.until("document.querySelectorAll('#request-method option').length > 10")
    page.select_option("#request-method", "layercam")
    page.select_option("#request-stage", "convs.1")
    page.click("#request")
    tab.until_drawn(clip, "layercam@convs.1")
    assert "done: layercam@convs.1" in page.inner_text("#request-state")
    assert tab.query()["map"] == "layercam@convs.1"
    assert page.input_value("#map") == f"{STRONGEST[0]}|layercam@convs.1"
    page.select_option("#request-method", "rollout")
    page.click("#request")
    tab.until("document.querySelector('#request-state').textContent.includes('rollout')")


@pytest.mark.slow
def test_reload_and_link_show_the_same_view(browser, server, made):
    with open_tab(browser, server) as tab:
        page = tab.page
        page.select_option("#vector", vector("ball"))
        page.select_option("#sort", "up")
        page.click("#next")
        page.click("#cards .card >> nth=2")
        page.select_option("#show", "motion")
        page.keyboard.press("Escape")
        page.fill("#frame", "5")
        page.fill("#step", "1.5")
        tab.until("document.body.dataset.steered?.startsWith('1.5#')")
        tab.until("document.body.dataset.shown.endsWith('motion')")
        query = tab.query()
        expected = [page.evaluate("document.body.dataset.shown"), tab.texts("#cards .card .value"), tab.pixels("#film")]
        page.reload()
        link = Tab(page.context, page.url)
        for again in (tab, link):
            again.until("document.body.dataset.steered?.startsWith('1.5#')")
            again.until("document.body.dataset.shown?.endsWith('motion')")
            again.until("document.querySelectorAll('#cards .card').length === 24")
            seen = [again.page.evaluate("document.body.dataset.shown"), again.texts("#cards .card .value")]
            assert [*seen, again.pixels("#film")] == expected and again.query() == query
            assert not again.messages


@pytest.mark.slow
def test_a_link_on_another_site_opens_the_page(browser, server):
    context = browser.new_context()
    page = context.new_page()
    page.route(
        "http://elsewhere.example/",
        lambda route: route.fulfill(
            body=f'<a id="link" href="{server.address}&view=concepts&concept=bat">open</a>', content_type="text/html"
        ),
    )
    page.goto("http://elsewhere.example/")
    page.click("#link")
    page.wait_for_selector("body[data-concept='bat#0']")
    assert "token" not in page.url and "token" not in page.evaluate("document.referrer")
    context.close()


def test_commands_and_python_of_the_view_are_shown(tab):
    tab.until("document.body.dataset.drawn")
    tab.page.click("#reproduce summary")
    tab.until("document.querySelector('pre.python')")
    texts = tab.texts("#recipes pre")
    assert texts[0].startswith("vtcav serve --run=") and "--port=" in texts[0]
    assert "vtcav.attribute(network, clip, 'direction:left', 'gradcam', stage='convs.2')" in texts[-1]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, (820, 1100), PHONE], ids=["desktop", "tablet", "phone"])
def test_every_view_fits_the_screen(browser, server, size, scheme):
    for query in ("", "&view=concepts&concept=ball"):
        with open_tab(browser, server, query, size, scheme) as tab:
            tab.until("document.body.dataset.concept" if query else "document.body.dataset.curves")
            assert tab.page.evaluate("document.documentElement.scrollWidth") <= size[0]
            dark = tab.page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
            assert dark == (scheme == "dark") and not tab.messages


@pytest.mark.slow
def test_names_from_files_are_texts(browser, tmp_path):
    from tests.support.served_runs import make_run

    made = make_run(tmp_path / "run", 3, concept_clips=2)
    nasty = "<img src=x onerror=document.body.dataset.broken=1>"
    for name in ("derivatives.csv", "scores.csv"):
        path = made.folder / name
        path.write_text(path.read_text().replace(",bat,", f",{nasty},"))
    path = made.concepts / "concepts.csv"
    path.write_text(path.read_text().replace("video 0.mp4", nasty).replace("bat,dynamic", f"{nasty},dynamic"))
    with ServeProcess(f"--run={made.folder}", "--port=0") as server, open_tab(browser, server) as tab:
        tab.until("document.body.dataset.drawn")
        assert nasty in tab.page.inner_text("#finding")
        tab.page.keyboard.press("v")
        tab.until("document.body.dataset.concept")
        assert nasty in tab.page.inner_text("#concepts")
        assert not tab.page.evaluate("document.body.dataset.broken") and not tab.messages
