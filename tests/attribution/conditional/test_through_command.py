"""`vtcav attribute --through`: stored relevance, shares, moments, the gallery on the page, label trees, and errors."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.support.cli_runner import command_context
from vtcav_jax import models
from vtcav_jax.attribution.conditional.directions import parse_directions
from vtcav_jax.attribution.conditional.relevance import conditional_relevance
from vtcav_jax.attribution.conditional.summary import find_moment
from vtcav_jax.cli.commands import load_network
from vtcav_jax.cli.commands.attribute import AttributeArguments, attribute
from vtcav_jax.cli.commands.evaluate import EvaluateArguments
from vtcav_jax.fingerprint import fingerprint
from vtcav_jax.report.gallery_pictures import CROP_SIDE, crop_moment
from vtcav_jax.report.run_reader import open_run_folder
from vtcav_jax.report.sections import gallery
from vtcav_jax.runs.conditional_rows import MOMENTS_CSV, SHARES_CSV, MomentRow, ShareRow
from vtcav_jax.runs.discovery_rows import DIRECTIONS_NPZ
from vtcav_jax.runs.tables import read_rows
from vtcav_jax.settings import SettingError
from vtcav_jax.stats import intervals
from vtcav_jax.tcav.vector_file import VECTORS_FILE
from vtcav_jax.worlds import make_clips

pytestmark = pytest.mark.slow

STAGE, CHANNELS, N = "convs.1", 64, 12
TREE = "horizontal\n  direction:left\n  direction:right\nvertical\n  direction:up\n  direction:down\n"


@pytest.fixture(scope="module")
def cnn():
    return models.load("worlds_cnn")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, cnn):
    """A folder of discovered concepts and one of concept vectors, at two stages."""
    root = tmp_path_factory.mktemp("concepts")
    vectors = np.random.default_rng(0).normal(size=(3, CHANNELS)).astype(np.float32)
    (root / "found").mkdir()
    arrays: dict[str, Any] = {f"{STAGE}|{i:02d}": v for i, v in enumerate(vectors)} | {
        "convs.0|00": np.ones(32, np.float32)
    }
    np.savez(root / "found" / DIRECTIONS_NPZ, **arrays)
    (root / "tested").mkdir()
    names = [f"{STAGE}|left/dynamic/random", f"{STAGE}|ring/static/random"]
    about = {"weights": fingerprint(cnn.model), "pool": "all", "norm": dict.fromkeys(names, 1.0), "intercept": {}}
    save_file(dict(zip(names, vectors)), root / "tested" / VECTORS_FILE, metadata={"about": json.dumps(about)})
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory, folders):
    (folders / "tree.txt").write_text(TREE)
    through = (f"{STAGE}#5", f"{folders}/found:{STAGE}/01", f"{folders}/tested:{STAGE}|left/dynamic/random")

    def run(**overrides):
        settings: dict[str, Any] = dict(
            model="worlds_cnn", videos=f"worlds:small:{N}:3", num_workers=0, through=through
        )
        settings |= dict(targets=("direction", "horizontal vs siblings"), methods=("gradcam", "gradient_x_input"))
        settings |= dict(label_tree=folders / "tree.txt", run=tmp_path_factory.getbasetemp() / "through")
        arguments = AttributeArguments(**settings | overrides)
        attribute(arguments, command_context())
        return arguments.run

    return run


@pytest.fixture(scope="module")
def folder(run):
    return run()


def test_stored_relevance_is_that_of_the_library(folder, cnn):
    clips = make_clips("small", n=N, seed=3)
    vector = np.random.default_rng(0).normal(size=(3, CHANNELS)).astype(np.float32)[1]
    paths = sorted((folder / "through").glob("*.npz"))
    assert len(paths) == N
    for name, concept in ((f"{STAGE}#5", 5), (f"{STAGE}/01", vector)):
        whole = conditional_relevance(cnn, clips.frames, "direction", STAGE, concept, "gradient_x_input")
        at_stage = conditional_relevance(
            cnn, clips.frames, "direction", STAGE, concept, "gradient_x_input", map_stage=STAGE
        )
        for i, path in enumerate(paths):
            with np.load(path) as stored:
                size = np.abs(whole.map).max()
                np.testing.assert_allclose(stored[f"map|direction|{name}"][0], whole.map[i], atol=1e-3 * size)
                total = stored[f"total|direction|{name}"][0]
                np.testing.assert_allclose(total, at_stage.map[i].sum(), rtol=1e-3, atol=1e-3)
                if name == f"{STAGE}#5":
                    np.testing.assert_allclose(stored[f"channels|direction|{STAGE}"][0, 5], total, rtol=1e-3, atol=1e-4)


def test_shares_are_sums_over_the_clips_of_a_class(folder):
    rows = read_rows(folder / SHARES_CSV, ShareRow)
    arrays = [np.load(path) for path in sorted((folder / "through").glob("*.npz"))]
    answers = np.array([stored["answer|direction"][0] for stored in arrays])
    for answer in set(answers):
        members = [stored for stored, other in zip(arrays, answers) if other == answer]
        channels = np.stack([stored[f"channels|direction|{STAGE}"][0] for stored in members]).astype(np.float64)
        shares = channels.sum(0) / channels.sum()
        for row in (row for row in rows if row.answer == answer and row.kind == "channel" and not np.isnan(row.share)):
            channel = int(row.concept.rpartition("#")[2])
            assert row.share == pytest.approx(shares[channel], rel=1e-4)
            assert row.rank == 1 + (shares > shares[channel]).sum() and row.n_ranked == CHANNELS
            assert row.share_low <= row.share <= row.share_high and row.n_clips == len(members)
            assert row.random_share == pytest.approx(1 / CHANNELS) and row.random_low < row.random_high
    chosen = {(row.answer, row.concept) for row in rows if row.chosen}
    names = {f"{STAGE}#5", f"{STAGE}/01", f"{STAGE}|left/dynamic/random"}
    assert chosen == {(answer, name) for answer in (*answers, "horizontal vs siblings") for name in names}
    kinds = {row.kind: row.n_ranked for row in rows}
    assert kinds == {"channel": CHANNELS, "discovered concept": 3, "concept vector": 2}
    group = next(row for row in rows if row.answer == "horizontal vs siblings")
    assert group.n_clips == np.isin(answers, ["direction:left", "direction:right"]).sum()


def test_intervals_of_shares_cover_the_true_share():
    random, hits = np.random.default_rng(0), []
    for _ in range(300):
        total = random.lognormal(1, 0.5, 10)
        part = (0.1 + 0.15 * random.normal(size=10)) * total
        _, low, high = intervals.ratio_ci(part, total, units=list("abcdefghij"))
        hits.append(low <= 0.1 <= high)
    assert 0.9 <= np.mean(hits) <= 0.98


def test_a_random_direction_has_the_mean_share_of_a_channel(folder):
    with np.load(sorted((folder / "through").glob("*.npz"))[0]) as stored:
        channels, random = stored[f"channels|direction|{STAGE}"][0], stored[f"random|direction|{STAGE}"][0]
    error = random.std() / len(random) ** 0.5
    assert abs(random.mean() - channels.mean()) < 4 * error


def test_moments_are_of_different_videos_and_the_page_shows_them(folder):
    rows = read_rows(folder / MOMENTS_CSV, MomentRow)
    by_pair: dict[tuple[str, str], list[MomentRow]] = {}
    for row in rows:
        by_pair.setdefault((row.answer, row.concept), []).append(row)
    for pair in by_pair.values():
        assert [row.rank for row in pair] == list(range(1, len(pair) + 1)) and len(pair) <= 4
        assert len({row.source_video for row in pair}) == len(pair)
        values = [row.relevance for row in pair]
        assert values == sorted(values, reverse=True) and values[-1] > 0
    assert all((folder / row.picture).is_file() and (folder / row.animation).is_file() for row in rows)
    text = (folder / "report" / "index.html").read_text()
    section = text[text.index('<section id="gallery">') : text.index('<section id="maps">')]
    assert section.count("data:image/jpeg") == section.count("data:image/webp") == len(rows)
    for title in (
        f"Channel 5 of {STAGE}",
        f"Discovered concept {STAGE}/01",
        "Largest shares",
        "horizontal vs siblings:",
    ):
        assert title in section
    assert set(re.findall(r'src="(\w+):', section)) == {"data"}


def test_a_run_continues_and_refuses_other_channels(run, folder):
    paths = sorted((folder / "through").glob("*.npz"))
    before = {path: path.stat().st_mtime_ns for path in paths}
    paths[0].unlink()
    run()
    assert {path for path in paths if path.stat().st_mtime_ns != before[path]} == {paths[0]}
    with pytest.raises(ValueError, match="holds a different run"):
        run(through=(f"{STAGE}#6",))


def test_the_page_is_bounded(folder, monkeypatch):
    opened = open_run_folder(folder)
    size = gallery.gallery_bytes(opened)
    monkeypatch.setattr(gallery, "MAX_GALLERY_BYTES", size // 2)
    assert 0 < gallery.gallery_bytes(opened) <= size // 2


def test_no_share_without_a_certain_sign_of_the_whole():
    names = ("target", "answer", "gradient_x_input", STAGE, f"{STAGE}#1", "channel 1", "channel", True)
    row = ShareRow(*names, 0.0, 0.0, 0.0, 1, 9, 0.0, 0.0, 0.0, 0.0, 5, 5)
    text = gallery._describe(replace(row, share=float("nan"), relevance=0.2))
    assert text.startswith(f"no share, because the relevances at {STAGE} cancel, or the sign of their sum")
    above = replace(row, share=0.3, share_low=0.2, share_high=0.4, random_low=-0.1, random_high=0.1, random_share=0.05)
    assert "above the range of random directions (−10.0 to 10.0 %, mean 5.0 %)" in gallery._describe(above)
    assert "its interval overlaps the range" in gallery._describe(replace(above, share_low=0.05))
    assert "It counts against the class." in gallery._describe(
        replace(above, share=-0.3, share_low=-0.4, share_high=-0.2)
    )


def test_the_moment_is_where_and_when_positive_relevance_is_largest():
    values = np.zeros((4, 16, 16), np.float32)
    values[2, 4:8, 8:12] = 1
    values[1, 0, 0] = 9  # a single pixel has less in all
    values[3] = -5
    moment = find_moment(values)
    assert (moment.frame, round(moment.y * 16 - 0.5), round(moment.x * 16 - 0.5)) in {
        (2, y, x) for y in (5, 6) for x in (9, 10)
    }
    frames = np.repeat(np.arange(16 * 16, dtype=np.uint8).reshape(1, 16, 16, 1), 3, -1).repeat(4, 0)
    crop = crop_moment(frames, moment)
    assert crop.shape == (CROP_SIDE, CROP_SIDE, 3) and 4 * 16 + 8 in crop[..., 0]


@pytest.mark.parametrize(
    ("through", "message"),
    [
        ("convs.1#64", "convs.1 has channels 0 to 63; there is no channel 64"),
        ("convs.7#1", r"no stage named 'convs.7' \(did you mean convs"),
        ("convs.1", "expected STAGE#CHANNEL, FOLDER:STAGE/NN"),
        ("{}/found:convs.1/09", r"no concept named 'convs.1/09' \(did you mean convs.1/0"),
        ("{}/tested:convs.1|left/static/random", r"no concept named .*did you mean convs.1\|left/dynamic/random"),
        ("{}/nowhere:convs.1/01", "nowhere has neither directions.npz, which discover writes, nor vectors.safetensors"),
    ],
)
def test_faults_of_through_are_errors_before_anything_is_computed(cnn, folders, through, message):
    with pytest.raises(ValueError, match=message):
        parse_directions(cnn, [through.format(folders), f"{STAGE}#1"])


def test_methods_and_targets_that_do_not_suit_are_errors(run):
    with pytest.raises(SettingError, match=r"--through needs one of gradient_x_input, .*; got gradcam"):
        run(methods=("gradcam",))
    with pytest.raises(SettingError, match="named twice"):
        run(through=(f"{STAGE}#5", f"{STAGE}#5"))
    with pytest.raises(SettingError, match=r"does not depend on convs.1"):
        run(targets=("convs.0#1",))
    with pytest.raises(SettingError, match=r"missing_tree.txt cannot be read"):
        run(label_tree=Path("missing_tree.txt"))


def test_classes_without_a_place_in_the_label_tree_are_in_a_note(tmp_path, capsys):
    (tmp_path / "tree.txt").write_text("horizontal\n  direction:left\n  direction:right\n")
    tree = tmp_path / "tree.txt"
    network = load_network(EvaluateArguments(model="worlds_cnn", videos="", run=tmp_path / "run", label_tree=tree))
    assert network.groups["horizontal"] == ("direction:left", "direction:right")
    note = capsys.readouterr().out
    assert "lacks direction:up, direction:down;" in note and "shape" not in note
