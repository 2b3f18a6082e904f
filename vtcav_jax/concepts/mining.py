"""From videos to concept sets: survey each video, choose, cut out, and write down what was done.

Each video's survey and each clip is written once and at once, under a name made of its content: a killed run continues
where it was, and ends with the same files as one that was not.
"""

import json
import re
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vtcav_jax.concepts import crops, inputs
from vtcav_jax.concepts.boxes import write_boxes
from vtcav_jax.concepts.candidates import STEPS, Candidate, Tally, choose, dynamics, statics
from vtcav_jax.concepts.concept_sets import MINING, ConceptClip, once, read_verdicts, reviewed, write_sets
from vtcav_jax.concepts.config import Mining
from vtcav_jax.concepts.cut_clips import written
from vtcav_jax.concepts.inputs import Films, Videos
from vtcav_jax.concepts.negatives import applies, random_sets
from vtcav_jax.concepts.review.page import write_review
from vtcav_jax.concepts.video_scan import Detector, Drawn, Planned, Survey, plan, survey
from vtcav_jax.console import progress
from vtcav_jax.data.decode import VideoError
from vtcav_jax.data.open import Item
from vtcav_jax.data.world_source import Synthetic
from vtcav_jax.names import printable
from vtcav_jax.runs.directory import told_when_full, versions, write_table, write_text

SURVEYS, VIDEOS = "surveys", "videos"
OURS = re.compile(r".+_[0-9a-f]{12}\.mp4")  # what `Candidate.file` calls a clip


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
    sources = [inputs.opened(some) for some in (videos, negatives) if some is not None]
    films = [Films(source, out / VIDEOS) for source in sources if isinstance(source, Synthetic)]
    items, others = ([*(inputs.answered(source, out / VIDEOS) for source in sources), []])[:2]
    every = [*items, *others]
    finder = detector or inputs.finder(settings, every, films)
    inputs.check_labels(settings, finder, every)
    target = inputs.opened(targets)
    inputs.refuse_same_world(films, target)
    with told_when_full(out):
        open_folder(out, settings, finder.name, finder.identity)
        for film in films:
            film.write()
        failures: dict[str, str] = {}
        jobs = progress(([item] for item, _ in every), len(every), "videos")
        plans = [_planned(item, finder, out, failures) for (item,) in jobs]
        inputs.refuse_targets({p.sha256: p.item.name for p in plans if p}, target)
        begun = time.monotonic()
        surveys = _surveys(plans, [known for _, known in every], finder, failures)
        seconds = time.monotonic() - begun
        notes = [*inputs.unmatched(finder, every), *_without(surveys, settings)]
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
        finish(out, clips, table, failures)
        if not isinstance(finder, Drawn):
            write_boxes(out / "boxes.csv", {s.name: s.boxes for s in [*here, *there]})
    kinds = Counter((clip.concept, clip.kind) for clip in reviewed(clips, verdicts) if clip.review != "reject")
    frames = sum(len(planned.frames) for planned in plans if planned)
    return Report(out, table, dict(kinds), failures, tuple(notes), len(plans), frames, seconds)


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


def _keys(settings: Mining) -> list[tuple[str, str]]:
    return [(c.name, kind) for c in settings.concepts for kind in ("static", "dynamic")]


def _chosen(
    surveys: Sequence[Survey], settings: Mining, tally: Tally, verdicts: Mapping[str, str]
) -> tuple[list[Candidate], list[Candidate]]:
    by_id = {
        Path(file).stem.rpartition("_")[2]: verdict
        for file, verdict in verdicts.items()
        if verdict and Path(file).parent.name not in crops.CONTROLS
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
    table: Mapping[tuple[str, str], Mapping[str, int]],
    failures: dict[str, str],
) -> None:
    """The tables and the page; clips that another choice has left here, even one that was killed, are removed."""
    failures |= write_review(out, clips)[1]
    write_table(
        out / "thresholds.csv", ("concept", "kind", *STEPS), ((*key, *row.values()) for key, row in table.items())
    )
    write_table(out / "failures.csv", ("video", "reason"), failures.items())
    write_sets(out, clips)
    kept = {out / clip.file for clip in clips}
    for path in out.glob("*/*/*.mp4"):
        if path not in kept and path.parent.name in crops.KINDS and OURS.fullmatch(path.name):
            path.unlink()
            for folder in list(path.parents)[:2]:
                if not any(folder.iterdir()):
                    folder.rmdir()
