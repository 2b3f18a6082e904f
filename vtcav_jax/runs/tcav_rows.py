"""Rows of the tables of `vtcav tcav` and `vtcav score_concepts`."""

from collections.abc import Iterable
from dataclasses import dataclass

SCORES_CSV, QUALITY_CSV, DERIVATIVES_CSV, STEERING_CSV = "scores.csv", "quality.csv", "derivatives.csv", "steering.csv"
COSINES_CSV, SAHA2024_CSV, CONFOUNDERS_CSV = "cosines.csv", "saha2024.csv", "confounders.csv"
ANIMATIONS_CSV, PREDICTIONS_CSV = "animations.csv", "predictions.csv"
CONCEPT_SCORES_CSV, PROJECTIONS_CSV = "concept_scores.csv", "projections.csv"


@dataclass(frozen=True)
class ScoreRow:
    """Result of one test: a comparison at a stage (layer) for a class. Positive: the concept raises the class score.

    `tcav_score` is the share of target clips with a positive directional derivative along the concept vector,
    `derivative` the mean derivative along the unit vector, `relative_derivative` its ratio to the mean gradient norm.
    `_low` and `_high` are 95 % intervals over resampled concept clips, negatives and target clips together;
    `_concepts`, `_negatives` and `_clips` over one of them. `step_effect` is the first-order score change for the step
    from the mean of the negatives to that of the concept. `p` is `p_step` (of the step effect) or `p_unit` (of the
    derivative), as the setting `statistic` says. `single_set_min` and `single_set_max` are the extreme derivatives of
    vectors against one of the `n_random_sets` random sets. `gradient_diversity` measures how much the gradients of the
    target clips differ in direction (about 0 in a degenerate layer). `null_low` and `null_high` are the central 95 %
    of the test statistic under permutation.
    """

    target: str
    stage: str
    concept: str
    clip_type: str
    negatives: str
    n_clips: int
    tcav_score: float
    tcav_score_low: float
    tcav_score_high: float
    derivative: float
    derivative_low: float
    derivative_high: float
    p: float
    p_adjusted: float
    verdict: str
    comparison: str
    n_concept: int
    n_negatives: int
    n_videos: int
    n_target_videos: int
    unit: str
    relative_derivative: float
    relative_derivative_low: float
    relative_derivative_high: float
    step_effect: float
    step_effect_low: float
    step_effect_high: float
    step_effect_in_sample: float
    p_step: float
    p_unit: float
    p_min_attainable: float
    p_sign_count: float
    p_sets: float
    n_random_sets: int
    single_set_min: float
    single_set_max: float
    derivative_low_concepts: float
    derivative_high_concepts: float
    derivative_low_negatives: float
    derivative_high_negatives: float
    derivative_low_clips: float
    derivative_high_clips: float
    auc: float
    auc_p: float
    n_ties: int
    gradient_diversity: float
    degenerate: bool
    zero_gradient: bool
    score_fn: str
    sensitivity: str
    null_low: float
    null_high: float

    @property
    def name(self) -> str:
        return f"{self.concept} ({self.clip_type}) against {self.negatives}"


def degenerate_stages(rows: Iterable[ScoreRow]) -> set[str]:
    """Return the stages at which the gradients of all clips are parallel, for every class that was tested there."""
    by_stage: dict[str, bool] = {}
    for row in rows:
        by_stage[row.stage] = row.degenerate and by_stage.get(row.stage, True)
    return {stage for stage, is_degenerate in by_stage.items() if is_degenerate}


@dataclass(frozen=True)
class VectorRow:
    """Validation of one concept vector.

    `most_similar` names the vector of another concept, for the same type of comparison, with the largest absolute
    cosine; `mean_difference_cosine` is the cosine to the difference of the two means. Clips of one source video share a
    cross-validation fold, unless a side has only one video; `n_source_videos` counts those of the side with fewer.
    """

    stage: str
    comparison: str
    concept: str
    clip_type: str
    negatives: str
    n_concept: int
    n_negatives: int
    auc: float
    auc_p: float
    auc_p_min_attainable: float
    folds: int
    n_source_videos: int
    split_half: float
    split_half_low: float
    split_half_high: float
    most_similar: str
    most_similar_cosine: float
    mean_difference_cosine: float
    estimator: str
    l2: float
    vector_norm: float
    intercept: float
    iterations: int
    solver_residual: float
    converged: bool
    n_permutations_not_converged: int  # of the vectors with permuted labels


@dataclass(frozen=True)
class DerivativeRow:
    """Derivative of a class score at one clip along a concept vector."""

    target: str
    stage: str
    concept: str
    clip_type: str
    negatives: str
    clip: str
    class_score: float
    derivative: float
    gradient_norm: float


@dataclass(frozen=True)
class CalibrationRow:
    """Result of the calibration check of one clip type: `rate` is the false-positive rate, which should be alpha.

    Classes, stages and overlapping sets are not independent trials, so the Wilson interval `low` to `high` is too
    narrow.
    """

    clip_type: str
    set_origin: str  # "sets": the random sets themselves; "drawn": sets drawn from all their clips
    n_rejected: int
    n_trials: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        return self.n_rejected / self.n_trials


@dataclass(frozen=True)
class SteeringRow:
    """Mean score change of `n_clips` target clips when their activations are moved along a concept vector.

    The move is `step_units` times the distance from the mean of the negatives to that of the concept, `step_norm`
    long. `score_change_low` to `score_change_high` is the 95 % interval over the source videos of these clips,
    `predicted_change` is the change by their derivatives. `random_low` to `random_high` are the central 95 % of equally
    long moves in random directions, and `p_random_directions` is the p-value against them; NaN without such moves.
    """

    target: str
    stage: str
    concept: str
    clip_type: str
    negatives: str
    step_units: float
    step_norm: float
    n_clips: int
    score_change: float
    score_change_low: float
    score_change_high: float
    predicted_change: float
    random_low: float
    random_high: float
    p_random_directions: float


@dataclass(frozen=True)
class ConfounderRow:
    """A label or another concept that is correlated with the concept of a finding, and what it explains.

    Of a label, `name` has the `value` in `share_concept` of the concept clips and `share_negatives` of the negatives,
    and `effect` with its interval and `p` (not adjusted) is the effect within clips of the same label; NaN if the two
    sides share no label. Of a concept, `explained_share` is the part of the derivative along its vector: cosine × its
    derivative / derivative of the finding. `explains` if within labels p is above alpha, the interval contains 0 or
    less than half of the effect is left, or if at least half of the derivative is along the other vector.
    """

    target: str
    stage: str
    concept: str
    clip_type: str
    negatives: str
    kind: str  # label or concept
    name: str
    value: str
    share_concept: float
    share_negatives: float
    effect: float
    effect_low: float
    effect_high: float
    p: float
    cosine: float
    explained_share: float
    explains: bool


@dataclass(frozen=True)
class ConceptScoreRow:
    """Scores of one clip for a class and a concept vector.

    `projection` is the (pooled) activation along the unit vector, `classifier_logit` the logit of the concept's
    classifier (above 0: the concept), `derivative` the derivative of the class score along the unit vector.
    """

    clip: str
    target: str
    stage: str
    concept_vector: str
    class_score: float
    derivative: float
    projection: float
    classifier_logit: float


@dataclass(frozen=True)
class ProjectionRow:
    """Part of a clip's projection that comes from one time step of the stage.

    The projection is the sum of its parts, or their mean where time is pooled. `clip_fraction` is the position of the
    step in the clip, 0 to 1.
    """

    clip: str
    stage: str
    concept_vector: str
    time_index: int
    clip_fraction: float
    projection: float


@dataclass(frozen=True)
class CosineRow:
    """Cosine between two vectors of a stage that belong to the same type of comparison."""

    stage: str
    comparison: str
    left: str
    right: str
    cosine: float


@dataclass(frozen=True)
class Saha2024Row:
    """Result of a test as in Saha et al. (2024); `tcav_score` is the mean over `n_runs`, one for each random set.

    `t_statistic`, `p` and `p_as_published` are NaN where all runs have the same TCAV score; `note` says so.
    `p_sign_test` is the exact two-sided p-value of the signs of (TCAV score - 1/2). All of them treat the runs as
    independent, which they are not.
    """

    target: str
    stage: str
    group: str
    concept: str
    clip_type: str
    n_runs: int
    tcav_score: float
    tcav_score_min: float  # over the runs, as `tcav_score_max`
    tcav_score_max: float
    t_statistic: float
    p: float
    p_adjusted: float  # of the tests with a `p`, Bonferroni
    p_as_published: float  # computed as in the paper
    p_sign_test: float
    n_clips: int
    note: str


@dataclass(frozen=True)
class Animation:
    """A preview on the page.

    `role` is `concept` (a sheet of `n_shown` of `n_total` clips), `discovered` (where the concept is in its strongest
    clips) or `target` (one clip).
    """

    role: str
    name: str
    clip_type: str
    file: str
    n_shown: int
    n_total: int


@dataclass(frozen=True)
class PredictionRow:
    """The network's prediction for a target clip; `correct` if it is the target class.

    `lead` is the log odds of the target class against all other classes of its head.
    """

    target: str
    clip: str
    answer: str
    probability: float  # of the target class
    correct: bool
    lead: float
