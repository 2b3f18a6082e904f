"""Comparisons of an experiment: concept clips, negatives, and which of them a permutation test may exchange."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.concepts.concept_sets import ConceptClip
from vtcav_jax.concepts.config import NEGATIVE_PREFIX
from vtcav_jax.concepts.crops import CONTROLS
from vtcav_jax.tcav.experiment.config import ExperimentConfig
from vtcav_jax.tcav.features.gram import difference_kernel
from vtcav_jax.tcav.stats.permutation_test import min_attainable_p
from vtcav_jax.tcav.stats.vectors import ConceptVectors, concatenate_vectors, fit, label_vector, side_weights

OTHERS = "others"  # the union of the other concepts
GROUP = "group"  # the other concepts and the random clips, each with the same weight


@dataclass(frozen=True)
class Comparison:
    """One hypothesis, tested for each class and stage (layer): the class is more sensitive to concept than negatives.

    `pairs` are dynamic clips of the concept with their matched controls. With `random_pairs`, those of random clips,
    the comparison is a contrast: the differences (dynamic clip - control) of the concept are compared with those of
    random clips, so that whatever freezing or shuffling does to any clip cancels. `random_sets` are the random sets
    that the negatives consist of, by name, `negative_weights` the weights of the negatives, empty if all are 1.
    `strata` are the strata of the positive and then of the negative clips, between which no label is permuted.
    """

    comparison_type: str
    concept: str
    clip_type: str
    negatives: str
    positive_clips: tuple[int, ...]
    negative_clips: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...] = ()
    random_sets: tuple[tuple[str, tuple[int, ...]], ...] = ()
    negative_weights: tuple[float, ...] = ()
    random_pairs: tuple[tuple[int, int], ...] = ()
    strata: tuple[str, ...] = ()

    @property
    def examples(self) -> tuple[int, ...]:
        """All clips of the comparison, in order."""
        pair_clips = (row for pair in (*self.pairs, *self.random_pairs) for row in pair)
        return tuple(sorted({*self.positive_clips, *self.negative_clips, *pair_clips}))

    @property
    def differences(self) -> tuple[tuple[int, int], ...]:
        """The pairs whose differences a contrast compares, those of the concept first."""
        return (*self.pairs, *self.random_pairs) if self.random_pairs else ()

    @property
    def name(self) -> str:
        return f"{self.concept}/{self.clip_type}/{self.negatives}"

    @property
    def seed(self) -> int:
        """Seed that depends on the name only, so that results do not depend on the other comparisons."""
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8])

    def label_vector(self, count: int) -> Float[np.ndarray, " m"]:
        out = label_vector(self.positive_clips, self.negative_clips, count)
        if self.negative_weights:
            out[list(self.negative_clips)] *= self.negative_weights
        return out

    def mean_difference(self, count: int) -> Float[np.ndarray, " m"]:
        """Return the coefficients of the mean difference that the step effect moves by."""
        labels = contrast_labels(self) if self.differences else self.label_vector(count)
        coefficients = np.subtract(*side_weights(labels[None]))[0]
        return coefficients @ difference_matrix(self.differences, count) if self.differences else coefficients

    def blocks(self, count: int) -> Int[np.ndarray, " m"] | None:
        """Return the pair of each clip, for a comparison of clips with their own controls."""
        if not self.pairs or self.random_pairs:
            return None
        out = np.zeros(count, int)
        for number, pair in enumerate(self.pairs):
            out[list(pair)] = number
        return out

    def stratum_codes(self, count: int) -> Int[np.ndarray, " m"] | None:
        """Return the stratum of each clip as a number, or None without strata."""
        if not self.strata:
            return None
        out = np.zeros(count, int)
        out[[*self.positive_clips, *self.negative_clips]] = np.unique(self.strata, return_inverse=True)[1]
        return out

    def min_attainable_p(self, config: ExperimentConfig, video_ids: Int[np.ndarray, " m"]) -> float:
        """Return the smallest p-value that the test can give."""
        if config.permute == "sets" and self.random_sets:
            return 1 / (1 + len(self.random_sets))
        count = len(video_ids)
        units = video_ids if config.permute == "videos" else None
        return min_attainable_p(
            self.label_vector(count),
            config.num_permutations(1),
            self.blocks(count),
            units,
            self.stratum_codes(count),
        )

    def n_videos(self, video_ids: Int[np.ndarray, " m"]) -> int:
        """Return the number of source videos on the side that has fewer."""
        sides = (self.positive_clips, self.negative_clips)
        return min(len(np.unique(video_ids[list(side)])) for side in sides)


def fit_comparisons(
    kernel: Float[np.ndarray, "m m"], comparisons: Sequence[Comparison], config: ExperimentConfig
) -> ConceptVectors:
    """Fit the vector of each comparison, as coefficients of clips.

    A contrast has no intercept (NaN): it classifies differences of clips, not clips.
    """
    contrasts = [i for i, comparison in enumerate(comparisons) if comparison.differences]
    plain = [i for i, comparison in enumerate(comparisons) if not comparison.differences]
    parts: list[tuple[list[int], ConceptVectors]] = []
    if plain:
        labels = np.stack([comparisons[i].label_vector(len(kernel)) for i in plain])
        parts.append((plain, fit(kernel, labels, config.fit_config)))
    for i in contrasts:
        pairs, labels = comparisons[i].differences, contrast_labels(comparisons[i])
        vectors = fit(difference_kernel(kernel, pairs), labels[None], config.fit_config)
        a = vectors.a @ difference_matrix(pairs, len(kernel))
        parts.append(([i], replace(vectors, a=a, intercept=np.full(1, np.nan))))
    order = np.argsort([i for rows, _ in parts for i in rows])
    return concatenate_vectors([vectors for _, vectors in parts]).take(order)


def difference_matrix(pairs: Sequence[tuple[int, int]], count: int) -> Float[np.ndarray, "p m"]:
    """Return the matrix that maps clips to pair differences, first clip minus second."""
    out = np.zeros((len(pairs), count))
    rows = np.arange(len(pairs))
    for side, sign in ((0, 1.0), (1, -1.0)):
        out[rows, [pair[side] for pair in pairs]] += sign
    return out


def contrast_labels(comparison: Comparison) -> Float[np.ndarray, " p"]:
    """Return 1 for the pairs of the concept, and -1 or their negative weight for those of random clips."""
    weights = comparison.negative_weights or np.ones(len(comparison.random_pairs))
    return np.concatenate([np.ones(len(comparison.pairs)), -np.asarray(weights)])


@dataclass(frozen=True)
class Comparisons:
    """All comparisons of an experiment, with notes about those that are not possible."""

    entries: tuple[Comparison, ...]
    notes: tuple[str, ...]
    random_sets: dict[str, dict[str, tuple[int, ...]]]  # clips of the random sets, by clip type and name


def build_comparisons(clips: Sequence[ConceptClip], config: ExperimentConfig) -> Comparisons:
    """Return the comparisons that `clips` allow, ordered by concept and clip type."""
    rows_of: dict[tuple[str, str], tuple[int, ...]] = {}
    for i, clip in enumerate(clips):
        rows_of[clip.concept, clip.clip_type] = (*rows_of.get((clip.concept, clip.clip_type), ()), i)
    concepts = [name for name in dict.fromkeys(clip.concept for clip in clips) if not _is_negative(name)]
    random_names = [name for name in dict.fromkeys(clip.concept for clip in clips) if _is_negative(name)]
    clip_types = [
        clip_type
        for clip_type in dict.fromkeys(clip_type for name, clip_type in rows_of if name in concepts)
        if clip_type not in CONTROLS
    ]
    random_sets = {
        clip_type: {name: rows_of[name, clip_type] for name in random_names if (name, clip_type) in rows_of}
        for clip_type in clip_types
    }
    rows_of_any_type = {
        name: sum((rows for (other, kind), rows in rows_of.items() if other == name and kind not in CONTROLS), ())
        for name in random_names
    }
    comparisons, notes = [], []
    for clip_type in clip_types:
        if not random_sets[clip_type] and rows_of_any_type:
            random_sets[clip_type] = rows_of_any_type
            notes.append(
                f"no random set has {clip_type} clips; random clips of other types are used, so that the clip type"
                " alone can cause a difference"
            )
    random_pairs = {
        control: tuple(
            pair
            for name in random_names
            for pair in match_controls(clips, rows_of.get((name, "dynamic"), ()), rows_of.get((name, control), ()))
        )
        for control in CONTROLS
    }
    has_controls = any((concept, control) in rows_of for concept in concepts for control in CONTROLS)
    if "motion" in config.comparisons and has_controls and not any(random_pairs.values()):
        notes.append(
            "the random clips have no matched controls, so motion is not tested; mine the concepts again with this"
            " version, or use --comparisons=freezing"
        )
    if not random_names and "absolute" in config.comparisons:
        notes.append(f"there are no random sets ({NEGATIVE_PREFIX}...), so no concept is compared with random clips")
    for concept in concepts:
        for clip_type in clip_types:
            concept_rows = rows_of.get((concept, clip_type), ())
            if not concept_rows:
                notes.append(f"{concept} has no {clip_type} clips and is not tested as a {clip_type} concept")
                continue
            others = [
                (name, rows_of[name, clip_type])
                for name in concepts
                if name != concept and (name, clip_type) in rows_of
            ]
            if "absolute" in config.comparisons and random_sets[clip_type]:
                random_rows = sum(random_sets[clip_type].values(), ())
                comparisons.append(
                    Comparison(
                        "absolute",
                        concept,
                        clip_type,
                        NEGATIVE_PREFIX,
                        concept_rows,
                        random_rows,
                        (),
                        tuple(random_sets[clip_type].items()),
                    )
                )
            is_mirrored = len(others) == 1 and others[0][0] in concepts[: concepts.index(concept)]
            if "relative" in config.comparisons and is_mirrored:
                notes.append(
                    f"{others[0][0]} against {concept} ({clip_type}) is one question and is tested once; the relative"
                    f" effect of {concept} is that of {others[0][0]} with the other sign"
                )
            elif "relative" in config.comparisons and others:
                union = sum((rows for _, rows in others), ())
                comparisons.append(Comparison("relative", concept, clip_type, OTHERS, concept_rows, union))
            if "group" in config.comparisons and (others or random_sets[clip_type]):
                members = [rows for _, rows in others] + [sum(random_sets[clip_type].values(), ())] * bool(
                    random_sets[clip_type]
                )
                rest, weights = _equal_weights(concept_rows, members)
                comparisons.append(
                    Comparison("group", concept, clip_type, GROUP, concept_rows, rest, negative_weights=weights)
                )
            if "pairs" in config.comparisons:
                comparisons += [
                    Comparison("pairs", concept, clip_type, name, concept_rows, rows)
                    for name, rows in others
                    if concept < name
                ]
        for control in CONTROLS:
            pairs = match_controls(clips, rows_of.get((concept, "dynamic"), ()), rows_of.get((concept, control), ()))
            if not pairs:
                continue
            dynamic_clips, control_clips = (tuple(side) for side in zip(*pairs))
            if "motion" in config.comparisons and (others := random_pairs.get(control)):
                comparisons.append(
                    Comparison(
                        "motion",
                        concept,
                        "dynamic",
                        control,
                        dynamic_clips,
                        tuple(row for row, _ in others),
                        pairs,
                        random_pairs=others,
                    )
                )
            if "freezing" in config.comparisons:
                comparisons.append(
                    Comparison("freezing", concept, "dynamic", f"own_{control}", dynamic_clips, control_clips, pairs)
                )
    too_small = [
        comparison
        for comparison in comparisons
        if min(len(comparison.positive_clips), len(comparison.negative_clips)) < 2
    ]
    notes += [
        f"{comparison.name} is not tested: {len(comparison.positive_clips)} concept clips and"
        f" {len(comparison.negative_clips)} negatives, at least 2 of each are needed"
        for comparison in too_small
    ]
    return Comparisons(
        tuple(comparison for comparison in comparisons if comparison not in too_small), tuple(notes), random_sets
    )


def _equal_weights(
    concept_rows: Sequence[int], members: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the clips of all members, and weights with the same sum for all members, in total `len(concept_rows)`."""
    rest = tuple(i for rows in members for i in rows)
    return rest, tuple(len(concept_rows) / len(members) / len(rows) for rows in members for _ in rows)


def match_controls(
    clips: Sequence[ConceptClip], dynamic: Sequence[int], controls: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """Return pairs of dynamic clips and their matched controls, by concepts.csv or else by equal file names."""
    by_file = {clips[i].file: i for i in dynamic}
    by_name = {PurePosixPath(clips[i].file).name: i for i in dynamic}
    pairs = []
    for i in controls:
        clip = clips[i]
        match = by_file.get(clip.control_of) if clip.control_of else by_name.get(PurePosixPath(clip.file).name)
        if match is not None:
            pairs.append((match, i))
    return tuple(pairs)


def _is_negative(name: str) -> bool:
    return name.lower().startswith(NEGATIVE_PREFIX)
