"""Sections about discovered concepts: the table of a run, and the comparison of two runs."""

import numpy as np

from vtcav_jax.report.build import write_comparison
from vtcav_jax.report.run_reader import open_run_folder
from vtcav_jax.report.sections.discovered import discovered_section
from vtcav_jax.runs.discovery_rows import (
    CLIP_SCORES_NPZ,
    COMPLETENESS_CSV,
    DISCOVERED_CSV,
    CompletenessRow,
    DiscoveredRow,
)
from vtcav_jax.runs.tables import write_rows

VIDEOS = [f"video_{i:02d}" for i in range(30)]


def discovered_run(folder, scores, labels, names=("", "", "")):
    folder.mkdir()
    (folder / "run.json").write_text('{"request": {}}')
    rows = [
        DiscoveredRow(
            f"layers.1/{j:02d}", "layers.1", "nmf", "all", 0.1, 1.5, 0.5, 2.5, 0.01, label, 0.9, 0.8, 1.0, 9, name
        )
        for j, (label, name) in enumerate(zip(labels, names, strict=True))
    ]
    write_rows(folder / DISCOVERED_CSV, DiscoveredRow, rows)
    write_rows(
        folder / COMPLETENESS_CSV, CompletenessRow, [CompletenessRow("layers.1", "shape", 0.8, 0.7, 0.9, 0.3, 15)]
    )
    arrays = {row.concept.replace("/", "|"): scores[:, j] for j, row in enumerate(rows)}
    np.savez(folder / CLIP_SCORES_NPZ, allow_pickle=False, video=np.array(VIDEOS), **arrays)
    return folder


def test_the_table_has_names_labels_and_completeness_and_escapes_them(tmp_path):
    scores = np.random.default_rng(0).normal(size=(30, 3))
    run = open_run_folder(discovered_run(tmp_path / "a", scores, ("<b>", "", "x"), ("ring & bars", "", "")))
    section = discovered_section(run)
    assert section is not None
    assert "<td>layers.1/00: ring &amp; bars</td>" in section.html and "&lt;b&gt;" in section.html
    assert (
        "<td>0.90 (0.80 to 1.00)</td><td>10 %</td><td>1.50 (0.50 to 2.50)</td><td>0.01</td><td>9</td>" in section.html
    )
    assert (
        "3 of 3 concepts have a positive importance (95 % CI over source videos) above that of random" in section.html
    )
    assert "determine 0.80 (0.70 to 0.90) of the predictions of shape above chance" in section.html
    assert "tested on 15 videos to which it was not fitted" in section.html


def test_random_weights_give_a_warning_and_no_answer(tmp_path):
    folder = discovered_run(tmp_path / "a", np.random.default_rng(0).normal(size=(30, 3)), ("", "", ""))
    assert "weights are random. These" not in str(discovered_section(open_run_folder(folder)))
    (folder / "run.json").write_text('{"request": {"task": "tcav", "model": "video_swin_tiny"}}')
    (folder / "flags.txt").write_text("--task=tcav\n--random_weights\n")
    section = discovered_section(open_run_folder(folder))
    assert section is not None and "weights are random. These" in section.html
    assert "With random weights: 3 of 3 concepts" in section.html and 'class="answer"' not in section.html


def test_a_run_with_named_concepts_has_no_such_section(tmp_path):
    (tmp_path / "run.json").write_text('{"request": {}}')
    assert discovered_section(open_run_folder(tmp_path)) is None


def test_concepts_that_behave_alike_are_matched(tmp_path):
    random = np.random.default_rng(0)
    scores = random.normal(size=(30, 3))
    other = np.stack([scores[:, 2], random.normal(size=30), scores[:, 0]], 1) + 0.1 * random.normal(size=(30, 3))
    folders = [
        discovered_run(tmp_path / "swin", scores, ("left", "up", "ring")),
        discovered_run(tmp_path / "cnn", other, ("ring", "", "left")),
    ]
    text = write_comparison(folders).read_text()
    assert "Of 3 concepts of swin and 3 of cnn, 2 pairs behave alike in 30 videos" in text
    assert "<td>layers.1/00</td><td>left</td><td>layers.1/02</td><td>left</td>" in text
    assert "No such counterpart: layers.1/01 of swin." in text and "No such counterpart: layers.1/01 of cnn." in text
