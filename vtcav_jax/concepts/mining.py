"""From videos to concept sets: survey each video, choose, cut out, and write down what was done.

Each video's survey and each clip is written once and at once, under a name made of its content: a killed run continues
where it was, and ends with the same files as one that was not.
"""

import errno
import hashlib
import json
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vtcav_jax.concepts import crops
from vtcav_jax.concepts.boxes import Box, read_boxes, write_boxes
from vtcav_jax.concepts.candidates import STEPS, Candidate, Tally, choose, dynamics, statics
from vtcav_jax.concepts.negatives import applies, random_sets
from vtcav_jax.concepts.review import write_review
from vtcav_jax.concepts.sets import (
    MINING,
    TABLE,
    ConceptClip,
    once,
    read_verdicts,
    rows,
    write_sets,
)
from vtcav_jax.concepts.settings import Mining
from vtcav_jax.concepts.survey import Detector, Drawn, Planned, Survey, plan, survey
from vtcav_jax.concepts.writing import written
from vtcav_jax.names import printable, unknown
from vtcav_jax.progress import progress
from vtcav_jax.runs import versions, write_table, write_text
from vtcav_jax.video.decode import VideoError
from vtcav_jax.video.sources import Item, Source, one_line, open_source, unique

SURVEYS = "surveys"

Videos = Source | str | Path | Sequence[str | Path]  # what `open_source` takes, a source, or files
Answered = tuple[Item, dict[str, str]]  # a video and what is known of it, by head


@dataclass(frozen=True)
class Report:
    """What came out; `text` is for the terminal."""

    folder: Path
    thresholds: dict[tuple[str, str], dict[str, int]]  # by concept and kind, what each step took away
    counts: dict[tuple[str, str], int]  # clips by set and kind, random sets and controls included
    failures: dict[str, str]  # videos that could not be read, and why
    notes: tuple[str, ...]
    videos: int
    frames: int  # that were looked at in this run
    seconds: float  # which that took

    @property
    def text(self) -> str:
        names = [f"{concept}, {kind}" for concept, kind in self.thresholds]
        wide = max(map(len, ["concept, kind", *names]))
        lines = ["  ".join([f"{'concept, kind':{wide}}", *(f"{step:>10}" for step in STEPS)])]
        for name, row in zip(names, self.thresholds.values()):
            lines.append("  ".join([f"{name:{wide}}", *(f"{row[step]:>10}" for step in STEPS)]))
        controls = sum(n for (_, kind), n in self.counts.items() if kind in crops.CONTROLS)
        random = [(name, n) for (name, kind), n in self.counts.items() if name.startswith("random_")]
        sets = len({name for name, _ in random})
        lines.append(f"{controls} controls; {sum(n for _, n in random)} clips in {sets} random sets")
        speed = f", {self.frames / self.seconds:.3g} frames/s" if self.frames and self.seconds else ""
        lines.append(f"{self.videos} videos, {self.frames} frames looked at{speed}")
        lines += [f"not read: {name}: {why}" for name, why in self.failures.items()]
        lines += [f"note: {note}" for note in self.notes]
        return printable("\n".join(lines))


def mine(
    videos: Videos,
    settings: Mining,
    out: str | Path,
    *,
    detector: Detector | None = None,
    targets: Videos = (),
    negatives: Videos | None = None,
) -> Report:
    """Writes the concept sets of `videos` to the folder `out`, with `concepts.csv` and `review.html`.

    `detector` takes the place of the one that the settings name. Videos that are among the `targets` are refused.
    Random sets come from `negatives`, where given, or from the same videos. The same call continues a killed one; with
    other settings it chooses anew from what it knows of the videos, and a `review.csv` in the folder is honoured.
    """
    out = Path(out)
    items, others = _items(videos), [] if negatives is None else _items(negatives)
    finder = detector or _finder(settings, [*items, *others])
    _check_labels(settings, finder, [*items, *others])
    with _told_when_full(out):
        open_folder(out, settings, finder.name, finder.identity)
        failures: dict[str, str] = {}
        plans = [_planned(item, finder, out, failures) for item, _ in [*items, *others]]
        refuse_targets({p.sha256: p.item.name for p in plans if p}, _items(targets))
        begun = time.monotonic()
        surveys = _surveys(plans, [known for _, known in [*items, *others]], finder, failures)
        seconds = time.monotonic() - begun
        notes = _without(surveys, settings)
        here = _once(surveys[: len(items)], notes)
        there = here if negatives is None else _once(surveys[len(items) :], notes)
        if not here:
            name, why = next(iter(failures.items()))
            raise ValueError(f"none of the {len(items)} videos can be read; the first, {name}: {why}")

        verdicts, _ = read_verdicts(out)
        tally: Tally = Counter()
        chosen, rejected = _chosen(here, settings, tally, verdicts)
        random, said = random_sets(there, [*chosen, *rejected], settings)
        notes += said
        by_hash = {s.sha256: s for s in [*there, *here]}
        clips = written([*chosen, *rejected, *random], by_hash, settings, finder, out, failures)
        clips = [replace(clip, review=verdicts.get(clip.file, "")) for clip in clips]
        clips, again = once(clips)
        if again:
            names = [clip.file for clip in again if not clip.twin]
            notes.append(f"{len(names)} clips equal another to the pixel and are left out, such as {names[0]}")
        table = {key: {step: tally[*key, step] for step in STEPS} for key in _keys(settings)}
        notes += [f"there is no clip of {', '.join(key)}" for key, row in table.items() if not row["left"]]
        notes += [f"there is one clip only of {', '.join(key)}" for key, row in table.items() if row["left"] == 1]
        finish(out, clips, again, failures, table)
        if not isinstance(finder, Drawn):
            write_boxes(out / "boxes.csv", {s.name: s.boxes for s in [*here, *there]})
    kinds = Counter((clip.concept, clip.kind) for clip in clips if clip.review != "reject")
    frames = sum(len(planned.frames) for planned in plans if planned)
    return Report(out, table, dict(kinds), failures, tuple(notes), len(plans), frames, seconds)


def _items(videos: Videos) -> list[Answered]:
    if isinstance(videos, str | Path):
        videos = open_source(videos)
    if isinstance(videos, Sequence):
        paths = [Path(path) for path in videos]
        names = unique(one_line(path.name) for path in paths)
        return [(Item(name, {}, path), {}) for name, path in zip(names, paths)]
    return [(item, {head: videos.heads[head][value] for head, value in item.labels.items()}) for item in videos.items]


def _finder(settings: Mining, items: Sequence[Answered]) -> Detector | Drawn:
    """Who says where things are."""
    if settings.detector:
        from vtcav_jax.concepts import detect

        return detect.load(settings.detector, settings)
    if settings.boxes:
        by_file = read_boxes(settings.boxes)
        if "" in by_file and len(items) == 1:
            by_file = {items[0][0].name: by_file[""]}
        drawn = Drawn(settings.boxes.name, by_file)
        if not any(drawn.of(item) for item, _ in items if item.path):
            named, known = next(iter(by_file), ""), items[0][0].name
            raise ValueError(
                f"{settings.boxes.name} has no box of any of the {len(items)} videos; expected names such as {known!r}"
                f" in its column file, got {named!r}"
            )
        return drawn
    tables: dict[Path, dict[str, tuple[Box, ...]]] = {}
    by_file = {}
    for item, _ in items:
        if item.boxes and item.path:
            table = tables.setdefault(item.boxes, read_boxes(item.boxes))
            by_file[item.name] = Drawn("", table).of(item) or table.get("", ())
    if not by_file:
        raise ValueError("nobody says where things are; give a detector's weights, or a CSV of boxes")
    return Drawn("boxes", by_file)


def _check_labels(settings: Mining, finder: Detector | Drawn, items: Sequence[Answered]) -> None:
    """What is asked for must be there before anything is watched."""
    faults = []
    if strange := sorted({c.label for c in settings.concepts} - set(finder.labels)):
        faults.append(f"{finder.name}: {unknown('label', strange, finder.labels)}")
    known = {f"{head}:{answer}" for _, answers in items for head, answer in answers.items()}
    asked = {f"{c.head}:{c.answer}" for c in settings.concepts if c.head}
    if strange := sorted(asked - known):
        faults.append(unknown("HEAD:ANSWER of the videos", strange, sorted(known) or ["none"]))
    if faults:
        raise ValueError("\n".join(map(printable, faults)))


def open_folder(out: Path, settings: Mining, finder: str, identity: str) -> None:
    """The folder, new or one that was mined into before; `finder` says where things are."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MINING).exists())):
        raise ValueError(f"{out} is not empty and was not mined into; choose another folder")
    (out / SURVEYS).mkdir(parents=True, exist_ok=True)
    for part in out.rglob(".*.part*"):  # what a killed run was writing
        part.unlink(missing_ok=True)
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(settings).items()}
    told = {"asked": asked, "boxes": {"of": finder, "identity": identity}, "versions": versions()}
    write_text(out / MINING, json.dumps(told, indent=1) + "\n")


def _planned(item: Item, finder: Detector | Drawn, out: Path, failures: dict[str, str]) -> Planned | None:
    try:
        return plan(item, finder, out / SURVEYS)
    except VideoError as error:
        failures[item.name] = str(error)
        return None


def _surveys(
    plans: Sequence[Planned | None],
    answers: Sequence[dict[str, str]],
    finder: Detector | Drawn,
    failures: dict[str, str],
) -> list[Survey | None]:
    """One for each video; None of those that cannot be read."""
    more = True
    total = sum(len(planned.frames) for planned in plans if planned)
    bar = progress(iter(lambda: more, False), total, "frames", size=int)
    found: list[Survey | None] = []
    for planned, known in zip(plans, answers):
        try:
            found.append(survey(planned, known, finder, lambda: next(bar)) if planned else None)
        except VideoError as error:
            failures[planned.item.name if planned else ""] = str(error)
            found.append(None)
    more = False
    deque(bar, maxlen=0)
    return found


def _without(surveys: Sequence[Survey | None], settings: Mining) -> list[str]:
    labels = {c.label for c in settings.concepts}
    names = [s.name for s in surveys if s and labels.isdisjoint(box.label for box in s.boxes)]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"no box of any concept: {', '.join(names[:3])}{more}"] if names else []


def _once(surveys: Iterable[Survey | None], notes: list[str]) -> list[Survey]:
    """Each video once, in an order made of its bytes."""
    by_key: dict[tuple[str, int, int], Survey] = {}
    for s in sorted(filter(None, surveys), key=lambda s: (s.key, s.name)):
        if s.key in by_key:
            notes.append(f"{s.name} is the same video as {by_key[s.key].name} and counts once")
        by_key.setdefault(s.key, s)
    return list(by_key.values())


def refuse_targets(names: Mapping[str, str], targets: Sequence[Answered]) -> None:
    faults = []
    for item, _ in targets:
        if item.path is None or not item.path.is_file():
            continue
        with item.path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 in names:
            faults.append(f"{names[sha256]} = target {item.name}")
    if faults:
        told = "; ".join(faults[:10]) + (f"; and {len(faults) - 10} more" if len(faults) > 10 else "")
        raise ValueError(f"a target cannot give concepts or negatives as well; take out of one of both: {told}")


def _keys(settings: Mining) -> list[tuple[str, str]]:
    return [(c.name, kind) for c in settings.concepts for kind in ("static", "dynamic")]


def _chosen(
    surveys: Sequence[Survey], settings: Mining, tally: Tally, verdicts: Mapping[str, str]
) -> tuple[list[Candidate], list[Candidate]]:
    by_id = {
        Path(f).stem.rpartition("_")[2]: v for f, v in verdicts.items() if Path(f).parent.name not in crops.CONTROLS
    }
    chosen, rejected = [], []
    elsewhere = set()
    for concept in settings.concepts:
        for kind, find in (("dynamic", dynamics), ("static", statics)):
            candidates = [c for s in surveys if applies(concept, s) for c in find(s, concept, settings, tally)]
            # A thing may be two concepts at once (a ring that moves left), but a clip is in one set only.
            new = [candidate for candidate in candidates if candidate.seen not in elsewhere]
            tally[concept.name, kind, "elsewhere"] += len(candidates) - len(new)
            choice = choose(new, settings, tally, by_id)
            chosen += choice.chosen
            rejected += choice.rejected
            for candidate in [*choice.chosen, *choice.rejected]:
                elsewhere |= {candidate.seen, candidate.frozen}
    return chosen, rejected


def finish(
    out: Path,
    clips: Sequence[ConceptClip],
    again: Sequence[ConceptClip],
    failures: Mapping[str, str],
    table: Mapping[tuple[str, str], Mapping[str, int]],
) -> None:
    """The tables and the page; clips of an earlier choice are removed when the table no longer names them."""
    before = {row["file"] for _, row in rows(out / TABLE, ("file",))} if (out / TABLE).exists() else set()
    write_table(
        out / "thresholds.csv", ("concept", "kind", *STEPS), ((*key, *row.values()) for key, row in table.items())
    )
    write_table(out / "failures.csv", ("video", "reason"), failures.items())
    write_review(out, clips)
    write_sets(out, clips)
    for file in (before | {clip.file for clip in again}) - {clip.file for clip in clips}:
        if Path(file).suffix == ".mp4" and ".." not in Path(file).parts:
            (out / file).unlink(missing_ok=True)
            for folder in list((out / file).parents)[:2]:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()


@contextmanager
def _told_when_full(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ValueError(
                f"the disk of {out} is full; free some space and give the same command again, what is done is kept"
            ) from error
        raise
