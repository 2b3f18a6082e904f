"""Coverage of 95 % intervals: effects of concepts, of independent and of clustered clips, motion shares, accuracies.

The true value of an effect is its mean over many vectors trained on as many clips: of the derivative over all target
clips, and of this derivative times the distance between the means of all clips that the vector was not trained on.
"""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from benchmarks.statistics import library
from benchmarks.statistics.clips import CLIPS_PER_VIDEO, RANDOM_CLIPS, STAGES, EncodedClips
from benchmarks.statistics.results import COVERAGE, Row, at_least, share_row
from benchmarks.statistics.size import Size, generator
from vtcav_jax.attribution.motion.reliance import MotionEvidence
from vtcav_jax.attribution.motion.summary import summarise_by_class
from vtcav_jax.runs.attribution_rows import ClipMotionRow
from vtcav_jax.stats.intervals import clustered_share_ci
from vtcav_jax.worlds.spec import DIRECTIONS, GLYPH_SHAPES

SIZES = (10, 25, 50)  # concept clips
DRAWS = 500  # of the bootstrap
CONCEPTS = (("direction", DIRECTIONS.index("left")), ("shape", GLYPH_SHAPES.index("ring")))
ESTIMATES = {"derivative": "derivative", "step_effect": "step effect", "sign_count": "sign count"}
MIN_VIDEOS = 5  # with fewer, runs have no verdict
WINDOWS_PER_VIDEO, WINDOW_CORRELATION = 5, 0.7
TRUE_SHARE, SCORE, SCORE_SPREAD = 0.5, 4.0, 2.0
TRUE_ACCURACY, ACCURACY_VIDEOS = 0.95, (50, 10)


def independent_intervals(size: Size) -> list[Row]:
    """Intervals of own effects, from clips of different videos."""
    return _all_coverages("clip", size)


def clustered_intervals(size: Size) -> list[Row]:
    """Intervals of own effects, from videos of 5 clips."""
    return _all_coverages("video", size)


def _all_coverages(unit: library.Unit, size: Size) -> list[Row]:
    rows = []
    for clips, stage, where in size.encoded():
        if clips.network == "worlds_swin" or stage != STAGES[clips.network][0]:
            for n in SIZES:
                rows += _coverage(clips, stage, where, n, unit, size)
    return rows


def _coverage(clips: EncodedClips, stage: str, where: str, n: int, unit: library.Unit, size: Size) -> list[Row]:
    covered: dict[str, list[list[bool]]] = defaultdict(list)
    ratio = []
    for head, answer in CONCEPTS:
        rng = generator("intervals", where, n, unit, head)
        examples = clips.activations[f"{stage}/dynamic"].astype(np.float64)
        all_targets = np.flatnonzero(clips.target_factors[head] == answer)
        gradients = clips.class_gradients(stage, head, all_targets).astype(np.float64)
        draws = size.intervals // len(CONCEPTS)
        intervals, truths, values = [], defaultdict(list), defaultdict(list)
        for i in range(draws):
            rows = _draw_examples(clips, rng, n, unit, (head, answer))
            gram = clips.grams(stage, examples[rows], {(head, answer): rng.choice(all_targets, 30)})[0]
            per_unit = CLIPS_PER_VIDEO if unit == "video" else 1
            estimates, coefficients = library.estimate(
                gram,
                library.concept_labels(n, RANDOM_CLIPS),
                draws=DRAWS,
                seed=[i],
                unit=unit,
                units=library.video_units(len(rows), per_unit),
            )
            vector = coefficients @ (examples[rows] - examples.mean(0))
            along = gradients @ vector
            truths["derivative"].append(along.mean())
            truths["step_effect"].append(along.mean() * _unseen_gap(clips, examples @ vector, rows, (head, answer)))
            truths["sign_count"].append((along > 0).mean())
            intervals.append(estimates.intervals)
            for name, value in estimates.values.items():
                values[name].append(value)
        for name in ESTIMATES:
            truth = np.mean(truths[name])
            ends = [part[name] for part in intervals if not math.isnan(part[name][0])]  # undefined for too few videos
            covered[name] += [[low <= truth <= high] for low, high in ends]
        ratio.append(np.mean(values["step_effect"]) / np.mean(truths["step_effect"]))
    # The sign count of a strong effect is 1 for all clips, so that its interval always contains the true value
    requirements = dict.fromkeys(ESTIMATES, COVERAGE) | {"sign_count": at_least(COVERAGE.low)}
    videos = n if unit == "clip" else n // CLIPS_PER_VIDEO
    kind = f"{n} independent clips" if unit == "clip" else f"{n} clips of {videos} videos"
    return [
        share_row(
            f"intervals, {kind}",
            f"coverage of the {text}",
            where,
            covered[name],
            requirements[name] if videos >= MIN_VIDEOS else None,
            size.exact,
            f"estimate / true value: {np.mean(ratio):.2f}" if name == "step_effect" else "",
        )
        for name, text in ESTIMATES.items()
    ]


def _draw_examples(
    clips: EncodedClips, rng: np.random.Generator, n: int, unit: library.Unit, concept: tuple[str, int]
) -> np.ndarray:
    """Draw clips of the concept, then random ones, ordered by video if clustered."""

    def draw(count: int, allowed: np.ndarray) -> np.ndarray:
        if unit == "clip":
            return clips.draw_clips(rng, count, allowed)
        return clips.draw_videos(rng, count // CLIPS_PER_VIDEO, allowed)

    rows = draw(n, clips.has_value(*concept))
    return np.concatenate([rows, draw(RANDOM_CLIPS, clips.without(rows))])


def _unseen_gap(
    clips: EncodedClips, along: Float[np.ndarray, " n"], rows: np.ndarray, concept: tuple[str, int]
) -> float:
    """Return the distance between the means of concept and random clips that the vector was not trained on."""
    unseen = clips.without(rows)
    return float(along[unseen & clips.has_value(*concept)].mean() - along[unseen].mean())


def share_intervals(size: Size) -> list[Row]:
    """Shares of motion of a class, from videos with one or 5 windows each."""
    rows = []
    for videos, windows in ((5, 1), (10, 1), (25, 1), (50, 1), (12, WINDOWS_PER_VIDEO)):
        rng, covered = generator("shares", videos, windows), []
        for _ in range(size.intervals):
            row = summarise_by_class(_motion_evidence(rng, videos, windows))[0]
            covered.append([row.drop_shuffled_low <= TRUE_SHARE <= row.drop_shuffled_high])
        kind = f"{videos} videos" + (f" of {windows} windows, correlation {WINDOW_CORRELATION}" if windows > 1 else "")
        rows.append(
            share_row(
                f"intervals, {kind}", "coverage of a motion share", "simulated scores", covered, COVERAGE, size.exact
            )
        )
    return rows


def accuracy_intervals(size: Size) -> list[Row]:
    """Accuracies over 50 videos of 10 clips, which are independent, alike or equal."""
    videos, clips = ACCURACY_VIDEOS
    rows, units = [], [str(video) for video in range(videos) for _ in range(clips)]
    for correlation in (0.0, 0.3, 0.7, 1.0):
        rng, covered = generator("accuracies", correlation), []
        for _ in range(size.intervals):
            is_copy = rng.random((videos, clips)) < correlation**0.5
            draws = rng.random((videos, 1)), rng.random((videos, clips))
            low, high = clustered_share_ci((np.where(is_copy, *draws) < TRUE_ACCURACY).ravel(), units)
            covered.append([low <= TRUE_ACCURACY <= high])
        kind = f"intervals, {videos} videos of {clips} clips, correlation {correlation:g}"
        measured = f"coverage of an accuracy of {TRUE_ACCURACY}"
        required = at_least(COVERAGE.low)
        rows.append(share_row(kind, measured, "simulated predictions", covered, required, size.exact))
    return rows


def _motion_evidence(rng: np.random.Generator, videos: int, windows: int) -> Sequence[MotionEvidence]:
    def scores(mean: float) -> np.ndarray:
        between, within = rng.normal(size=(videos, 1)), rng.normal(size=(videos, windows))
        spread = WINDOW_CORRELATION**0.5 * between + (1 - WINDOW_CORRELATION) ** 0.5 * within
        return mean + SCORE_SPREAD * spread

    original, edited = scores(SCORE), scores((1 - TRUE_SHARE) * SCORE)
    names = ("score_frozen", "score_shuffled", "score_reversed", "score_half_rate")
    unused = ("drop_frozen", "drop_shuffled", "changing_mass", "changing_mass_frozen", "changing_mass_excess")
    return [
        MotionEvidence(
            ClipMotionRow(
                f"video_{video}",
                window,
                f"video_{video}",
                "class",
                "class",
                original[video, window],
                0.0,
                **dict.fromkeys(names, edited[video, window]),
                **dict.fromkeys((*unused, "changing_area", "changing_lift"), math.nan),
            )
        )
        for video in range(videos)
        for window in range(windows)
    ]
