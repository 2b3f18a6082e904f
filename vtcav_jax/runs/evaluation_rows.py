"""The tables of --task=evaluate_methods."""

from dataclasses import dataclass

METHOD_SCORES_CSV, NOT_APPLICABLE_CSV, WORLD_GATES_FILE, METRIC_AGREEMENT_CSV = (
    "method_scores.csv",
    "not_applicable.csv",
    "world_gates.txt",
    "metric_agreement.csv",
)
WORLD_METRICS = ("WHERE", "WHO", "WHEN", "WHAT-FOR", "EFFECT")
MEAN_SCORE, STABILITY_SCORE = "TRUTH", "STABLE"  # the mean of the axes; told, but no part of it
CROSS_VALIDATED_SCORE = "CHOSEN"  # TRUTH of the stage that is best on half of the clips, on the other half
ANALYTIC_SCORE, MOTION_SCORE = "EXACT", "KIND"  # of W0 alone; of methods that have a motion part
ABLATION_SCORE, SELECTIVITY_SCORE = "ABLATION", "SELECTIVE"  # of kernels that are named
ALL_QUESTIONS = "all"  # questions of a network
TRIVIAL_MAPS = ("random", "difference_to_mean", "frame_difference", "sobel")  # maps that ask no network


@dataclass(frozen=True)
class MethodScoreRow:
    """A value and its bootstrap interval over clips; 0 is chance, 1 is all there is to get, worse than chance below 0.

    `forwards` and `seconds` are the cost of one clip's map; `seconds` of methods that share a pass are the pass's, and
    were measured beside another network. Of a function that does not tell its cost `forwards` are those passes that
    take as long, and 0 on the hand-wired network.
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
        """Whether the map asks no network."""
        return self.method in TRIVIAL_MAPS


@dataclass(frozen=True)
class NotApplicable:
    """A method that is not for a network, and why."""

    method: str
    network_name: str
    reason: str


@dataclass(frozen=True)
class MetricAgreementRow:
    """Spearman's correlation, over maps, of a metric with the truth that the maps tell; the interval is over maps.

    A metric of which less is better is turned around: 1 is the order of the truth.
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
    """`n` pairs of a class and a concept, and a 95 % interval.

    AUROC: how often a pair that is causal has a higher score than one that is not. POWER_AT_5: the share of causal
    pairs found, with the right sign, where the threshold lets 5 % of the neutral concepts pass. POWER: that by the
    procedure's own verdict. FALSE_POSITIVES: verdicts about neutral concepts, which are the distractor's values and
    sets drawn at random. NULL: of those drawn alone, which truly are no concept: a test at 5 % finds 5 % of them.

    Intervals of POWER, FALSE_POSITIVES and NULL are Wilson's, for as many independent pairs as give the variance that
    is seen between concepts (the classes that one concept is asked of share its clips); the others are a bootstrap over
    concepts of all seeds.
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
