"""False-positive rates and power of tests against random clips: independent clips, clustered clips, confounders."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from benchmarks.statistics import library
from benchmarks.statistics.clips import (
    CLASSES,
    CLIPS_PER_VIDEO,
    CONCEPT_CLIPS,
    DISTRACTOR_FACTORS,
    RANDOM_CLIPS,
    ROLES,
    STAGES,
    TARGET_CLIPS,
    EncodedClips,
    class_grams,
    class_roles,
)
from benchmarks.statistics.results import LEVEL, Row, at_least, at_most, share_row
from benchmarks.statistics.size import ALPHA, MAX_LEVEL, MIN_POWER, PERMUTATIONS, Size, generator
from vtcav_jax.evaluation.tcav_benchmark.table import CAUSE_ROLE, DISTRACTOR_ROLE, OTHER_HEAD_ROLE
from vtcav_jax.tcav.experiment.confounders import MIN_REMAINING_SHARE
from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.worlds.glyphs import GLYPH_QUESTIONS
from vtcav_jax.worlds.spec import DIRECTIONS, GLYPH_SHAPES

BOOTSTRAP_DRAWS = 500
FACTORS = (*GLYPH_QUESTIONS, *DISTRACTOR_FACTORS)
CORRELATIONS = (0.1, 0.3, 0.6)  # of clips of one video
SIMULATED_FEATURES = 50
CONCEPT_VIDEOS, RANDOM_VIDEOS = CONCEPT_CLIPS // CLIPS_PER_VIDEO, RANDOM_CLIPS // CLIPS_PER_VIDEO
CALIBRATION_SETS = 6  # of 5 videos each
CONFOUNDED_SHARES = (0.25, 0.4, 0.6, 0.8)


def exchangeable(size: Size) -> list[Row]:
    """Random clips posed as a concept."""
    rows = []
    for clips, stage, where in size.encoded():
        rng, hits = generator("exchangeable", where), []
        for i in range(size.draws):
            examples = clips.draw_clips(rng, CONCEPT_CLIPS + RANDOM_CLIPS)
            hits.append(_test_clips(clips, stage, examples, rng, i).p <= ALPHA)
        rows.append(share_row("exchangeable clips", "p ≤ .05", where, hits, LEVEL, size.exact))
    return rows


def _test_clips(
    clips: EncodedClips,
    stage: str,
    examples: np.ndarray,
    rng: np.random.Generator,
    seed: int,
    unit: library.Unit = "clip",
    classes: tuple[tuple[str, int], ...] = CLASSES,
) -> library.ClassTests:
    """Test the first clips against the others, for new target clips of each class."""
    targets = {name: rows for name, rows in clips.draw_targets(rng).items() if name in classes}
    return library.concept_tests(
        clips.grams(stage, clips.activations[f"{stage}/dynamic"][examples], targets),
        library.concept_labels(CONCEPT_CLIPS, RANDOM_CLIPS),
        permutations=PERMUTATIONS,
        seed=[seed],
        unit=unit,
        units=library.video_units(len(examples), CLIPS_PER_VIDEO),
    )


def factor_roles(size: Size) -> list[Row]:
    """Clips that share the value of a factor: power for the own class, false findings for classes of other heads.

    A claim has p of at most .05 and an interval of the step effect that excludes 0, as a finding must.
    """
    own, distractor, other = (ROLES[role] for role in (CAUSE_ROLE, DISTRACTOR_ROLE, OTHER_HEAD_ROLE))
    rows = []
    for clips, stage, where in size.encoded():
        rng = generator("roles", where)
        hits: dict[str, list[np.ndarray]] = defaultdict(list)
        claims: dict[str, list[np.ndarray]] = defaultdict(list)
        unit_hits, steps = [], defaultdict(list)
        for i in range(size.draws):
            factor, value = FACTORS[i % len(FACTORS)], i // len(FACTORS) % 4
            concept = clips.draw_clips(rng, CONCEPT_CLIPS, clips.has_value(factor, value))
            examples = np.concatenate([concept, clips.draw_clips(rng, RANDOM_CLIPS, clips.without(concept))])
            grams = clips.grams(stage, clips.activations[f"{stage}/dynamic"][examples], clips.draw_targets(rng))
            labels = library.concept_labels(CONCEPT_CLIPS, RANDOM_CLIPS)
            tests = library.concept_tests(grams, labels, permutations=PERMUTATIONS, seed=[i])
            roles, found = np.array(class_roles(factor, value)), tests.p <= ALPHA
            claimed, step = found.copy(), np.full(len(found), np.nan)
            tested = np.flatnonzero([hit and role is not None for hit, role in zip(found, roles)])
            intervals = library.step_intervals([grams[c] for c in tested], labels, draws=BOOTSTRAP_DRAWS, seed=[i])
            for c, (effect, (low, high)) in zip(tested, intervals):
                claimed[c], step[c] = low * high > 0, abs(effect)
            for role in (own, distractor, other):
                hits[role].append(found[roles == role])
                claims[role].append(claimed[roles == role])
                steps[role] += step[claimed & (roles == role)].tolist()
            unit_hits.append((found & (tests.p_unit <= ALPHA))[roles == other])
        power = share_row("own factor", "claims", where, claims[own], None, size.exact)
        # A step along anything that is encoded changes the score slightly; what counts is what a run claims
        required = at_most(MAX_LEVEL) if power.value >= MIN_POWER else None
        medians = {role: float(np.median(values)) if values else float("nan") for role, values in steps.items()}
        note = f"median step {medians[other]:.2g} logits, own factor {medians[own]:.2g}"
        rows += [
            share_row("own factor", "p ≤ .05", where, hits[own], None, size.exact),
            power,
            share_row("distractor's factor", "p ≤ .05", where, hits[distractor], at_most(MAX_LEVEL), size.exact),
            share_row("distractor's factor", "claims", where, claims[distractor], None, size.exact),
            share_row("other head's factor", "p ≤ .05", where, hits[other], None, size.exact),
            share_row("other head's factor", "claims", where, claims[other], required, size.exact, note),
            share_row("other head's factor", "p ≤ .05 for step and derivative", where, unit_hits, None, size.exact),
        ]
    return rows


def simulated_videos(size: Size) -> list[Row]:
    """Gaussian features of clips that are correlated within videos: 25 clips of 5 videos against 125 of 25 videos."""
    rows = []
    for correlation in CORRELATIONS:
        rng, where = generator("videos", correlation), f"Gaussian, correlation {correlation:g}"
        hits: dict[library.Unit, list[np.ndarray]] = {"clip": [], "video": []}
        checks: list[np.ndarray] = []
        for i in range(size.draws):
            grams = class_grams(_video_features(rng, correlation), [_gradients(rng) for _ in range(4)])
            units = library.video_units(CONCEPT_CLIPS + RANDOM_CLIPS, CLIPS_PER_VIDEO)
            for unit in hits:
                tests = library.concept_tests(
                    grams,
                    library.concept_labels(CONCEPT_CLIPS, RANDOM_CLIPS),
                    permutations=PERMUTATIONS,
                    seed=[i],
                    unit=unit,
                    units=units,
                )
                hits[unit].append(tests.p <= ALPHA)
            if i % CALIBRATION_SETS == 0:
                checks.append(_calibration_hits(grams, i))
        rows += _video_rows(where, hits, checks, size)
    return rows


def _video_rows(
    where: str, hits: dict[library.Unit, list[np.ndarray]], checks: list[np.ndarray], size: Size
) -> list[Row]:
    scenario = "25 clips of 5 videos"
    check = at_least(1.5 * ALPHA) if np.mean(np.concatenate(hits["clip"])) > 2 * ALPHA else None
    return [
        share_row(scenario, "p ≤ .05, videos exchanged", where, hits["video"], at_most(MAX_LEVEL), size.exact),
        share_row(scenario, "p ≤ .05, clips exchanged", where, hits["clip"], None, size.exact),
        share_row(scenario, "calibration check, clips exchanged", where, checks, check, size.exact),
    ]


def _video_features(rng: np.random.Generator, correlation: float) -> Float[np.ndarray, "m d"]:
    videos = rng.normal(size=(CONCEPT_VIDEOS + RANDOM_VIDEOS, SIMULATED_FEATURES)).repeat(CLIPS_PER_VIDEO, 0)
    return correlation**0.5 * videos + (1 - correlation) ** 0.5 * rng.normal(size=videos.shape)


def _gradients(rng: np.random.Generator, spread: float = 0.5) -> Float[np.ndarray, "n d"]:
    """Return gradients of target clips around a common random direction."""
    return rng.normal(size=SIMULATED_FEATURES) + spread * rng.normal(size=(TARGET_CLIPS, SIMULATED_FEATURES))


def _calibration_hits(grams: list[Gram], seed: int) -> np.ndarray:
    """Return the rejections of the calibration check for random sets that are as clustered as the concept."""
    sets = np.split(np.arange(len(grams[0].kernel)), CALIBRATION_SETS)
    return library.calibration_p(grams, sets, permutations=PERMUTATIONS, seed=[seed]).ravel() <= ALPHA


def encoded_videos(size: Size) -> list[Row]:
    """Encoded clips of videos that share scene and distractor: 25 clips of 5 videos against 125 of 25 videos."""
    rows = []
    for clips, stage, where in size.encoded():
        rng = generator("encoded videos", where)
        hits: dict[library.Unit, list[np.ndarray]] = {"clip": [], "video": []}
        checks, found = [], []
        for i in range(size.draws):
            examples = clips.draw_videos(rng, CONCEPT_VIDEOS + RANDOM_VIDEOS)
            seed = int(rng.integers(2**31))
            for unit in hits:
                tests = _test_clips(clips, stage, examples, np.random.default_rng(seed), i, unit)
                hits[unit].append(tests.p <= ALPHA)
            if i % CALIBRATION_SETS == 0:
                grams = clips.grams(stage, clips.activations[f"{stage}/dynamic"][examples], clips.draw_targets(rng))
                checks.append(_calibration_hits(grams, i))
            factor, value = ("shape", "direction")[i % 2], i // 2 % 4
            concept = clips.draw_videos(rng, CONCEPT_VIDEOS, clips.has_value(factor, value))
            examples = np.concatenate([concept, clips.draw_videos(rng, RANDOM_VIDEOS, clips.without(concept))])
            tests = _test_clips(clips, stage, examples, rng, i, "video", classes=((factor, value),))
            found.append(tests.p <= ALPHA)
        rows += _video_rows(where, hits, checks, size)
        rows.append(
            share_row(
                "25 clips of 5 videos", "power for the own factor, videos exchanged", where, found, None, size.exact
            )
        )
    return rows


def planted(size: Size) -> list[Row]:
    """A linear network whose main variation is the concept: vectors of all permutations are nearly parallel to it.

    Some lean towards another feature that raises the score more, so that the derivative has little power: it does not
    depend on the distance between the means.
    """
    rng, hits, unit_hits = generator("planted"), [], []
    for i in range(size.draws):
        examples = 0.05 * rng.normal(size=(CONCEPT_CLIPS + RANDOM_CLIPS, SIMULATED_FEATURES))
        examples[:, 0] = np.concatenate([rng.normal(1.5, 0.5, CONCEPT_CLIPS), rng.normal(0, 1, RANDOM_CLIPS)])
        examples[:, 1] = rng.normal(0, 0.3, len(examples))
        gradients = 0.01 * rng.normal(size=(TARGET_CLIPS, SIMULATED_FEATURES))
        gradients[:, :2] += (1, 2)
        tests = library.concept_tests(
            class_grams(examples, [gradients]),
            library.concept_labels(CONCEPT_CLIPS, RANDOM_CLIPS),
            permutations=PERMUTATIONS,
            seed=[i],
        )
        hits.append(tests.p <= ALPHA)
        unit_hits.append(tests.p_unit <= ALPHA)
    where = "linear network, Gaussian"
    return [
        share_row("planted concept", "power at .05", where, hits, at_least(0.95), size.exact),
        share_row("planted concept", "power at .05 of the derivative", where, unit_hits, None, size.exact),
    ]


@dataclass(frozen=True)
class Claims:
    """Effects by class, and which of them are claims: p and the interval are those that a finding needs."""

    claimed: Bool[np.ndarray, " c"]
    steps: Float[np.ndarray, " c"]


def _claims(
    clips: EncodedClips,
    stage: str,
    examples: np.ndarray,
    rng: np.random.Generator,
    seed: int,
    classes: tuple[tuple[str, int], ...],
    strata: np.ndarray | None,
) -> Claims:
    """Test the first clips against the others for the classes, if `strata` are given within them."""
    targets = {name: rows for name, rows in clips.draw_targets(rng).items() if name in classes}
    grams = clips.grams(stage, clips.activations[f"{stage}/dynamic"][examples], targets)
    labels = library.concept_labels(CONCEPT_CLIPS, RANDOM_CLIPS)
    tests = library.concept_tests(grams, labels, permutations=PERMUTATIONS, seed=[seed], strata=strata)
    weights = labels if strata is None else library.weigh_strata(labels, strata)
    intervals = library.step_intervals(grams, weights, draws=BOOTSTRAP_DRAWS, seed=[seed])
    steps, bounds = np.array([step for step, _ in intervals]), np.array([bound for _, bound in intervals])
    return Claims((tests.p <= ALPHA) & (bounds.prod(1) > 0), steps)


def confounded(size: Size) -> list[Row]:
    """Clips of rings, of which a share moves left, tested for direction:left, and for shape:ring."""
    ring, left = GLYPH_SHAPES.index("ring"), DIRECTIONS.index("left")
    rows = []
    for clips, stage, where in size.encoded():
        if stage == STAGES[clips.network][0]:
            continue
        for share in CONFOUNDED_SHARES:
            rng, n_left = generator("confounded", where, share), round(share * CONCEPT_CLIPS)
            found, conditioned, remaining, own = [], [], [], []
            for i in range(max(size.draws // 3, 20)):
                is_ring, is_left = clips.has_value("shape", ring), clips.has_value("direction", left)
                concept = np.concatenate(
                    [
                        clips.draw_clips(rng, n_left, is_ring & is_left),
                        clips.draw_clips(rng, CONCEPT_CLIPS - n_left, is_ring & ~is_left),
                    ]
                )
                examples = np.concatenate([concept, clips.draw_clips(rng, RANDOM_CLIPS, clips.without(concept))])
                classes, seed = (("shape", ring), ("direction", left)), int(rng.integers(2**31))
                plain, stratified = (
                    _claims(clips, stage, examples, np.random.default_rng(seed), i, classes, strata)
                    for strata in (None, clips.factors["direction"][examples])
                )
                found.append(plain.claimed[1:])
                conditioned.append(stratified.claimed[1:])
                remaining.append((stratified.claimed & (stratified.steps / plain.steps >= MIN_REMAINING_SHARE))[1:])
                own.append(stratified.claimed[:1])
            # At 25 %, the share of all clips, nothing is confounded: what is left is the ring's own small effect
            strong = share >= 0.6
            scenario = f"rings, {100 * share:.0f} % of which move left"
            flagged = [~remains[hit] for hit, remains in zip(found, remaining)]
            rows += [
                share_row(scenario, "direction:left claimed", where, found, None, size.exact),
                share_row(
                    scenario,
                    "direction:left claimed within each direction",
                    where,
                    conditioned,
                    at_most(MAX_LEVEL) if strong else None,
                    size.exact,
                ),
                share_row(
                    scenario,
                    "findings explained by the direction",
                    where,
                    flagged,
                    at_least(0.9) if strong else None,
                    size.exact,
                ),
                share_row(scenario, "shape:ring claimed within each direction", where, own, at_least(0.9), size.exact),
            ]
    return rows
