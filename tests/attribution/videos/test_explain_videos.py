"""Maps, tables and animations of a video source: computed values and stored files."""

import csv
import itertools
import json
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from tests.support.cli_runner import command_context
from tests.support.typed import readable
from vtcav_jax import attribution, models
from vtcav_jax.attribution import targets
from vtcav_jax.attribution.motion import reliance, summary
from vtcav_jax.attribution.target_spec import parse_targets
from vtcav_jax.attribution.videos import explain_videos, map_store
from vtcav_jax.attribution.videos.animation_frames import AnimationFrames
from vtcav_jax.attribution.videos.clip_windows import (
    VideoResult,
    Window,
    map_windows_in_batches,
    stream_windows,
    unseen_frames,
)
from vtcav_jax.cli.commands.attribute import AttributeArguments, attribute
from vtcav_jax.cli.commands.attribution_job import RemovalConfig
from vtcav_jax.cli.commands.motion import MotionArguments, measure_motion_reliance
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data import ReadResult, SamplingConfig, open_source
from vtcav_jax.data.decode import MissingFramesError
from vtcav_jax.data.world_export import write_clips
from vtcav_jax.report.animation import maps as map_animations
from vtcav_jax.training.evaluate import predict_source
from vtcav_jax.worlds import make_clips

WORLD = "worlds:small:5:3"
UINT8_CLIPS = SamplingConfig(normalise=False)
CONTEXT = command_context()


@pytest.fixture(scope="module")
def cnn():
    return models.load("worlds_cnn")


def test_targets_are_parsed_from_text(cnn):
    logits = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    shape, left, contrast, group, channel = parse_targets(
        cnn, ["shape", "direction:left", "shape:x vs shape:ring", "flash:red or flash:blue", "convs.1#3"]
    )
    answers = logits[:, :4].argmax(1)
    assert (shape.answers(logits) == answers).all() and (left.answers(logits) == 4).all()
    others = (logits[:, :4].sum(1) - logits[np.arange(3), answers]) / 3
    scores = [np.asarray(targets.as_target(q.target(logits), 3, 16)(jnp.asarray(logits), {})) for q in (shape, left)]
    np.testing.assert_allclose(scores[0], logits[np.arange(3), answers] - others, rtol=1e-5)
    np.testing.assert_allclose(scores[1], logits[:, 4] - logits[:, 5:8].mean(1), rtol=1e-4, atol=1e-6)
    pair = targets.as_target(contrast.target(logits), 3, 16)(jnp.asarray(logits), {})
    np.testing.assert_allclose(pair, logits[:, 2] - logits[:, 1], rtol=1e-5)
    assert group.target(logits) == targets.Group((8, 9), (10, 11)) and channel.target(logits) == targets.Channel(
        "convs.1", 3
    )
    assert all((q.answers(logits) == -1).all() for q in (channel, contrast, group))  # no single class is explained
    assert [q.name for q in parse_targets(cnn, [])] == ["shape", "direction", "flash", "scene"]
    with pytest.raises(ValueError, match=r"no target named 'lefft'.*; 'shape:x vs shape:x': expected two classes"):
        parse_targets(cnn, ["lefft", "shape:x vs shape:x"])


def test_groups_and_siblings_of_a_label_tree_are_targets(cnn):
    groups = {"": ("horizontal", "vertical", "corners"), "corners": ("shape:x", "shape:plus")}
    groups |= {"horizontal": ("direction:left", "direction:right"), "vertical": ("direction:up", "direction:down")}
    network = replace(cnn, groups=groups)
    names = ["corners", "horizontal vs vertical", "horizontal vs siblings", "direction:left vs siblings"]
    group, pair, siblings, left = parse_targets(network, names)
    index = cnn.labels.index
    horizontal, vertical = (
        (index(f"direction:{a}"), index(f"direction:{b}")) for a, b in (("left", "right"), ("up", "down"))
    )
    logits = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    corners = index("shape:x"), index("shape:plus")
    rest = tuple(i for i in range(4) if i not in corners)
    assert group.target(logits) == targets.Group(corners, rest) and (group.answers(logits) == -1).all()
    assert pair.target(logits) == siblings.target(logits) == targets.Group(horizontal, vertical)
    expected = logsumexp(logits[:, horizontal], 1) - logsumexp(logits[:, vertical], 1)
    score = targets.as_target(pair.target(logits), 3, 16)(jnp.asarray(logits), {})
    np.testing.assert_allclose(score, expected, rtol=1e-4)
    pair_score = targets.as_target(left.target(logits), 3, 16)(jnp.asarray(logits), {})
    np.testing.assert_allclose(pair_score, logits[:, horizontal[0]] - logits[:, horizontal[1]], rtol=1e-4)
    every = parse_targets(network, ["* vs siblings", "horizontal vs siblings"])
    assert [spec.name for spec in every] == [
        f"{name} vs siblings" for children in groups.values() for name in children if name != "corners"
    ]
    with pytest.raises(ValueError, match=r"no target named 'horizontl' \(did you mean horizontal\?\)"):
        parse_targets(network, ["horizontl vs siblings"])
    with pytest.raises(ValueError, match="corners has no siblings in the label tree; name another"):
        parse_targets(network, ["corners vs siblings"])
    with pytest.raises(ValueError, match="needs a label tree; pass one with --label_tree=FILE"):
        parse_targets(cnn, ["direction:left vs siblings"])
    with pytest.raises(ValueError, match=r"are of different heads.*all classes of their head"):
        parse_targets(cnn, ["shape:x or flash:red", " or ".join(cnn.labels[4:8])])


@pytest.fixture(scope="module")
def grey_video(tmp_path_factory):
    """21 frames; the grey value of each is its index."""
    import av

    path = tmp_path_factory.mktemp("videos") / "grey.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264rgb", rate=10, options={"qp": "0"})
        stream.height = stream.width = 32
        stream.pix_fmt = "rgb24"
        for i in range(21):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), 10 * i, np.uint8), "rgb24")))
        container.mux(stream.encode(None))
    return path


def test_sliding_windows_cover_each_frame_once(grey_video):
    source = open_source(grey_video)
    for interval, expected in (
        (1, [range(0, 8), range(8, 16), range(13, 21)]),
        (2, [range(0, 16, 2), range(6, 21, 2)]),
    ):
        clip_spec = ClipSpec(frames=8, size=32, interval=interval)
        windows = [
            w
            for w in stream_windows(source, clip_spec, SamplingConfig(), slide_over_video=True, num_workers=0)
            if isinstance(w, Window)
        ]
        assert [w.clip.frames[0].tolist() for w in windows] == [list(r) for r in expected]
        assert [w.last for w in windows] == [False] * (len(expected) - 1) + [True]
        assert all((w.clip.video[0, :, 0, 0, 0] == 10 * w.clip.frames[0]).all() for w in windows)
        fresh = np.concatenate([w.clip.frames[0][new] for w, new in zip(windows, unseen_frames(windows))])
        assert (np.diff(fresh) > 0).all() and fresh[0] == 0 and fresh[-1] == 20
    short = ClipSpec(frames=32, size=32)
    (only,) = map(readable, stream_windows(source, short, SamplingConfig(), slide_over_video=True, num_workers=0))
    assert only.last and only.clip.padded and unseen_frames([only])[0].tolist() == [True] * 21 + [False] * 11
    spread = [
        readable(w).clip.frames[0, 0]
        for w in stream_windows(source, ClipSpec(frames=8, size=32), SamplingConfig(clips_per_video=3), num_workers=0)
    ]
    assert len(spread) == 3 and (np.diff(spread) > 0).all()
    with pytest.raises(ValueError, match="takes consecutive clips"):
        list(stream_windows(source, short, SamplingConfig(clips_per_video=2), slide_over_video=True, num_workers=0))


def test_a_video_that_is_damaged_after_its_first_clip_is_a_failure(grey_video, monkeypatch):
    source = open_source(grey_video)
    read = type(source).read

    def read_damaged(self, i, clip_spec, sampling):
        if sampling.start:
            raise MissingFramesError("frame 8 of 21 cannot be decoded")
        return read(self, i, clip_spec, sampling)

    monkeypatch.setattr(type(source), "read", read_damaged)
    (failure,) = stream_windows(source, ClipSpec(frames=8, size=32), UINT8_CLIPS, slide_over_video=True, num_workers=0)
    assert isinstance(failure, ReadResult) and failure.failure == "frame 8 of 21 cannot be decoded"


@pytest.mark.parametrize(
    ("sampling", "slide_over_video", "size"),
    [(SamplingConfig(clips_per_video=2), False, 2), (SamplingConfig(), True, 4)],
)
def test_a_batch_has_at_most_as_many_clips_as_the_source(grey_video, sampling, slide_over_video, size):
    shapes = []
    (result,) = map_windows_in_batches(
        open_source(grey_video),
        ClipSpec(frames=8, size=32, interval=1),
        sampling,
        lambda videos: shapes.append(videos.shape[0]),
        batch_size=10_000,
        slide_over_video=slide_over_video,
        num_workers=0,
    )
    assert isinstance(result, VideoResult) and shapes == [size]
    assert size // 2 < len(result.windows) <= size


def test_results_are_ordered_by_video_for_any_batch_size(grey_video, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "b.mp4").write_bytes(grey_video.read_bytes())
    (tmp_path / "c.mp4").write_bytes(grey_video.read_bytes())
    clip_spec = ClipSpec(frames=8, size=32)
    for batch in (1, 2, 5):
        shapes = []

        def first_frame(video, shapes=shapes):
            shapes.append(video.shape)
            return video[:, 0, 0, 0, 0] // 10

        out = list(
            map_windows_in_batches(
                open_source(tmp_path),
                clip_spec,
                SamplingConfig(),
                first_frame,
                batch_size=batch,
                slide_over_video=True,
                num_workers=0,
            )
        )
        assert set(shapes) == {(batch, 8, 32, 32, 3)}
        answered = [result for result in out if not isinstance(result, ReadResult)]
        assert [len(result.windows) for result in answered] == [3, 3] and len(out) == 3
        first_frames = [[int(values[row]) for values, row in result.results] for result in answered]
        assert first_frames == [[0, 8, 13]] * 2


def test_methods_are_checked_before_anything_is_computed(cnn):
    questions = parse_targets(cnn, ["shape", "convs.0#1"])
    method_stages = explain_videos.resolve_methods(
        cnn, ["gradcam", "smoothgrad", "lrp_gamma@convs.0"], ["convs.0", "video"], questions
    )
    assert method_stages == (
        ("gradcam", "convs.0"),
        ("gradcam", "video"),
        ("smoothgrad", None),
        ("lrp_gamma", "convs.0"),
    )
    with pytest.raises(ValueError, match="gradcamm") as error:
        explain_videos.resolve_methods(
            cnn, ["gradcamm", "rollout", "smoothgrad@convs.0", "gradcam@convs.9"], [], questions[:1]
        )
    message = str(error.value)
    assert "no method named 'gradcamm'" in message and "need a network with a method attention_path" in message
    assert "omit the stage" in message and "no stage named 'convs.9'" in message
    with pytest.raises(ValueError, match=r"does not depend on convs.2"):
        explain_videos.resolve_methods(cnn, ["gradcam@convs.2"], [], questions)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run two methods for two targets of a CNN on five clips of a synthetic world."""
    folder = tmp_path_factory.mktemp("runs") / "attribution"

    def run(**overrides):
        settings: dict[str, Any] = dict(model="worlds_cnn", videos=WORLD, run=folder, num_workers=0)
        settings |= dict(targets=("direction", "shape:x"), methods=("gradcam@convs.1", "gradient_x_input"))
        attribute(AttributeArguments(**settings | overrides), CONTEXT)
        return folder

    return run


@pytest.mark.slow
def test_removal_methods_print_their_passes_and_store_errors(tmp_path, capsys):
    folder = tmp_path / "run"
    settings: dict[str, Any] = dict(model="worlds_cnn", videos="worlds:small:2:3", run=folder, num_workers=0)
    settings |= dict(targets=("direction", "shape"), animations="none", methods=("lime", "gradient_x_input"))
    attribute(AttributeArguments(**settings, removal=RemovalConfig(budget=60, infill="mean")), CONTEXT)
    plan = capsys.readouterr().out.splitlines()[0]
    assert plan == (
        "plan: videos: 2, targets: 2; forward passes per clip (a backward pass counts as two):"
        " gradient_x_input 3 for each target; lime 52 for all targets together"
    )
    with (folder / "maps.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {r["forward_passes"] for r in rows if r["method"] == "lime"} == {"52"}
    assert all((float(r["sampling_noise"]) > 0) == (r["method"] == "lime") for r in rows)
    with np.load(folder / "maps" / rows[0]["map_file"], allow_pickle=False) as arrays:
        assert arrays["standard_error|shape|lime|video"].shape == arrays["map|shape|lime|video"].shape
    with pytest.raises(ValueError, match="holds a different run"):
        attribute(AttributeArguments(**settings, removal=RemovalConfig(budget=61, infill="mean")), CONTEXT)


@pytest.mark.slow
def test_the_explain_task(run, cnn, capsys):
    folder = run(sanity_clips=3, faithfulness_clips=3)
    with (folder / "maps.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 2 * 2 and len(list((folder / "animations").glob("*.webp"))) == 5
    source = open_source(WORLD)
    clips = np.stack(
        [source.read(i, models.PRESETS["small_cnn"].clip_spec, SamplingConfig()).video[0] for i in range(5)]
    )
    answers = np.asarray(cnn.model(jnp.asarray(clips)))[:, 4:8].argmax(1)
    target = attribution.Margin(4 + answers, (4, 8))
    expected = attribution.attribute(cnn.model, clips, target, "gradcam", "convs.1").map
    scores = np.asarray(attribution.prepare_explanation(cnn.model, clips, target).score_model.score(jnp.asarray(clips)))
    for i, path in enumerate(sorted((folder / "maps").glob("*.npz"))):
        with np.load(path, allow_pickle=False) as arrays:
            size = np.abs(expected[i]).max()
            np.testing.assert_allclose(arrays["map|direction|gradcam|convs.1"][0], expected[i], atol=1e-4 * size)
            assert arrays["map|shape:x|gradient_x_input|video"].shape == (1, 8, 32, 32)
            assert json.loads(str(arrays["about"]))["clip"] == source.items[i].name
        video_rows = [r for r in rows if r["map_file"] == path.name and r["target"] == "direction"]
        assert {r["answer"] for r in video_rows} == {cnn.labels[4 + answers[i]]}
        np.testing.assert_allclose(float(video_rows[0]["score"]), scores[i], rtol=1e-3)
    with (folder / "sanity_checks.csv").open(newline="") as file:
        sanity = {(r["target"], r["method"], r["measure"]): r for r in csv.DictReader(file)}
    assert len(sanity) == 2 * 2 * 6
    share = sanity["shape:x", "gradient_x_input", "mass_outside"]
    assert float(share["low"]) <= float(share["mean"]) <= float(share["high"]) <= 1 and share["n_clips"] == "3"
    with (folder / "faithfulness.csv").open(newline="") as file:
        metric_rows = list(csv.DictReader(file))
    assert {r["target"] for r in metric_rows} == {"direction", "shape:x"}
    assert len({r["map"] for r in metric_rows}) == 2 + 4
    assert {r["n_clips"] for r in metric_rows if r["metric"] == "relevance_gain"} == {"3"}
    before = {path: path.stat().st_mtime_ns for path in (folder / "maps").glob("*.npz")}
    victim = next(iter(before))
    victim.unlink()
    run()  # resumes
    after = {path: path.stat().st_mtime_ns for path in (folder / "maps").glob("*.npz")}
    assert {p for p in before if before[p] != after[p]} == {victim}
    assert "Maps: " in capsys.readouterr().out
    text = (folder / "report" / "index.html").read_text()
    assert text.count('src="data:image/webp;base64,') == 5 and "Sanity checks" in text
    assert "Faithfulness metrics" in text
    with (folder / "profile.csv").open(newline="") as file:
        steps = [r for r in csv.DictReader(file) if r["target"] == "shape:x" and r["method"] == "gradient_x_input"]
    assert len(steps) == 8 and sum(float(r["mass"]) for r in steps) == pytest.approx(1)
    with pytest.raises(ValueError, match="holds a different run"):
        run(methods=("gradcam",))


@pytest.mark.parametrize(("max_frames", "stride"), [(21, 1), (20, 2), (5, 8)])
def test_the_animation_of_a_video_has_each_frame_once_or_evenly_spaced_ones(grey_video, max_frames, stride):
    """Check maps with one step per two frames, from windows of which the last starts early."""
    clip_spec, source = ClipSpec(frames=8, size=32), open_source(grey_video)
    windows = tuple(map(readable, stream_windows(source, clip_spec, UINT8_CLIPS, slide_over_video=True, num_workers=0)))
    steps = np.stack([w.clip.frames[0].reshape(4, 2).mean(1) for w in windows])[..., None, None]  # value: its time
    time_map = attribution.Attribution(steps + np.zeros((3, 4, 2, 2)), "norm", True, 3, "gradcam")
    film = AnimationFrames(max_frames)
    for window in windows:
        film.add(window)
    assert [int(picture[0, 0, 0]) for picture in film.pictures] == [10 * i for i in range(0, 21, stride)]
    maps = explain_videos.VideoMaps(windows, {"q": np.zeros(3, int)}, {"q": np.ones(3)}, {"q": (time_map,)}, film)
    panel = map_animations.map_panel(time_map, unseen_frames(windows), stride)
    np.testing.assert_allclose(panel.map[:, 0, 0], panel.positions * stride)  # each frame has its own map
    frames, rate = map_animations.draw_map_film(maps, ["q"])
    assert len(frames) == -(-21 // stride) and rate == pytest.approx(10)


def test_the_animation_of_a_video_of_one_frame_has_its_first_map():
    time_map = attribution.Attribution(np.ones((1, 2, 2, 2)), "norm", True, 3, "gradcam")
    panel = map_animations.map_panel(time_map, [np.arange(8) == 0])
    assert panel.map.shape == (1, 2, 2) and panel.scale_limit == 1


VIDEO_NUMBERS = itertools.count()


def evidence(answer="left", favourite=0.0, video="", **columns_given):
    """Evidence of a clip with a margin of 4; edited clips of all classes have `favourite` more for left.

    Without `video`, the clip has a source video of its own.
    """
    columns: dict[str, Any] = dict.fromkeys(reliance.ClipMotionRow.__dataclass_fields__, 0.0)
    columns |= dict(clip="c", clip_index=0, target="direction", answer=answer, score=4.0, method="", parts_file="")
    columns |= dict(prediction="")
    columns |= columns_given
    columns["source_video"] = video or str(next(VIDEO_NUMBERS))
    margins = {"score": [columns["score"] * (answer == c) for c in ("left", "up")]}
    for edit in reliance.TIME_EDITS:
        margins[edit] = [columns[f"score_{edit}"] * (answer == c) + favourite * (c == "left") for c in ("left", "up")]
    return reliance.MotionEvidence(reliance.ClipMotionRow(**columns), ("left", "up"), margins)


@pytest.mark.parametrize(
    ("shuffled", "frozen", "verdict"),
    [
        (0.4, 0.2, "motion"),
        (3.9, 3.8, "appearance, not motion"),
        (3.9, 0.1, "not motion, but several moments in any order"),
        (2.6, 0.1, "partly motion"),
    ],
)
def test_verdicts(shuffled, frozen, verdict):
    clips = [
        evidence(score_shuffled=shuffled * w, score_frozen=frozen * w, score=4.0 * w) for w in (0.9, 1.0, 1.0, 1.1, 1.2)
    ]
    whole, left = summary.summarise_by_class(clips)
    assert (whole.answer, left.answer) == ("", "left") and whole.drop_shuffled == pytest.approx(1 - shuffled / 4)
    assert (
        whole.reference == "no preference"
        and whole.drop_shuffled_low <= whole.drop_shuffled <= whole.drop_shuffled_high
    )
    assert summary.motion_sentences([whole])[0].startswith(
        f"direction: {verdict}; over 5 clips of 5 source videos, its"
    )
    none = summary.summarise_by_class([evidence(score=-1.0), evidence(score=0.5)])
    assert "no verdict" in summary.motion_sentences(none)[0]


def test_five_windows_of_one_video_allow_no_conclusion_about_other_videos():
    rng = np.random.default_rng(0)
    windows = [evidence(score_shuffled=x, video="v", changing_mass=x) for x in rng.uniform(0.5, 1.5, 20)]
    (row, _) = summary.summarise_by_class(windows)
    assert (row.n_clips, row.n_videos) == (20, 1) and np.isnan([row.drop_shuffled_low, row.changing_mass_low]).all()
    assert summary.motion_sentences([row])[0].startswith(
        "direction: too few source videos for a conclusion about other videos; over 20 clips of 1 source video, its"
    )
    several = [evidence(score_shuffled=1.0, video=str(i % 4)) for i in range(20)]
    assert "too few source videos" in summary.motion_sentences(summary.summarise_by_class(several))[0]


def test_copies_of_the_clips_of_a_video_do_not_narrow_the_intervals():
    rng = np.random.default_rng(0)
    scores = [dict(score=s, score_shuffled=x) for s, x in rng.uniform(1, 5, (8, 2))]
    single, repeated = (
        summary.summarise_by_class(
            [evidence(video=str(i), changing_mass=s["score"] / 8, **s) for i, s in enumerate(scores) for _ in range(n)]
        )[0]
        for n in (1, 5)
    )
    assert (repeated.n_clips, repeated.n_videos) == (40, 8)
    for name in ("drop_shuffled", "changing_mass"):
        first, second = ([getattr(row, f"{name}{end}") for end in ("", "_low", "_high")] for row in (single, repeated))
        np.testing.assert_allclose(first, second)


def test_a_bias_on_edited_clips_cancels_between_classes():
    """Check a bias of 3 for left on all edited clips: a quarter of the class's own score remains."""
    clips = [evidence(a, 3.0, score_shuffled=1.0, score_frozen=1.0, score=4.0) for a in ("left", "up") * 5]
    rows = {row.answer: row for row in summary.summarise_by_class(clips)}
    assert all(row.drop_shuffled == row.drop_frozen == pytest.approx(0.75) for row in rows.values())
    assert all(row.reference == "other clips" for row in rows.values()) and rows["up"].n_clips == 5


@pytest.mark.slow
def test_the_motion_task(tmp_path, cnn, capsys):
    folder = tmp_path / "motion"
    config = reliance.MotionConfig(shuffles=3, compare_optical_flow=True)
    args = MotionArguments(
        model="worlds_cnn", videos=WORLD, run=folder, targets=("direction", "scene"), config=config, num_workers=0
    )
    measure_motion_reliance(args, CONTEXT)
    with (folder / "motion.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10 and all(row["source_video"] == row["clip"] for row in rows)
    source = open_source(WORLD)
    clip = source.read(2, models.PRESETS["small_cnn"].clip_spec, SamplingConfig()).video
    answer = 4 + int(np.asarray(cnn.model(jnp.asarray(clip)))[0, 4:8].argmax())
    probe = attribution.temporal_probe(cnn.model, clip, attribution.Margin(answer, (4, 8)), baseline=None, shuffles=3)
    clip_row = next(r for r in rows if r["clip"] == source.items[2].name and r["target"] == "direction")
    assert clip_row["answer"] == cnn.labels[answer]
    for name, expected in (
        ("score", probe.score),
        ("drop_shuffled", probe.drop_shuffled),
        ("drop_frozen", probe.drop_frozen),
    ):
        assert float(clip_row[name]) == pytest.approx(float(expected[0]), rel=1e-3)
    shares = 1 - probe.scores_shuffled[0] / float(probe.score[0])
    # With three orders, 1 in 27 bootstrap draws has only the largest share
    interval = float(clip_row["drop_shuffled_low"]), float(clip_row["drop_shuffled_high"])
    assert interval == pytest.approx((shares.min(), shares.max()), rel=1e-3)
    assert clip_row["method"] == "gradient_x_input" and float(clip_row["changing_mass_excess"]) > -1
    with (folder / "motion_classes.csv").open(newline="") as file:
        classes = {(r["target"], r["answer"]): r for r in csv.DictReader(file)}
    assert float(classes["direction", ""]["drop_shuffled"]) > 0.6 > 0.3 > float(classes["scene", ""]["drop_shuffled"])
    (folder / "motion.csv").unlink()
    measure_motion_reliance(args, CONTEXT)
    assert (folder / "motion.csv").exists()
    assert capsys.readouterr().out.count("direction: ") == 2
    text = (folder / "report" / "index.html").read_text()
    assert "<strong>scene: appearance, not motion;</strong>" in text and "moving pixels in the motion part" in text


def test_tables_of_a_video_are_read_back(tmp_path):
    clips = make_clips("small", 1, 0)
    write_clips(clips, tmp_path / "v")
    source = open_source(tmp_path / "v")
    (window,) = map(readable, stream_windows(source, ClipSpec(frames=8, size=32), UINT8_CLIPS, num_workers=0))
    maps = np.zeros((1, 4, 2, 2), np.float32)
    maps[0, 2] = [[1, -2], [0, 0]]
    maps[0, 0, 0, 0] = 1
    cam_map = attribution.Attribution(maps, "norm", True, 3, "gradcam", np.array([0.5]))
    answers, scores = {"a b": np.array([1])}, {"a b": np.array([2.0])}
    video_maps = explain_videos.VideoMaps((window,), answers, scores, {"a b": (cam_map,)}, AnimationFrames())
    map_store.save_maps(tmp_path / "x.npz", video_maps, ("no", "yes"))
    (only,) = map_store.map_rows(tmp_path / "x.npz")
    assert (only.answer, only.score, only.map_sum, only.completeness_gap) == ("yes", 2.0, 0.0, 0.5)
    assert only.peak_time == pytest.approx(5 / 25) and only.peak_share == pytest.approx(0.75)
    assert map_store.video_stem(window.read) == "000000_" + window.read.item.name


def test_the_prediction_of_a_map_is_not_the_class_that_is_explained(cnn):
    logits = np.random.default_rng(1).normal(size=(5, 16)).astype(np.float32)
    logits[:, 4] = -9  # direction:left is never predicted
    names = ["direction:left", "direction", "direction:left vs direction:up", "flash:red or flash:blue", "convs.1#3"]
    *in_heads, channel = parse_targets(cnn, names)
    expected = [4 + logits[:, 4:8].argmax(1)] * 3 + [8 + logits[:, 8:12].argmax(1)]
    for spec, predicted in zip(in_heads, expected, strict=True):
        np.testing.assert_array_equal(spec.predicted_classes(logits), predicted)
    assert (channel.predicted_classes(logits) == -1).all() and not (expected[0] == 4).any()
    source, spec = open_source("worlds:small:4:7"), parse_targets(cnn, ["direction:left"])
    maps = explain_videos.explain_videos(cnn, source, spec, (("gradcam", "convs.2"),), UINT8_CLIPS, num_workers=0)
    answers = [int(result.answers["direction:left"][0]) for result in maps if not isinstance(result, ReadResult)]
    predictions = predict_source(cnn, source, 4, UINT8_CLIPS, num_workers=0)
    assert answers == [4 + int(p[4:8].argmax()) for _, p in predictions if p is not None] and len(set(answers)) > 1
