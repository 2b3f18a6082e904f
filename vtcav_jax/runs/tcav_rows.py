"""Rows of the tables of Video-TCAV."""

from dataclasses import dataclass

SCORES_CSV, QUALITY_CSV, DERIVATIVES_CSV, STEERING_CSV = "scores.csv", "quality.csv", "derivatives.csv", "steering.csv"
COSINES_CSV, SAHA2024_CSV = "cosines.csv", "saha2024.csv"
ANIMATIONS_CSV, PREDICTIONS_CSV = "animations.csv", "predictions.csv"
CONCEPT_SCORES_CSV, PROJECTIONS_CSV = "concept_scores.csv", "projections.csv"


@dataclass(frozen=True)
class ScoreRow:
    """One test. Positive numbers: the concept raises the class score.

    `score` is the share of targets whose derivative along the vector is positive, `derivative` its mean along the
    vector of length 1, `share` what part of the gradients' length that is; low and high are 95 % intervals over other
    concept clips, negatives and targets at once, `of_concept`, `of_negatives`, `of_targets` over one of them.
    `step` is what the step from the mean of the negatives to that of the concept adds to the score, to first order;
    `p` is `p_step` or `p_unit`, that of the derivative along the unit vector, by the experiment's statistic.
    `sets_low` and `sets_high` are the least and the greatest derivative of a vector against one of the `sets` random
    sets. `turning` is how far the targets' gradients differ in direction: about 0 in a degenerate layer.
    `null_low` and `null_high` hold the middle 95 % of what the experiment's statistic is under exchange.
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
    relative_derivative: float
    relative_derivative_low: float
    relative_derivative_high: float
    step_effect: float
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


@dataclass(frozen=True)
class VectorRow:
    """One concept vector and how far it can be trusted.

    `nearest` is the other concept whose vector, trained for the same test, is most like this one, up to sign;
    `pattern_cosine` is to the difference of the means, which a classifier need not follow. Clips out of one video share
    a fold, unless all clips of a side are out of one: `videos` is how many there are on the side with fewer.
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
    """The derivative of one class score at one clip along one vector; `length` is that of the gradient."""

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
    """How often what is no concept was found to be one; `rate` should be alpha and lie in low .. high.

    Classes, stages and overlapping sets are not independent trials, so the interval is a little narrow.
    """

    clip_type: str
    set_origin: str  # the random sets themselves, or sets drawn out of all their clips
    n_rejected: int
    n_trials: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        return self.n_rejected / self.n_trials


@dataclass(frozen=True)
class SteeringRow:
    """Where a class score goes on average when its targets are moved at the stage by `step` times the way from the mean
    of the negatives to that of the concept, `length` in all. `expected` is that by the derivative; `random_low` to
    `random_high` is where the middle 95 % of moves of the same length in random directions lead, and `p` says how often
    one of those leads as far from 0, or further.
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
    predicted_change: float
    random_low: float
    random_high: float
    p_random_directions: float


@dataclass(frozen=True)
class ConceptScoreRow:
    """One clip, class and vector. `projection` is the (pooled) activation along the unit vector, `inside` what the
    concept's classifier says of the clip (above 0: the concept), `derivative` that of the class score."""

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
    """The part of a projection that comes from one place in time of the stage; the parts' sum, or where time is pooled
    their mean, is the projection. `fraction` is where in the clip it lies, 0 to 1."""

    clip: str
    stage: str
    concept_vector: str
    time_index: int
    clip_fraction: float
    projection: float


@dataclass(frozen=True)
class CosineRow:
    """Between two vectors of a stage that are trained for the same test."""

    stage: str
    comparison: str
    left: str
    right: str
    cosine: float


@dataclass(frozen=True)
class Saha2024Row:
    """`score` is the mean sign count over `runs`, one for each random set."""

    target: str
    stage: str
    group: str
    concept: str
    clip_type: str
    n_runs: int
    tcav_score: float
    tcav_score_min: float  # the least and the greatest of the runs
    tcav_score_max: float
    t_statistic: float
    p: float
    p_adjusted: float
    p_as_published: float  # as the paper's printed ones were computed
    n_clips: int
    note: str


@dataclass(frozen=True)
class Animation:
    """`role` is `concept` (a sheet of `shown` of `total` clips) or `target` (one clip, `name`)."""

    role: str
    name: str
    clip_type: str
    file: str
    n_shown: int
    n_total: int


@dataclass(frozen=True)
class PredictionRow:
    """What the network says of a clip of a class; `right` if the class is what it says."""

    target: str
    clip: str
    answer: str
    probability: float  # of the class
    correct: bool
