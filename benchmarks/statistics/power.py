"""Smallest detectable effect by number of source videos and clips per video.

Concepts are clips of which a share moves left; the others move in any direction. Their effect on direction:left is that
share of the effect of a pure concept, and the test has a power for each share.
"""

from typing import Any

import numpy as np

from benchmarks.statistics import library
from benchmarks.statistics.clips import CLIPS_PER_VIDEO, RANDOM_CLIPS, EncodedClips, load_encoded
from benchmarks.statistics.results import Row, share_row
from benchmarks.statistics.size import ALPHA, Size, generator
from benchmarks.tables import markdown
from vtcav_jax.tcav.experiment.verdicts import videos_needed
from vtcav_jax.worlds.spec import DIRECTIONS

NETWORK, STAGE = "worlds_swin", "layers.1"
LEFT: tuple[str, int] = ("direction", DIRECTIONS.index("left"))
LAYOUTS = ((5, 1), (10, 1), (20, 1), (50, 1), (5, 5), (10, 5), (20, 5))  # videos of the concept, clips per video
SHARES = (0.15, 0.3, 0.45, 0.6, 0.8, 1.0)
FAMILY = 100
PERMUTATIONS = 2 * FAMILY * 20 - 1
POWER = 0.8
SCENARIO = "power"
KINDS = ("alone", "corrected")


def power(size: Size) -> list[Row]:
    """Measure the power for each layout and share; in a small run nothing."""
    if not size.exact:
        return []
    clips = load_encoded(NETWORK, size.clips, size.targets)
    is_left = clips.has_value(*LEFT)
    rows = []
    for videos, per_video in LAYOUTS:
        where = f"{videos} videos of {per_video}"
        for share in SHARES:
            rng = generator(SCENARIO, where, share)
            alone, corrected, steps = [], [], []
            for i in range(max(size.draws // 6, 4)):
                n_left = int(rng.binomial(videos, share))
                concept = _draw(clips, rng, n_left, per_video, is_left)
                mixed = _draw(clips, rng, videos - n_left, per_video, clips.without(concept))
                concept = np.concatenate([concept, mixed]).astype(int)
                random = _draw(clips, rng, RANDOM_CLIPS // per_video, per_video, clips.without(concept))
                examples = np.concatenate([concept, random])
                targets = {LEFT: clips.draw_targets(rng)[LEFT]}
                grams = clips.grams(STAGE, clips.activations[f"{STAGE}/dynamic"][examples], targets)
                labels = library.concept_labels(len(concept), len(random))
                units = library.video_units(len(examples), per_video)
                tests = library.concept_tests(
                    grams, labels, permutations=PERMUTATIONS, seed=[i], unit="video", units=units
                )
                alone.append(tests.p <= ALPHA)
                corrected.append(tests.p <= ALPHA / FAMILY)
                if share == 1.0:
                    steps.append(library.step_intervals(grams, labels, draws=2, seed=[i])[0][0])
            note = f"{np.mean(steps):.3g}" if steps else ""
            rows += [
                share_row(SCENARIO, f"{share:g} alone", where, alone, None, size.exact, note),
                share_row(SCENARIO, f"{share:g} corrected", where, corrected, None, size.exact),
            ]
    return rows


def _draw(
    clips: EncodedClips, rng: np.random.Generator, videos: int, per_video: int, allowed: np.ndarray
) -> np.ndarray:
    if per_video == CLIPS_PER_VIDEO:
        return clips.draw_videos(rng, videos, allowed)
    return clips.draw_clips(rng, videos * per_video, allowed)


def power_table(rows: list[dict[str, Any]]) -> str:
    """Return the table of smallest detectable effects: logits and share of the effect of a pure concept."""
    by_layout: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row["scenario"] == SCENARIO:
            by_layout.setdefault(row["where"], {})[row["measured"]] = row
    body = []
    effect = float(np.mean([float(cells["1 alone"]["note"]) for cells in by_layout.values()])) if by_layout else 0.0
    for where, cells in by_layout.items():
        videos, per_video = (int(part) for part in where.split(" videos of "))
        limits = [smallest_share([cells[f"{share:g} {kind}"]["value"] for share in SHARES]) for kind in KINDS]
        cells_text = ["none" if limit is None else f"{limit * effect:.1f} ({100 * limit:.0f} %)" for limit in limits]
        body.append((videos, per_video, videos * per_video, *cells_text))
    head = ("concept videos", "clips per video", "clips", "alone, p ≤ .05", f"one of {FAMILY} tests, adjusted p ≤ .05")
    return markdown(head, body) if body else ""


def videos_table(rows: list[dict[str, Any]]) -> str:
    """Return how many concept videos a finding needs, by the number of random videos and of tests."""
    del rows  # follows from the numbers of permutations alone
    families = (1, 10, 100, 1000)
    head = ("random videos", *(f"{family} test{'s' * (family > 1)}" for family in families))
    body = [
        (n, *(videos_needed(n, ALPHA / family) or "not possible" for family in families)) for n in (5, 10, 25, 50, 125)
    ]
    return markdown(head, body)


def smallest_share(powers: list[float]) -> float | None:
    """Return the share at which the power reaches 0.8, interpolated between measured shares; None if it does not."""
    previous_share, previous_power = 0.0, 0.0
    for share, value in zip(SHARES, powers):
        if value >= POWER:
            return previous_share + (share - previous_share) * (POWER - previous_power) / (value - previous_power)
        previous_share, previous_power = share, value
    return None
