"""Review page: its content and, if Chromium is available, its behaviour."""

import csv
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from vtcav_jax import concepts
from vtcav_jax.concepts.concept_table import ConceptClip, write_sets
from vtcav_jax.concepts.review import page as review_page
from vtcav_jax.data.encode import encode_jpeg, encode_lossless_mp4, encode_webm

NASTY = "</script><script>document.body.dataset.broken = 1</script><!-- '\"&@data@script"


def cards(n):
    """Yield cards without files, with ten previews, half of them videos."""
    random = np.random.default_rng(0)
    video = random.integers(0, 256, (5, 8, 14, 14, 3), np.uint8).repeat(8, 2).repeat(8, 3)
    previews = ["data:video/webm;base64," + review_page.base64.b64encode(encode_webm(clip)).decode() for clip in video]
    previews += [
        "data:image/jpeg;base64," + review_page.base64.b64encode(encode_jpeg(clip[0])).decode() for clip in video
    ]
    for i in range(n):
        yield {
            "file": f"c{i % 4}/dynamic/{i}.mp4",
            "sha256": f"{i:064x}",
            "concept": f"concept {i % 4}" if i else NASTY,
            "newName": "",
            "negative": False,
            "kind": ("static", "dynamic")[i % 2],
            "source": NASTY if i == 1 else f"video {i % 7}.mp4",
            "label": "ball",
            "frames": "3 to 18",
            "size": "40 x 30",
            "confidence": None if i % 10 == 9 else round(1 - i / n, 4),
            "verdict": "",
            "preview": previews[i % 10],
        }


def test_the_page_embeds_clips_as_data_and_runs_only_its_script():
    page = review_page.render_review_page(list(cards(12)), NASTY)
    assert page.count("<script") == 2 and page.count("</script>") == 2 and "broken = 1</script>" not in page
    data = re.search('<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert data and [card["sha256"] for card in json.loads(data[1])] == [f"{i:064x}" for i in range(12)]
    assert "http://" not in page and "https://" not in page
    assert "<title>Review of &lt;/script&gt;" in page


def test_previews_are_deterministic_and_static_clips_are_images(tmp_path):
    moving = np.random.default_rng(0).integers(0, 256, (6, 20, 30, 3), np.uint8)
    still = moving[:1].repeat(6, 0)
    for name, pixels in (("dynamic/a.mp4", moving), ("static/b.mp4", still)):
        (tmp_path / "ball" / name).parent.mkdir(parents=True)
        (tmp_path / "ball" / name).write_bytes(encode_lossless_mp4(pixels))
    first = concepts.review_sets(tmp_path)[0].read_bytes()
    assert concepts.review_sets(tmp_path)[0].read_bytes() == first
    assert first.count(b"data:video/webm") == 1 and first.count(b"data:image/jpeg") == 1


def test_previews_are_the_same_on_a_busy_machine():
    video = np.random.default_rng(0).integers(0, 256, (32, 14, 14, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(encode_webm, [video] * 32))) == 1


def test_unreadable_clips_are_reported_and_the_others_displayed(tmp_path):
    (tmp_path / "ball").mkdir()
    (tmp_path / "ball" / "a.mp4").write_bytes(encode_lossless_mp4(np.zeros((6, 20, 30, 3), np.uint8)))
    (tmp_path / "ball" / "b.mp4").write_bytes(b"no video")
    path, failures = concepts.review_sets(tmp_path)
    assert list(failures) == ["ball/b.mp4"] and "not a video" in failures["ball/b.mp4"]
    assert '"file":"ball/a.mp4"' in path.read_text() and "b.mp4" not in path.read_text()


def test_controls_of_a_displayed_clip_are_not_displayed(tmp_path):
    random = np.random.default_rng(0)
    for name in ("dynamic/a", "frozen/a", "frozen/b", "jitter/a"):
        path = tmp_path / "ball" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_lossless_mp4(random.integers(0, 256, (6, 20, 30, 3), np.uint8)))
    page = concepts.review_sets(tmp_path)[0].read_text()
    assert [f"ball/{name}.mp4" in page for name in ("dynamic/a", "frozen/a", "frozen/b", "jitter/a")] == [
        True,
        False,
        True,
        False,
    ]


def opened(browser, path):
    page = browser.new_page(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    messages = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready]")
    return page, messages


def until(page, true):
    """Wait for an expression; the page's policy forbids playwright's own waiting."""
    for _ in range(100):
        if page.evaluate(true):
            return
        page.wait_for_timeout(100)
    pytest.fail(f"not within ten seconds: {true}")


@pytest.mark.slow
def test_verdicts_are_set_saved_and_applied(browser, tmp_path):
    random = np.random.default_rng(0)
    for concept in ("ball", "bat"):
        for i in range(4):
            path = tmp_path / concept / "dynamic" / f"{i}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_lossless_mp4(random.integers(0, 256, (6, 30, 40, 3), np.uint8)))
    page, messages = opened(browser, concepts.review_sets(tmp_path)[0])
    names = page.eval_on_selector_all(".card", "cards => cards.map(card => card.clip.file)")
    assert names == [f"{concept}/dynamic/{i}.mp4" for concept in ("ball", "bat") for i in range(4)]
    until(page, "document.querySelectorAll('video').length == 8")
    until(page, "[...document.querySelectorAll('video')].every(video => video.currentTime > 0)")
    page.click(".card >> nth=1")
    assert "1 rejected" in page.inner_text("#counts") and "not saved" in page.inner_text("#counts")
    page.focus(".card >> nth=4")
    for key in ("k", "r", "r", "ArrowLeft", "u"):  # keeps 4, rejects 5 and 6, reverts 6
        page.keyboard.press(key)
    page.select_option("#concept", " ball")
    assert page.locator(".card").count() == 4
    page.click("#rest")
    with page.expect_download() as download:
        page.click("#save")
    assert "not saved" not in page.inner_text("#counts")
    download.value.save_as(tmp_path / "review.csv")
    with (tmp_path / "review.csv").open(newline="") as file:
        rows = {row["file"]: row["verdict"] for row in csv.DictReader(file)}
    verdicts = ["keep", "reject", "keep", "keep", "keep", "reject"]
    assert rows == dict(zip(names, verdicts)) and download.value.suggested_filename == "review.csv"
    sets = concepts.read_concepts(tmp_path)
    assert [clip.file for clip in sets.rejected] == [names[1], names[5]] and len(sets.clips) == 6
    again, _ = opened(browser, concepts.review_sets(tmp_path)[0])
    assert "4 kept, 2 rejected, 2 not reviewed" in again.inner_text("#counts")
    assert not messages


@pytest.mark.slow
def test_a_stored_verdict_is_revoked_on_the_page(browser, tmp_path):
    clips = []
    for i in range(3):
        path = tmp_path / "ball" / "dynamic" / f"{i}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_lossless_mp4(np.random.default_rng(i).integers(0, 256, (6, 30, 40, 3), np.uint8)))
        clips.append(ConceptClip("ball", "dynamic", path, "", f"ball/dynamic/{i}.mp4", review="reject" if i else ""))
    write_sets(tmp_path, clips)
    page, _ = opened(browser, concepts.review_sets(tmp_path)[0])
    assert "2 rejected" in page.inner_text("#counts")
    page.keyboard.press("r")  # without a selected clip: the first
    assert "3 rejected" in page.inner_text("#counts")
    page.focus(".card >> nth=0")
    page.keyboard.press("u")
    page.focus(".card >> nth=1")
    page.keyboard.press("u")
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "review.csv")
    sets = concepts.read_concepts(tmp_path)
    assert [clip.file for clip in sets.rejected] == ["ball/dynamic/2.mp4"] and sets.clips[1].review == ""


@pytest.mark.slow
def test_concepts_are_renamed_merged_and_rejected(browser, tmp_path):
    clips = []
    for i, concept in enumerate(("layer_00", "layer_01", "layer_02", "random_0")):
        path = tmp_path / concept / "dynamic" / "a.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_lossless_mp4(np.random.default_rng(i).integers(0, 256, (6, 30, 40, 3), np.uint8)))
        clips.append(ConceptClip(concept.replace("_", "/", 1), "dynamic", path, "", f"{concept}/dynamic/a.mp4"))
    clips[-1] = replace(clips[-1], concept="random_0")
    write_sets(tmp_path, clips)
    page, messages = opened(browser, concepts.review_sets(tmp_path)[0])
    assert page.locator("h2 input").count() == 3  # random sets keep their names
    for i in (0, 1):
        page.fill(f"h2 input >> nth={i}", 'the "ring"')
    page.click("h2 button >> nth=2")
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "review.csv")
    sets = concepts.read_concepts(tmp_path)
    assert [clip.concept for clip in sets.clips] == ['the "ring"', 'the "ring"', "random_0"]
    assert [clip.concept for clip in sets.rejected] == ["layer/02"] and not messages
    again, _ = opened(browser, concepts.review_sets(tmp_path)[0])
    with again.expect_download() as download:
        again.click("#save")
    download.value.save_as(tmp_path / "second.csv")
    first, second = (sorted((tmp_path / name).read_text().splitlines()) for name in ("review.csv", "second.csv"))
    assert first == second


@pytest.mark.slow
def test_a_thousand_clips_stay_usable_and_names_are_text(browser, tmp_path):
    path = tmp_path / "review.html"
    path.write_text(review_page.render_review_page(list(cards(1000)), NASTY), encoding="utf-8")
    page, messages = opened(browser, path)
    assert int(page.get_attribute("body", "data-ready")) < 5000
    assert page.locator(".card").count() == 1000 and page.locator("h2").first.inner_text().startswith("</script>")
    assert not page.evaluate("'broken' in document.body.dataset") and not messages
    until(page, "document.querySelectorAll('.view > *').length > 10")
    assert page.locator(".view > *").count() < 200  # only previews near the viewport are loaded
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    until(page, "[...document.querySelectorAll('video')].some(video => video.currentTime > 0)")
    assert page.locator(".view > *").count() < 200
    page.evaluate("document.getElementById('most').value = 0.5")
    page.dispatch_event("#most", "input")
    sure = page.eval_on_selector_all(".card", "cards => cards.map(card => card.clip.confidence)")
    assert all(value is None or value <= 0.5 for value in sure) and 0 < len(sure) < 700
    page.select_option("#sort", "down")
    page.select_option("#concept", " concept 2")
    page.select_option("#kind", " static")
    sure = [v for v in page.eval_on_selector_all(".card", "c => c.map(d => d.clip.confidence)") if v is not None]
    assert sure == sorted(sure, reverse=True) and sure
