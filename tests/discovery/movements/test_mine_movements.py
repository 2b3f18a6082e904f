"""Mining of movements from video files with planted people: clips, random sets, tables, pictures, errors."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.cli_runner import run_cli
from tests.support.planted_movements import HEIGHT, SPAN, WIDTH, PlantedSegment, planted_videos
from tests.support.square_videos import file_hashes
from vtcav_jax import concepts
from vtcav_jax.concepts.boxes import Box, intersection, read_boxes, write_boxes
from vtcav_jax.concepts.config import OptionalMiningConfig, parse_concepts
from vtcav_jax.concepts.video_scan import BoxTable
from vtcav_jax.data.decode import decode_frames, probe
from vtcav_jax.data.encode import encode_lossless_mp4
from vtcav_jax.discovery.movements import MovementConfig, MovementReport, mine_movements
from vtcav_jax.discovery.movements.skeleton import BONES, KEYPOINT_INDICES
from vtcav_jax.runs.movement_rows import MOVEMENT_PATHS_NPZ, MOVEMENT_WINDOWS_CSV, MOVEMENTS_JSON, MovementWindowRow
from vtcav_jax.runs.tables import read_rows
from vtcav_jax.settings import SettingError

SHRINKING = 0.4
CONFIG = OptionalMiningConfig(clip_frames=SPAN, num_random_sets=2, max_clips=6, max_clips_per_video=2)
MOVEMENT_CONFIG = MovementConfig(num_movements=4, min_source_videos=4)


def shrink(box: Box) -> Box:
    points = np.array(box.keypoints).reshape(-1, 3) * [SHRINKING, SHRINKING, 1]
    corners = (value * SHRINKING for value in box.corners)
    return box._replace(keypoints=tuple(points.ravel().tolist()), **dict(zip(("x1", "y1", "x2", "y2"), corners)))


def draw_video(boxes: list[Box], n_frames: int, seed: int) -> np.ndarray:
    from PIL import Image, ImageDraw

    random = np.random.default_rng(seed)
    background = random.integers(60, 140, (round(HEIGHT * SHRINKING), round(WIDTH * SHRINKING), 3), np.uint8)
    frames = []
    for i in range(n_frames):
        image = Image.fromarray(background)
        drawing = ImageDraw.Draw(image)
        for box in boxes:
            if box.frame == i:
                points = np.array(box.keypoints).reshape(-1, 3)[list(KEYPOINT_INDICES)]
                for a, b in BONES:
                    if min(points[a, 2], points[b, 2]) > 0.3:
                        drawing.line([tuple(points[a, :2]), tuple(points[b, :2])], fill=(250, 240, 40), width=2)
        frames.append(np.asarray(image))
    return np.stack(frames)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> tuple[Path, list[PlantedSegment]]:
    """Six videos with two people each who raise an arm and squat, and their boxes."""
    out = tmp_path_factory.mktemp("people")
    scans, segments = planted_videos(6, 4, actions=("right arm", "squat"), lose_hips=False)
    tables = {}
    for i, scan in enumerate(scans):
        boxes = [shrink(box) for box in scan.boxes]
        (out / "videos").mkdir(exist_ok=True)
        (out / "videos" / scan.name).write_bytes(encode_lossless_mp4(draw_video(boxes, scan.end, i)))
        tables[scan.name] = tuple(boxes)
    write_boxes(out / "boxes.csv", tables)
    return out, segments


def mine_folder(folder: Path, out: Path, config: OptionalMiningConfig = CONFIG, **settings) -> MovementReport:
    table = BoxTable("poses", read_boxes(folder / "boxes.csv"))
    movement_config = replace(MOVEMENT_CONFIG, **settings)
    return mine_movements(folder / "videos", out, config, movement_config, detector=table)


@pytest.fixture(scope="module")
def mined(folder, tmp_path_factory) -> MovementReport:
    return mine_folder(folder[0], tmp_path_factory.mktemp("mined") / "out")


NAMES = {"right wrist up", "right wrist down", "both knees bend", "both knees straighten"}
PLANTED = {
    "right wrist up": "right arm up",
    "right wrist down": "right arm down",
    "both knees bend": "squat",
    "both knees straighten": "stand up",
}


def test_concept_clips_show_the_movements_and_have_controls(folder, mined):
    sets = concepts.read_concepts(mined.folder)
    assert {name for name in sets.concepts if not name.startswith("random")} == NAMES
    for name in NAMES:
        dynamic = sets.clips_of(name, "dynamic")
        assert len(dynamic) >= 4 and len({clip.source for clip in dynamic}) >= 4
        for clip in dynamic:
            video = int(clip.source.removeprefix("video").removesuffix(".mp4"))
            planted = [s for s in folder[1] if s.video == video and s.movement == PLANTED[name]]
            assert max(len(set(s.frames) & set(clip.frames)) for s in planted) > SPAN / 2
            assert clip.window is not None and len(clip.boxes) == SPAN and clip.confidence == pytest.approx(0.9)
            x1, y1, x2, y2 = clip.window
            assert all(x1 <= b[0] and y1 <= b[1] and b[2] <= x2 and b[3] <= y2 for b in clip.boxes)
        controls = {kind: len(sets.clips_of(name, kind)) for kind in ("frozen", "shuffled", "reversed")}
        assert set(controls.values()) == {len(dynamic)} and sets.clips_of(name, "static")


def test_random_clips_show_the_same_people_at_other_moments(mined):
    sets = concepts.read_concepts(mined.folder)
    negatives = [clip for name in sets.negatives for clip in sets.clips_of(name, "dynamic")]
    assert len(negatives) > 6 and all(clip.label == "person" for clip in negatives)
    positives = [clip for name in NAMES for clip in sets.clips_of(name, "dynamic")]
    for clip in negatives:
        for other in positives:
            if clip.source_sha256 == other.source_sha256:
                shared = set(clip.frames) & set(other.frames)
                boxes = dict(zip(other.frames, other.boxes))
                assert clip.window and not any(intersection(clip.window, boxes[frame]) for frame in shared)
    # Some are of movements: they are no proof of a movement that no random clip has
    uses = {row.use for row in read_rows(mined.folder / MOVEMENT_WINDOWS_CSV, MovementWindowRow)}
    assert {"concept", "random sets", "still"} <= uses


def test_tables_and_pictures_say_what_each_movement_is(folder, mined):
    rows = read_rows(mined.folder / MOVEMENT_WINDOWS_CSV, MovementWindowRow)
    assert len(rows) == len(mined.windows) and {row.video for row in rows} == {f"video{i}.mp4" for i in range(6)}
    record = json.loads((mined.folder / MOVEMENTS_JSON).read_text())
    assert record["asked"]["num_movements"] == 4 and record["rand_index"]["mean"] == mined.rand_index[0]
    with np.load(mined.folder / MOVEMENT_PATHS_NPZ, allow_pickle=False) as paths:
        assert {len(path) for path in paths.values()} == {8} and len(paths.files) == 4
    page = (mined.folder / "review.html").read_text()
    assert page.count('"overview":"data:image/svg+xml;base64,') == 4 and "The mean of its people over time" in page
    for name in NAMES:
        picture = (mined.folder / "overviews" / f"{name.replace(' ', '_')}.svg").read_text()
        assert f'aria-label="{name}: mean of ' in picture and picture.count("<circle") == 8
    assert "right wrist up" in mined.text
    assert "agreement with the clusters of resampled source videos (adjusted Rand index): " in mined.text
    html = mined._repr_html_()
    assert html.count("<svg") >= 4 and repr(mined).startswith("MovementReport(4 movements in ")


def test_repeating_the_command_writes_the_same_files(folder, mined):
    before = file_hashes(mined.folder)
    stale = mined.folder / "overviews" / "old_movement.svg"
    stale.write_text("<svg/>")
    again = mine_folder(folder[0], mined.folder)
    assert file_hashes(mined.folder) == before and again.rows == mined.rows and not stale.exists()


class PoseDetector:
    """Detector that knows each video by its first frame."""

    name, sha256, identity, labels, keypoint_count = "poses", "0", "0", ("person",), 17

    def __init__(self, folder: Path):
        tables = read_boxes(folder / "boxes.csv")
        self.boxes_of = {}
        for name, boxes in tables.items():
            index = probe(folder / "videos" / name)
            ((_, first),) = decode_frames(index, [0])
            self.boxes_of[first.tobytes()] = boxes

    def boxes(self, frames: Iterable[np.ndarray], fps: float) -> Iterator[Box]:
        first, n_frames = next(iter(frames)), 1 + sum(1 for _ in frames)
        yield from (box for box in self.boxes_of[first.tobytes()] if box.frame < n_frames)


def test_keypoints_of_a_detector_are_kept_for_mining_without_it(folder, mined, tmp_path):
    """Other processes scan first, then the scans and their table of boxes give the same clips."""
    detector, out = PoseDetector(folder[0]), tmp_path / "out"
    config = replace(CONFIG, num_random_sets=0, controls=False)
    concepts.share_scans(folder[0] / "videos", replace(config, movements=True), out, detector=detector)
    report = mine_movements(folder[0] / "videos", out, config, MOVEMENT_CONFIG, detector=detector)
    assert report.mining.n_frames == 0 and {row.concept for row in report.concepts} == NAMES
    kept = read_boxes(out / "boxes.csv")
    expected = read_boxes(folder[0] / "boxes.csv")
    assert {name: [b.keypoints for b in boxes] for name, boxes in kept.items()} == {
        name: [b.keypoints for b in boxes] for name, boxes in expected.items()
    }
    assert {box.label for boxes in kept.values() for box in boxes} == {"person"}


def test_rejected_clips_stay_out_and_names_are_kept(folder, tmp_path):
    report = mine_folder(folder[0], tmp_path / "out")
    clip = concepts.read_concepts(report.folder).clips_of("right wrist up", "dynamic")[0]
    (report.folder / "review.csv").write_text(
        f"file,sha256,verdict,name\n{clip.file},{clip.sha256},reject,\n", encoding="utf-8"
    )
    mine_folder(folder[0], report.folder)
    sets = concepts.read_concepts(report.folder)
    assert clip.file in {other.file for other in sets.rejected} and clip.file not in {c.file for c in sets.clips}


def test_the_command_mines_movements_from_a_table_of_boxes(folder, mined, tmp_path):
    out = tmp_path / "out"
    flags = [
        *("mine_concepts", f"--videos={folder[0] / 'videos'}", f"--boxes={folder[0] / 'boxes.csv'}", "--movements"),
        *("--num_movements=4", "--min_source_videos=4", "--num_random_sets=2", "--max_clips=6"),
        *("--max_clips_per_video=2", f"--out={out}"),
    ]
    code, printed, notes = run_cli(*flags)
    assert code == 0, notes
    assert "right wrist up" in printed + notes
    clips, expected = (concepts.read_concepts(path).clips for path in (out, mined.folder))
    assert [clip.sha256 for clip in clips] == [clip.sha256 for clip in expected]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "expected --concepts=NAME,... or --movements, got neither"),
        (("--movements", "--concepts=person"), "expected --concepts=NAME,... or --movements, got both"),
        (("--movements", "--clip_frames=3"), "movements need clips of at least 4 frames, got 3"),
    ],
)
def test_commands_that_cannot_work_are_refused(folder, tmp_path, flags, message):
    boxes = f"--boxes={folder[0] / 'boxes.csv'}"
    code, _, notes = run_cli(
        "mine_concepts", f"--videos={folder[0] / 'videos'}", boxes, f"--out={tmp_path / 'out'}", *flags
    )
    assert code != 0 and message in notes and not (tmp_path / "out").exists()


def test_boxes_without_keypoints_are_refused(folder, tmp_path):
    boxes = {
        name: tuple(b._replace(keypoints=()) for b in rows)
        for name, rows in read_boxes(folder[0] / "boxes.csv").items()
    }
    with pytest.raises(
        ValueError, match="table has no keypoints, but movements need the 17 of COCO; pass a pose network"
    ):
        mine_movements(folder[0] / "videos", tmp_path, CONFIG, detector=BoxTable("table", boxes))
    few = {name: tuple(b._replace(keypoints=b.keypoints[:9]) for b in rows) for name, rows in boxes.items()}
    few = {name: tuple(b._replace(keypoints=(1.0, 2.0, 0.5) * 3) for b in rows) for name, rows in few.items()}
    with pytest.raises(ValueError, match="table has 3 keypoints, but movements need the 17 of COCO"):
        mine_movements(folder[0] / "videos", tmp_path, CONFIG, detector=BoxTable("table", few))


def test_configs_with_concepts_and_mining_without_any_are_refused(folder, tmp_path):
    named = replace(CONFIG, concepts=parse_concepts(["person"]))
    with pytest.raises(ValueError, match="movements name themselves; expected a config without concepts"):
        mine_movements(folder[0] / "videos", tmp_path, named)
    with pytest.raises(ValueError, match="expected at least one concept to mine, got none"):
        concepts.mine(folder[0] / "videos", CONFIG, tmp_path)
    with pytest.raises(SettingError, match="expected at least one concept, got none"):
        concepts.MiningConfig(concepts=())


def test_videos_without_long_enough_people_are_an_error(folder, tmp_path):
    config = replace(CONFIG, clip_frames=1000)
    with pytest.raises(
        ValueError, match=r"clip of 1000 frames: of 12 tracks with keypoints, 12 are shorter than a clip, and 0 do"
    ):
        mine_folder(folder[0], tmp_path / "out", config)
