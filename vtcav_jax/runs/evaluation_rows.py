"""Rows of the tables of `vtcav evaluate_methods` and of the benchmark of concept tests."""

from dataclasses import dataclass

METHOD_SCORES_CSV, NOT_APPLICABLE_CSV, WORLD_GATES_FILE, METRIC_AGREEMENT_CSV = (
    "method_scores.csv",
    "not_applicable.csv",
    "world_gates.txt",
    "metric_agreement.csv",
)
DISCOVERY_BENCHMARK_CSV = "discovery_benchmark.csv"
WORLD_METRICS = ("WHERE", "WHO", "WHEN", "WHAT-FOR", "EFFECT")
MEAN_SCORE, STABILITY_SCORE = "TRUTH", "STABLE"  # mean of WORLD_METRICS; stability is not part of it
CROSS_VALIDATED_SCORE = "CHOSEN"  # TRUTH on half of the clips, at the stage that is best on the other half
ANALYTIC_SCORE, MOTION_SCORE = "EXACT", "KIND"  # of the hand-wired network W0 only; of methods with a motion part
ABLATION_SCORE, SELECTIVITY_SCORE = "ABLATION", "SELECTIVE"  # of methods that select channels
ALL_QUESTIONS = "all"  # all questions of a network
TRIVIAL_MAPS = ("random", "difference_to_mean", "frame_difference", "sobel")  # baselines that do not use a network
REFERENCE_MAPS = ("oracle", "exact_box")  # made from the known cause: what the true map and an ideal box score


@dataclass(frozen=True)
class MethodScoreRow:
    """A ground-truth score with its bootstrap interval over clips: 0 is chance, 1 perfect, below 0 worse than chance.

    `forward_passes` and `seconds` are the cost of one clip's map. Methods computed in one pass all have that pass's
    `seconds`, which were measured while another network was running. For a function that does not report its cost,
    `forward_passes` is the number of passes that take as long (0 for the hand-wired network).
    """

    method: str
    stage: str
    network_name: str
    question: str
    metric: str
    value: float
    low: float
    high: float
    n_clips: int
    forward_passes: int
    seconds: float

    @property
    def is_trivial(self) -> bool:
        """True if the method does not use a network."""
        return self.method in TRIVIAL_MAPS

    @property
    def is_reference(self) -> bool:
        """True if the map is made from the known cause."""
        return self.method in REFERENCE_MAPS


@dataclass(frozen=True)
class NotApplicable:
    """A method that cannot be applied to a network, with the reason."""

    method: str
    network_name: str
    reason: str


@dataclass(frozen=True)
class MetricAgreementRow:
    """Spearman correlation over maps between a metric and the ground-truth score TRUTH, with an interval over maps.

    Metrics for which lower is better are negated, so that 1 means the same ranking as the ground-truth score.
    """

    network_name: str
    question: str
    metric: str
    infill: str
    spearman: float
    low: float
    high: float
    n_maps: int


@dataclass(frozen=True)
class TcavBenchmarkRow:
    """One measure of a TCAV method over `n_pairs` pairs of a class and a concept, with a 95 % interval.

    AUROC: probability that a causal pair scores higher than a non-causal one. POWER_AT_5: share of causal pairs
    detected, with the right sign, at the threshold that 5 % of the neutral pairs pass. POWER: the same by the method's
    own test. FALSE_POSITIVES: share of neutral pairs (distractor values and random sets) that the test calls
    significant. NULL: the same for random sets alone, where a test at 5 % should give 5 %.

    Intervals of POWER, FALSE_POSITIVES and NULL are Wilson intervals for the effective number of independent pairs
    (one concept's pairs with several classes share its clips); the others are bootstraps over concepts of all seeds.
    """

    protocol: str
    network_name: str
    pool: str
    stage: str
    clip_type: str
    measure: str
    value: float
    low: float
    high: float
    n_pairs: int


@dataclass(frozen=True)
class DiscoveryBenchmarkRow:
    """One measure of a method of concept discovery at a stage, a mean over seeds, with a 95 % interval.

    AUROC: of the score of the concept that is matched to a value of the factor, averaged over values. RECOVERY: the
    same above chance, relative to supervised vectors. WHERE and WHEN: of that concept's map, as in `MethodScoreRow`.
    USE: share of the lead of the factor's head that is lost without the concept, and USE_RANDOM without as much of a
    random direction. RANK: Spearman correlation over concepts of the reported importance with the loss. COMPLETENESS:
    accuracy above chance of a linear readout of the concepts' scores, relative to the head's. STABILITY: mean cosine,
    one to one, of the directions of two seeds, fitted to different clips.

    Factor `all` is the mean over the factors of the labels. Intervals resample the `n_clips` scored clips; that of
    STABILITY resamples concepts.
    """

    method: str
    num_concepts: int
    network_name: str
    stage: str
    factor: str
    measure: str
    value: float
    low: float
    high: float
    n_clips: int
