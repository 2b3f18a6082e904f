"""Motion tests of concepts that do and do not move, and families of tests as in the quickstart."""

from collections import defaultdict

import numpy as np

from benchmarks.statistics import library
from benchmarks.statistics.clips import (
    CLASSES,
    CONCEPT_CLIPS,
    CONTROLS,
    DISTRACTOR_FACTORS,
    RANDOM_CLIPS,
    STAGES,
    EncodedClips,
)
from benchmarks.statistics.results import Row, at_least, at_most, share_row
from benchmarks.statistics.size import ALPHA, MAX_LEVEL, PERMUTATIONS, Size, generator
from vtcav_jax.tcav.stats.multiple_testing import adjust_p
from vtcav_jax.worlds.spec import DIRECTIONS, GLYPH_SHAPES

OWN_SETS, OWN_P, MIN_OWN = 24, 0.001, 22 / 24
OWN_PERMUTATIONS = 1999
MAX_FALSE_FAMILIES = 0.1
FAMILY_CONCEPTS = (("direction", "left"), ("shape", "ring"), ("shape", "bars"))
FAMILY_CLASSES = (("direction", DIRECTIONS.index("left")), ("shape", GLYPH_SHAPES.index("ring")))
FAMILY_COMPARISONS = ("random", *CONTROLS)


def neutral_motion(size: Size) -> list[Row]:
    """Motion tests of concepts whose motion no tested class depends on."""
    rows = []
    direction_classes = tuple(name for name in CLASSES if name[0] == "direction")
    kinds = {
        "shapes, classes of direction": (("shape",), direction_classes),
        "distractor's factors, all classes": (DISTRACTOR_FACTORS, CLASSES),
    }
    for clips, stage, where in size.encoded():
        for kind, (factors, classes) in kinds.items():
            rng = generator("neutral motion", where, kind)
            hits: dict[str, list[np.ndarray]] = defaultdict(list)
            for i in range(size.draws):
                factor, value = factors[i % len(factors)], i // len(factors) % 4
                for control in CONTROLS:
                    tests = _test(clips, stage, (factor, value), control, classes, rng, PERMUTATIONS, i)
                    hits[control].append(tests.p <= ALPHA)
            rows += [
                share_row(f"motion: {kind}", f"p ≤ .05 against {control}", where, part, at_most(MAX_LEVEL), size.exact)
                for control, part in hits.items()
            ]
    return rows


def _draw(clips: EncodedClips, concept: tuple[str, int], rng: np.random.Generator) -> np.ndarray:
    """Draw clips of the concept, then random ones."""
    rows = clips.draw_clips(rng, CONCEPT_CLIPS, clips.has_value(*concept))
    return np.concatenate([rows, clips.draw_clips(rng, RANDOM_CLIPS, clips.without(rows))])


def _test(
    clips: EncodedClips,
    stage: str,
    concept: tuple[str, int],
    control: str,
    classes: tuple[tuple[str, int], ...],
    rng: np.random.Generator,
    permutations: int,
    seed: int,
) -> library.ClassTests:
    rows = _draw(clips, concept, rng)
    targets = {name: target_rows for name, target_rows in clips.draw_targets(rng).items() if name in classes}
    return _test_rows(clips, stage, rows, control, targets, permutations, seed)


def _test_rows(
    clips: EncodedClips,
    stage: str,
    rows: np.ndarray,
    control: str,
    targets: dict[tuple[str, int], np.ndarray],
    permutations: int,
    seed: int,
) -> library.ClassTests:
    """Test the first rows against random clips, or their motion against a control."""
    moving = clips.activations[f"{stage}/dynamic"][rows]
    if control == "random":
        grams = clips.grams(stage, moving, targets)
        labels = library.concept_labels(CONCEPT_CLIPS, RANDOM_CLIPS)
        return library.concept_tests(grams, labels, permutations=permutations, seed=[seed])
    grams = clips.grams(stage, np.concatenate([moving, clips.activations[f"{stage}/{control}"][rows]]), targets)
    return library.motion_tests(grams, CONCEPT_CLIPS, permutations=permutations, seed=[seed], motion="contrast")


def own_motion(size: Size) -> list[Row]:
    """Motion tests of directions, for their own class."""
    rows = []
    for clips, stage, where in size.encoded():
        for control in CONTROLS:
            rng, hits = generator("own motion", where, control), []
            for i in range(OWN_SETS):
                concept = ("direction", i % 4)
                tests = _test(clips, stage, concept, control, (concept,), rng, OWN_PERMUTATIONS, i)
                hits.append(tests.p <= OWN_P)
            required = at_least(MIN_OWN) if stage == "layers.1" and control != "reversed" else None
            rows.append(
                share_row(
                    "motion: directions, own class", f"p ≤ .001 against {control}", where, hits, required, size.exact
                )
            )
    return rows


def families(size: Size) -> list[Row]:
    """Families as in the quickstart: do they claim that the motion of a shape changes the score of a direction?

    Each family has three concepts, compared with random clips and with each control at two stages for two classes, and
    Holm's correction for all tests.
    """
    clips, stages = next((clips, STAGES[clips.network][:2]) for clips, *_ in size.encoded())
    n_tests = len(FAMILY_CONCEPTS) * len(FAMILY_COMPARISONS) * len(stages) * len(FAMILY_CLASSES)
    permutations = int(np.ceil(2 * n_tests / ALPHA)) - 1
    answers = {"direction": DIRECTIONS, "shape": GLYPH_SHAPES}
    false_claims, true_claims = [], []
    rng = generator("families")
    for i in range(size.families):
        p, is_false, is_true = [], [], []
        targets = {name: rows for name, rows in clips.draw_targets(rng).items() if name in FAMILY_CLASSES}
        for factor, name in FAMILY_CONCEPTS:
            rows = _draw(clips, (factor, answers[factor].index(name)), rng)
            for stage in stages:
                for j, control in enumerate(FAMILY_COMPARISONS):
                    p.append(_test_rows(clips, stage, rows, control, targets, permutations, 10 * i + j).p)
                    motion = control != "random"
                    is_false.append([motion and factor == "shape" and head == "direction" for head, _ in targets])
                    is_true.append([motion and factor == head == "direction" for head, _ in targets])
        adjusted = adjust_p(np.concatenate(p), "holm") <= ALPHA
        false_claims.append([bool(adjusted[np.concatenate(is_false)].any())])
        true_claims.append(adjusted[np.concatenate(is_true)])
    where = f"{clips.network}, {' and '.join(stages)}"
    scenario = f"family of {n_tests} tests"
    return [
        share_row(
            scenario, "families with a false motion claim", where, false_claims, at_most(MAX_FALSE_FAMILIES), size.exact
        ),
        share_row(
            scenario, "motion of left found for direction:left, adjusted p ≤ .05", where, true_claims, None, size.exact
        ),
    ]
