"""Concept mining: scan each video for boxes, select clips, crop them out, and record the result.

Each scan and each clip is written as soon as it is complete, under a name that hashes its content, so that a killed run
continues where it stopped and ends with the same files as an uninterrupted run.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vtcav_jax import distributed
from vtcav_jax.atomic import explain_disk_full, is_temporary, write_text
from vtcav_jax.concepts import crops, inputs
from vtcav_jax.concepts.boxes import write_boxes
from vtcav_jax.concepts.candidates import (
    FILTER_STAGES,
    Candidate,
    Tally,
    dynamic_candidates,
    select_candidates,
    static_candidates,
)
from vtcav_jax.concepts.concept_sets import MINING_JSON, apply_review, drop_duplicates, duplicates_note, read_verdicts
from vtcav_jax.concepts.concept_table import ConceptClip, write_sets
from vtcav_jax.concepts.config import NEGATIVE_PREFIX, MiningConfig
from vtcav_jax.concepts.cut_clips import write_concept_clips
from vtcav_jax.concepts.inputs import VideoInput, WorldVideos
from vtcav_jax.concepts.negatives import build_random_sets, is_concept_in
from vtcav_jax.concepts.review.page import write_review
from vtcav_jax.concepts.video_scan import (
    SCANS_FOLDER,
    BoxTable,
    Detector,
    ScanPlan,
    VideoScan,
    notes_on_empty_videos,
    scan_videos,
    try_plan,
    unique_scans,
)
from vtcav_jax.console import info, progress
from vtcav_jax.data.overlap import shared_note
from vtcav_jax.data.source import FileSource, Source
from vtcav_jax.data.world_source import WorldSource
from vtcav_jax.displayed_result import DisplayedResult
from vtcav_jax.json_file import load_json
from vtcav_jax.names import count_noun, escape_control_chars
from vtcav_jax.runs.code_version import code_hash, package_versions
from vtcav_jax.runs.lock import is_lock, lock_folder
from vtcav_jax.runs.tables import write_table

VIDEOS_FOLDER = "videos"
# Source files that determine the pixels of a clip
CLIP_CODE = (
    *("concepts/crops.py", "concepts/cut_clips.py", "concepts/labelled_clips.py"),
    *("data/decode.py", "data/encode.py"),
)
MINED_CLIP_NAME = re.compile(r".+_[0-9a-f]{12}\.mp4")  # file names made by `Candidate.file`


@dataclass(frozen=True)
class MiningReport(DisplayedResult):
    """Result of `mine`; `text` is a summary for the terminal."""

    folder: Path
    thresholds: dict[tuple[str, str], dict[str, int]]  # clips removed by each filter, by concept and clip type
    counts: dict[tuple[str, str], int]  # clips by set and clip type, including random sets and controls
    failures: dict[str, str]  # unreadable videos and the reasons
    notes: tuple[str, ...]
    n_videos: int
    n_frames: int  # scanned in this run
    seconds: float  # taken by scanning

    def __repr__(self) -> str:
        concepts = {name for name, _ in self.counts if not name.startswith(NEGATIVE_PREFIX)}
        n_clips = sum(self.counts.values())
        parts = [count_noun(len(concepts), "concept"), count_noun(n_clips, "clip"), count_noun(self.n_videos, "video")]
        parts += [f"{len(self.failures)} not read"] if self.failures else []
        return f"MiningReport({self.folder}: {', '.join(parts)})"

    @property
    def text(self) -> str:
        names = [f"{concept}, {clip_type}" for concept, clip_type in self.thresholds]
        width = max(map(len, ["concept, type", *names]))
        lines = ["  ".join([f"{'concept, type':{width}}", *(f"{step:>10}" for step in FILTER_STAGES)])]
        for name, row in zip(names, self.thresholds.values()):
            lines.append("  ".join([f"{name:{width}}", *(f"{row[step]:>10}" for step in FILTER_STAGES)]))
        totals = Counter()  # by whether they are negatives and whether they are controls
        for (name, clip_type), n in self.counts.items():
            totals[name.startswith(NEGATIVE_PREFIX), clip_type in crops.CONTROLS] += n
        n_sets = len({name for name, _ in self.counts if name.startswith(NEGATIVE_PREFIX)})
        lines.append(f"{count_noun(totals[False, True], 'control')} of the concepts' dynamic clips")
        lines.append(
            f"{count_noun(totals[True, False], 'clip')} in {count_noun(n_sets, 'random set')}, with"
            f" {count_noun(totals[True, True], 'control')}"
        )
        speed = f", {self.n_frames / self.seconds:.3g} frames/s" if self.n_frames and self.seconds else ""
        lines.append(f"{count_noun(self.n_videos, 'video')}, {count_noun(self.n_frames, 'frame')} scanned{speed}")
        lines += [f"not read: {name}: {reason}" for name, reason in self.failures.items()]
        lines += [f"note: {note}" for note in self.notes]
        return escape_control_chars("\n".join(lines))


@dataclass(frozen=True)
class ProposedConcepts:
    """Concepts that the scans themselves propose: boxes with the concepts' names as labels, and settings with them."""

    scans: list[VideoScan]
    config: MiningConfig
    notes: tuple[str, ...]


# From the scans of the concepts' videos, the settings and the output folder
ConceptProposer = Callable[[Sequence[VideoScan], MiningConfig, Path], ProposedConcepts]


def empty_report(folder: Path) -> MiningReport:
    """Return the report of a process that leaves the clips to the first one."""
    return MiningReport(folder, {}, {}, {}, (), 0, 0, 0.0)


def mine(
    videos: VideoInput,
    config: MiningConfig,
    out: str | Path,
    *,
    detector: Detector | BoxTable | None = None,
    targets: VideoInput = (),
    negative_videos: VideoInput | None = None,
    propose: ConceptProposer | None = None,
) -> MiningReport:
    """Write the concept sets of `videos` to the folder `out`, with `concepts.csv` and `review.html`.

    `detector` overrides the one in `config`. `propose` replaces the concepts of `config` by those that it finds in the
    scans. Videos that are among the `targets`, or show the recording of one, are
    left out with a note. Random sets come from
    `negative_videos`, or by default from the same videos. Repeating a killed call continues it; with other settings,
    clips are selected again from the stored scans. A `review.csv` in the folder is applied.

    ```python
    config = MiningConfig(concepts=parse_concepts(["ball=sports ball"]), detector=Path("yolov8n.pt"))
    print(mine("videos", config, "concepts", targets="eval_videos").text)
    ```
    """
    out = Path(out)
    if not (config.concepts or propose):
        raise ValueError("expected at least one concept to mine, got none; name some in MiningConfig(concepts=...)")
    target_source = inputs.as_source(targets)
    mined = _resolve_videos(videos, config, out, detector, negative_videos)
    items, all_items, box_source, world_videos = mined.items, mined.all_items, mined.box_source, mined.worlds
    inputs.forbid_same_world(world_videos, target_source)
    with explain_disk_full(out):
        mined.open_folder(config, out)
        failures: dict[str, str] = {}
        jobs = progress(([item] for item, _ in all_items), len(all_items), "videos")
        plans = [try_plan(item, box_source, out, failures) for (item,) in jobs]
        plans, target_notes = _leave_out_targets(plans, target_source)
        start_time = time.monotonic()
        scans = scan_videos(plans, [answers for _, answers in all_items], box_source, failures)
        seconds = time.monotonic() - start_time
        notes = [
            *target_notes,
            *inputs.unmatched_files(box_source, all_items),
            *notes_on_empty_videos(scans[: len(items)], config),
        ]
        positive_scans = unique_scans(scans[: len(items)], notes)
        negative_scans = positive_scans if negative_videos is None else unique_scans(scans[len(items) :], notes)
        if not positive_scans:
            name, reason = next(iter(failures.items()))
            raise ValueError(f"none of the {len(items)} videos can be read; first, {name}: {reason}")

        boxes = {s.name: s.boxes for s in [*positive_scans, *negative_scans]}
        if propose is not None:
            proposed = propose(positive_scans, config, out)
            positive_scans, config = proposed.scans, proposed.config
            negative_scans = positive_scans if negative_videos is None else negative_scans
            notes += proposed.notes
        verdicts, _ = read_verdicts(out)
        tally: Tally = Counter()
        selected, rejected = _select_clips(positive_scans, config, tally, verdicts)
        random_clips, shortfalls = build_random_sets(negative_scans, [*selected, *rejected], config)
        notes += shortfalls
        by_hash = {s.sha256: s for s in [*negative_scans, *positive_scans]}
        clips = write_concept_clips([*selected, *rejected, *random_clips], by_hash, config, box_source, out, failures)
        clips = [replace(clip, review=verdicts.get(clip.file, "")) for clip in clips]
        clips, duplicates = drop_duplicates(clips)
        if duplicates:
            notes.append(duplicates_note([clip.file for clip in duplicates if not clip.control_of]))
        filter_counts = {key: {step: tally[*key, step] for step in FILTER_STAGES} for key in _tally_keys(config)}
        notes += [f"no clips of {', '.join(key)}" for key, row in filter_counts.items() if not row["left"]]
        notes += [f"only one clip of {', '.join(key)}" for key, row in filter_counts.items() if row["left"] == 1]
        write_outputs(out, clips, filter_counts, failures)
        if not isinstance(box_source, BoxTable):
            write_boxes(out / "boxes.csv", boxes)
    clip_counts = Counter(
        (clip.concept, clip.clip_type) for clip in apply_review(clips, verdicts) if clip.review != "reject"
    )
    frames = sum(len(planned.frames) for planned in plans if planned)
    return MiningReport(out, filter_counts, dict(clip_counts), failures, tuple(notes), len(plans), frames, seconds)


@dataclass(frozen=True)
class _MinedVideos:
    """Videos of concepts, then those of random sets only, with their labels, and the source of their boxes."""

    items: list[inputs.LabelledItem]
    negative_items: list[inputs.LabelledItem]
    box_source: Detector | BoxTable
    worlds: Sequence[WorldVideos]

    @property
    def all_items(self) -> list[inputs.LabelledItem]:
        return [*self.items, *self.negative_items]

    def open_folder(self, config: MiningConfig, out: Path) -> None:
        """Open the output folder, and write the videos of synthetic worlds."""
        open_mining_folder(out, config, self.box_source.name, self.box_source.identity)
        for world in self.worlds:
            world.write()


def _resolve_videos(
    videos: VideoInput,
    config: MiningConfig,
    out: Path,
    detector: Detector | BoxTable | None,
    negative_videos: VideoInput | None,
) -> _MinedVideos:
    sources = [inputs.as_source(video_input) for video_input in (videos, negative_videos) if video_input is not None]
    worlds = [WorldVideos(source, out / VIDEOS_FOLDER) for source in sources if isinstance(source, WorldSource)]
    items, negative_items = ([*(inputs.items_with_labels(source, out / VIDEOS_FOLDER) for source in sources), []])[:2]
    box_source = detector or inputs.make_detector(config, [*items, *negative_items], worlds)
    inputs.check_labels(config, box_source, [*items, *negative_items])
    return _MinedVideos(items, negative_items, box_source, worlds)


def share_scans(
    videos: VideoInput,
    config: MiningConfig,
    out: str | Path,
    *,
    detector: Detector | BoxTable | None = None,
    negative_videos: VideoInput | None = None,
) -> None:
    """Scan this process's share of the videos; all processes call this before the first one calls `mine`."""
    out = Path(out)
    mined = _resolve_videos(videos, config, out, detector, negative_videos)
    distributed.main_process_first(lambda: mined.open_folder(config, out))
    distributed.require_shared_folder(out)
    share, failures = distributed.local_share(mined.all_items), {}  # `mine` meets the failures again and reports them
    plans = [try_plan(item, mined.box_source, out, failures) for item, _ in share]
    scan_videos(plans, [answers for _, answers in share], mined.box_source, failures)
    distributed.wait_for_all()


def open_mining_folder(out: Path, config: MiningConfig, box_source_name: str, identity: str) -> None:
    """Create the output folder or reopen one from an earlier run, and record the settings in it."""
    claim_folder(out)
    (out / SCANS_FOLDER).mkdir(parents=True, exist_ok=True)
    for part in out.rglob(".*.part*"):  # incomplete files of a killed run
        part.unlink(missing_ok=True)
    request = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(config).items()}
    boxes = {"of": box_source_name, "identity": identity}
    record = {"asked": request, "boxes": boxes, "versions": package_versions()}
    record["code"] = code_hash(*CLIP_CODE)
    write_text(out / MINING_JSON, json.dumps(record, indent=1) + "\n")


def _read_record(path: Path) -> dict[str, Any]:
    """Return the settings of an earlier run; they are empty if the file is damaged, as all clips are selected again."""
    try:
        return dict(load_json(path))
    except (ValueError, TypeError):
        info(f"note: {path} is damaged; it is written again")
        return {}


def claim_folder(out: Path) -> None:
    """Create the output folder, and mark it as one that is being written; an error if it has other content."""
    lock_folder(out)
    if out.exists() and (not out.is_dir() or (_has_content(out) and not (out / MINING_JSON).exists())):
        raise ValueError(f"{out} is not empty and not a folder written by mining; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    code = code_hash(*CLIP_CODE)
    previous = _read_record(out / MINING_JSON) if (out / MINING_JSON).exists() else {}
    if not previous:
        write_text(out / MINING_JSON, json.dumps({"code": code}) + "\n")
    elif previous.get("code") != code:
        raise ValueError(
            f"{out} holds clips that were cut by other code of vtcav-jax; choose another folder, to which you can copy"
            " review.csv, or remove it"
        )


def _has_content(folder: Path) -> bool:
    return any(not is_lock(path) and not is_temporary(path) for path in folder.iterdir())


def _leave_out_targets(plans: Sequence[ScanPlan | None], targets: Source) -> tuple[list[ScanPlan | None], list[str]]:
    """Replace the plans of videos that are targets, or show the recording of one, by None; return a note on them."""
    if not targets.items or not (planned := [p for p in plans if p]):
        return list(plans), []
    videos = FileSource("--videos", {}, tuple(p.item for p in planned))
    shared = inputs.target_items(videos, targets)
    inputs.require_other_than_targets(videos, shared)
    names = {id(planned[i]) for i in shared}
    notes = [shared_note(videos, shared, "targets")] if shared else []
    return [None if id(p) in names else p for p in plans], notes


def _tally_keys(config: MiningConfig) -> list[tuple[str, str]]:
    return [(c.name, clip_type) for c in config.concepts for clip_type in ("static", "dynamic")]


def _select_clips(
    scans: Sequence[VideoScan], config: MiningConfig, tally: Tally, verdicts: Mapping[str, str]
) -> tuple[list[Candidate], list[Candidate]]:
    by_id = {
        Path(file).stem.rpartition("_")[2]: verdict
        for file, verdict in verdicts.items()
        if verdict and Path(file).parent.name not in crops.CONTROLS
    }
    selected, rejected = [], []
    used_appearances = set()
    # A static clip may equal the frozen control of a dynamic one, of which there are fewer.
    for clip_type, find_candidates in (("dynamic", dynamic_candidates), ("static", static_candidates)):
        for concept in config.concepts:
            candidates = [
                c for s in scans if is_concept_in(concept, s) for c in find_candidates(s, concept, config, tally)
            ]
            # An object may be two concepts at once (a ring that moves left), but a clip is in one set only.
            new = [candidate for candidate in candidates if candidate.appearance not in used_appearances]
            tally[concept.name, clip_type, "elsewhere"] += len(candidates) - len(new)
            selection = select_candidates(new, config, tally, by_id)
            selected += selection.candidates
            rejected += selection.rejected
            for candidate in [*selection.candidates, *selection.rejected]:
                used_appearances |= {candidate.appearance, candidate.frozen_appearance}
    return selected, rejected


def write_outputs(
    out: Path,
    clips: Sequence[ConceptClip],
    filter_counts: Mapping[tuple[str, str], Mapping[str, int]],
    failures: dict[str, str],
) -> None:
    """Write the tables and the review page, and delete clips of earlier selections."""
    failures |= write_review(out, clips)[1]
    write_table(
        out / "thresholds.csv",
        ("concept", "clip_type", *FILTER_STAGES),
        ((*key, *row.values()) for key, row in filter_counts.items()),
    )
    write_table(out / "failures.csv", ("video", "reason"), failures.items())
    write_sets(out, clips)
    current_files = {out / clip.file for clip in clips}
    for path in out.glob("*/*/*.mp4"):
        if path not in current_files and path.parent.name in crops.CLIP_TYPES and MINED_CLIP_NAME.fullmatch(path.name):
            path.unlink()
            for folder in list(path.parents)[:2]:
                if not any(folder.iterdir()):
                    folder.rmdir()
