"""Concept sets on disk: a folder of small videos, `CONCEPT/KIND/*.mp4`, and `concepts.csv`, which has their origins.

A folder that somebody made by hand, `CONCEPT/KIND/*.mp4` or `CONCEPT/*.mp4` without a table, is as good. Sets whose
names begin with `random` are negative ones. What is read is checked: clips that have changed since they were mined, a
clip in two sets, and a clip out of a target's video are refused with all names.
"""

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.concepts.boxes import Pixels
from vtcav_jax.concepts.config import NEGATIVE
from vtcav_jax.concepts.crops import CONTROLS, KINDS, letterbox
from vtcav_jax.data.decode import FramesMissing, decoded, probe
from vtcav_jax.data.folder import BESIDE
from vtcav_jax.data.frame_sampling import choose
from vtcav_jax.names import printable, unknown
from vtcav_jax.runs.directory import write_table

TABLE, REVIEW, MINING = "concepts.csv", "review.csv", "mining.json"
COLUMNS = (
    *("concept", "kind", "file", "sha256", "source", "source_sha256", "frames", "boxes", "label"),
    *("confidence", "detector", "detector_sha256", "twin", "review"),
)
REVIEW_COLUMNS = ("file", "sha256", "verdict")
VERDICTS = ("keep", "reject")
SHOWN = 10


@dataclass(frozen=True)
class ConceptClip:
    """One clip of a set; of one made by hand only the first four are known."""

    concept: str
    kind: str
    path: Path
    sha256: str  # of the file's bytes: what activations may be kept under
    file: str  # its path within the set's folder, as in the tables
    source: str = ""  # the video that it was cut from
    source_sha256: str = ""
    frames: tuple[
        int, ...
    ] = ()  # of that video; empty where the file holds a video from which frames are yet to be chosen
    boxes: tuple[Pixels, ...] = ()
    label: str = ""
    confidence: float | None = None
    detector: str = ""
    detector_sha256: str = ""
    twin: str = ""  # of a control, the file of the dynamic clip that it was made of
    review: str = ""  # keep, reject, or not looked at

    @property
    def family(self) -> str:
        """The same for a dynamic clip and its controls."""
        return self.twin or self.file

    @property
    def negative(self) -> bool:
        return self.concept.lower().startswith(NEGATIVE)


@dataclass(frozen=True)
class ConceptSets:
    """All clips of a folder that were not rejected, in the order of concept, kind and file."""

    folder: Path
    clips: tuple[ConceptClip, ...]
    rejected: tuple[ConceptClip, ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, concept: str, kind: str | None = None) -> tuple[ConceptClip, ...]:
        if concept not in self.concepts:
            raise ValueError(unknown("concept", [concept], self.concepts))
        return tuple(clip for clip in self.clips if clip.concept == concept and kind in (None, clip.kind))

    @property
    def concepts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(clip.concept for clip in self.clips))

    @property
    def negatives(self) -> tuple[str, ...]:
        return tuple(name for name in self.concepts if name.lower().startswith(NEGATIVE))

    def counts(self) -> dict[tuple[str, str], int]:
        """By concept and kind."""
        found: dict[tuple[str, str], int] = defaultdict(int)
        for clip in self.clips:
            found[clip.concept, clip.kind] += 1
        return dict(found)


def encoded(video: UInt8[np.ndarray, "t h w 3"], fps: float = 25) -> bytes:
    """An mp4 that gives back every pixel (H.264 of RGB without loss), the same bytes each time."""
    import av

    file = io.BytesIO()
    options = {"qp": "0", "preset": "veryfast", "threads": "1"}
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264rgb", rate=max(round(fps), 1), options=options)
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt = "rgb24"
        for frame in video:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return file.getvalue()


def pictures(clip: ConceptClip, geometry: ClipSpec | None = None) -> UInt8[np.ndarray, "t h w 3"]:
    """The clip as it is stored; or the frames of it that a network takes.

    Mined clips have their frames already: those of another length than the network's are read as a short video. In
    others frames are chosen as in any video.
    """

    def read(by_decoding: bool) -> np.ndarray:
        index = probe(clip.path, by_decoding=by_decoding)
        total = len(index.times)
        if geometry is None or (clip.frames and total == geometry.frames):
            numbers = np.arange(total)
        else:
            rule = replace(geometry, interval=1) if clip.frames else geometry
            numbers = choose(index.times, index.duration, rule).frames[0]
        found = dict(decoded(index, numbers.tolist()))
        return np.stack([found[int(i)] for i in numbers])

    try:
        return read(by_decoding=False)
    except FramesMissing:
        return read(by_decoding=True)


def letterboxed(clip: ConceptClip, geometry: ClipSpec) -> UInt8[np.ndarray, "t h w 3"]:
    """What the network is shown, before normalisation."""
    return letterbox(pictures(clip, geometry), geometry.size)


def write_sets(folder: Path, clips: Iterable[ConceptClip]) -> None:
    """The table of clips whose files are there."""
    lines = []
    for c in sorted(clips, key=_order):
        boxes = ";".join(" ".join(map(str, box)) for box in c.boxes)
        confidence = "" if c.confidence is None else f"{c.confidence:.4f}"
        origin = (c.source, c.source_sha256, " ".join(map(str, c.frames)), boxes, c.label, confidence)
        lines.append((c.concept, c.kind, c.file, c.sha256, *origin, c.detector, c.detector_sha256, c.twin, c.review))
    write_table(folder / TABLE, COLUMNS, lines)


def _order(clip: ConceptClip) -> tuple:
    kinds = {kind: i for i, kind in enumerate(KINDS)}
    return (clip.negative, clip.concept, kinds.get(clip.kind, len(kinds)), clip.kind, clip.file)


def read_sets(folder: str | Path, targets: Mapping[str, str] | None = None) -> ConceptSets:
    """The sets in a folder, less what was rejected in the review; `targets` are names and hashes (sha256) of the videos
    that the concepts are to explain."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; expected concept sets, mined or made by hand")
    if (folder / TABLE).exists():
        clips, notes = _by_table(folder), ()
    elif (folder / MINING).exists():
        raise ValueError(f"mining into {folder} is not finished; give the same command again to continue it")
    else:
        clips, notes = _by_hand(folder)
    verdicts, stale = read_verdicts(folder, {clip.file: clip.sha256 for clip in clips})
    clips = reviewed(clips, verdicts)
    left = sorted((clip for clip in clips if clip.review != "reject"), key=_order)
    if not left:
        raise ValueError(f"there is no clip left in {folder}; expected CONCEPT/KIND/*.mp4, not all rejected")
    refuse_leaks(left, targets or {})
    if stale:
        notes = (*notes, f"{stale} verdicts of {REVIEW} are of clips that are not there, or have changed")
    return ConceptSets(folder, tuple(left), tuple(clip for clip in clips if clip.review == "reject"), notes)


def reviewed(clips: Iterable[ConceptClip], verdicts: Mapping[str, str]) -> list[ConceptClip]:
    """The clips with their verdicts; where a dynamic clip is rejected, so are its controls."""
    clips = [replace(clip, review=verdicts.get(clip.file, clip.review)) for clip in clips]
    rejected = {clip.file for clip in clips if clip.review == "reject"}
    return [replace(clip, review="reject") if clip.twin in rejected else clip for clip in clips]


def _by_table(folder: Path) -> list[ConceptClip]:
    """All that is wrong with the table or with a file in one message."""
    clips, faults = [], []
    for line, row in rows(folder / TABLE, COLUMNS[:3]):
        path = folder / row["file"]
        if not row["file"] or ".." in Path(row["file"]).parts or Path(row["file"]).is_absolute():
            faults.append(f"line {line}: {row['file']!r} is no path within the folder")
        elif not row["concept"] or not row["kind"]:
            faults.append(f"line {line}: the concept or the kind is empty")
        elif not path.is_file():
            faults.append(f"line {line}: {row['file']} is missing")
        elif row.get("sha256") not in (None, "", digest := _sha256(path)):
            faults.append(f"line {line}: {row['file']} is not the clip that was mined")
        else:
            try:
                clips.append(_clip(row, path, digest))
            except ValueError as error:
                faults.append(f"line {line}: {error}")
    if faults:
        more = f"\n  and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        told = "\n  ".join(map(printable, faults[:SHOWN]))
        raise ValueError(f"{folder / TABLE} and its clips do not fit; mine anew, or mend it:\n  {told}{more}")
    return clips


def rows(path: Path, needed: Iterable[str]) -> list[tuple[int, dict[str, str]]]:
    """Of a table with at least the `needed` columns, with the numbers of their lines."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="", strict=True)
            if missing := [name for name in needed if name not in (reader.fieldnames or ())]:
                raise ValueError(f"{path} has no column {', '.join(missing)}; expected a first line with them")
            return [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV file in UTF-8 ({error}); write it anew") from error


def _clip(row: dict[str, str], path: Path, digest: str) -> ConceptClip:
    boxes = []
    for text in filter(None, row.get("boxes", "").split(";")):
        x1, y1, x2, y2 = map(int, text.split())
        boxes.append((x1, y1, x2, y2))
    given = {name: row.get(name, "") for name in ("source", "source_sha256", "label", "detector", "detector_sha256")}
    review = row.get("review", "")
    if review not in ("", *VERDICTS):
        raise ValueError(f"review is {review!r}; expected keep, reject or nothing")
    return ConceptClip(
        row["concept"],
        row["kind"],
        path,
        digest,
        row["file"],
        frames=tuple(map(int, row.get("frames", "").split())),
        boxes=tuple(boxes),
        confidence=float(row["confidence"]) if row.get("confidence") else None,
        twin=row.get("twin", ""),
        review=review,
        **given,
    )


def _by_hand(folder: Path) -> tuple[list[ConceptClip], tuple[str, ...]]:
    """What lies in a concept's own folder is dynamic, as whole videos are; controls are of the clip with their name."""
    clips, strange = [], []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if not path.is_file() or path.suffix.lower() in BESIDE or any(part.startswith(".") for part in parts):
            continue
        if len(parts) in (2, 3):
            kind = parts[1] if len(parts) == 3 else "dynamic"
            clips.append(ConceptClip(parts[0], kind, path, _sha256(path), "/".join(parts)))
        else:
            strange.append("/".join(parts))
    if strange:
        raise ValueError(
            f"{folder} has {len(strange)} videos that belong to no concept ({printable(strange[0])}); expected"
            " CONCEPT/KIND/*.mp4 or CONCEPT/*.mp4"
        )
    dynamic = {(clip.concept, clip.path.name): clip.file for clip in clips if clip.kind == "dynamic"}
    clips = [
        replace(clip, twin=dynamic.get((clip.concept, clip.path.name), "")) if clip.kind in CONTROLS else clip
        for clip in clips
    ]
    kinds = sorted({clip.kind for clip in clips} - set(KINDS))
    return clips, tuple(f"{printable(kind)} is no kind that mining makes ({', '.join(KINDS)})" for kind in kinds)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_verdicts(folder: Path, clips: Mapping[str, str] | None = None) -> tuple[dict[str, str], int]:
    """Keep, reject or nothing (which takes back what the table says) by file, and how many verdicts are of none of
    `clips` (names and hashes)."""
    path = folder / REVIEW
    if not path.exists():
        return {}, 0
    verdicts, stale = {}, 0
    for line, row in rows(path, ("file", "verdict")):
        if row["verdict"] not in ("", *VERDICTS):
            raise ValueError(
                f"{path}, line {line}: {printable(row['verdict'])!r} is no verdict; expected keep, reject or nothing"
            )
        if clips is None or (row["file"] in clips and row.get("sha256", "") in ("", clips[row["file"]])):
            verdicts[row["file"]] = row["verdict"]
        else:
            stale += 1
    return verdicts, stale


def refuse_leaks(clips: Iterable[ConceptClip], targets: Mapping[str, str]) -> None:
    """Refuses a clip in two sets, and targets' videos among the clips and their sources; both are found by hash.

    A control may equal its own twin: of a thing that stands still, the frozen clip is the same.
    """
    faults = []
    by_hash: dict[str, list[ConceptClip]] = defaultdict(list)
    target_of = {sha256: name for name, sha256 in targets.items()}
    for clip in clips:
        by_hash[clip.sha256].append(clip)
        for sha256, what in ((clip.sha256, "is"), (clip.source_sha256, "was cut from")):
            if sha256 and sha256 in target_of:
                faults.append(f"{clip.file} {what} the target {target_of[sha256]}")
    for same in by_hash.values():
        if len({clip.family for clip in same}) > 1:
            faults.append(" = ".join(f"{clip.file} ({clip.concept}, {clip.kind})" for clip in same))
    if faults:
        more = f"\n  and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        told = "\n  ".join(map(printable, faults[:SHOWN]))
        raise ValueError(f"clips must be in one set only and not among the targets; take these out:\n  {told}{more}")


def once(clips: Iterable[ConceptClip]) -> tuple[list[ConceptClip], list[ConceptClip]]:
    """The clips, and those that equal an earlier one to the pixel, with their controls: two black corners, say."""
    first: dict[str, str] = {}
    again = set()
    ordered = sorted(clips, key=_order)
    for clip in ordered:
        if first.setdefault(clip.sha256, clip.family) != clip.family:
            again.add(clip.family)
    return [c for c in ordered if c.family not in again], [c for c in ordered if c.family in again]
