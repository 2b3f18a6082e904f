"""Settings of an experiment: stages (layers), comparisons, statistics and corrections."""

from dataclasses import dataclass

from vtcav_jax.settings import BATCH_HELP, MAX_BATCH_SIZE, MAX_SEED, SEED_HELP, check_settings, setting
from vtcav_jax.tcav.features.encode import SCORE_FNS, SENSITIVITIES, EncodeConfig
from vtcav_jax.tcav.features.pooling import POOLS
from vtcav_jax.tcav.stats.multiple_testing import CORRECTIONS, attainable
from vtcav_jax.tcav.stats.vectors import ESTIMATORS, FitConfig

COMPARISON_TYPES = ("absolute", "motion", "freezing", "relative", "group", "pairs")
EXPERIMENT_PROTOCOLS = ("standard", "saha2024")
PERMUTE_UNITS = ("videos", "clips", "sets")
TEST_STATISTICS = ("step_effect", "unit_derivative")
CALIBRATION_PERMUTATIONS = 199  # for 199, p <= 0.05 has a probability of exactly 5 % under the null hypothesis
MIN_PERMUTATIONS = 999
STAGES_HELP = (
    "names or globs, '*' for all [default: the network's outermost numbered blocks, such as layers.2; if it has none,"
    " all layers that can be pooled]"
)


@dataclass(frozen=True)
class ExperimentConfig:
    """The settings of `experiment.run`.

    In a `group` comparison the other concepts and the random clips each have the same total weight. `permute="sets"` is
    for random sets that differ from each other beyond their videos. The p-values of both `statistic`s
    are in the table (see `permutation_test.TestResult`). The calibration check tests `calibration_trials`
    pseudo-concepts of each clip type like concepts: the random sets, then sets drawn from all their clips. The steering
    check takes two forward passes per finding and moved clip, and two more for each of the `steering_controls`.
    `budget` is the memory in bytes for the activations of one stage; larger ones are read in blocks.
    """

    stages: tuple[str, ...] = setting(
        (),
        f"layers to test: {STAGES_HELP}",
    )
    comparisons: tuple[str, ...] = setting(
        ("absolute", "motion", "relative"),
        "what to compare: absolute (concept with random sets), motion (difference of dynamic clips and their matched"
        " controls, concept with random sets), freezing (dynamic clips with their own controls), relative (concept with"
        " all other concepts together), pairs (with each other concept), group (with other concepts and random sets"
        " together)",
        choices=COMPARISON_TYPES,
    )
    permute: str = setting(
        "videos",
        "what the permutation test exchanges: whole source videos, single clips (valid only if each clip has a video of"
        " its own), or whole random sets",
        choices=PERMUTE_UNITS,
    )
    within: str = setting(
        "",
        "compare and permute clips only within strata: HEAD (a label of the concept clips' videos), HEAD:CLASS (whether"
        " they have it), or a column of concepts.csv",
    )
    statistic: str = setting(
        "step_effect",
        "test statistic: step_effect = derivative x distance from the negative mean to the concept mean;"
        " unit_derivative = derivative along the unit vector",
        choices=TEST_STATISTICS,
    )
    pool: str = setting(
        "space",
        "axes to average activations over before training vectors: space, time, all (both), or none",
        choices=POOLS,
    )
    score_fn: str = setting(
        "logit",
        "class score to explain: logit, log_prob (log probability), or margin (logit minus the highest other logit)",
        choices=tuple(SCORE_FNS),
    )
    sensitivity: str = setting(
        "gradient",
        "how to measure sensitivity: gradient (at the clip), integrated (mean gradient from a zero activation to the"
        " clip's), or finite (score change after a step along the vector)",
        choices=SENSITIVITIES,
    )
    integration_steps: int = 16
    estimator: str = setting(
        "logistic",
        "how to estimate concept vectors: logistic or ridge regression, or the difference of the means",
        choices=ESTIMATORS,
    )
    l2: float = setting(
        0.01, "L2 penalty of logistic and ridge, relative to the variance of the activations at each layer", above=0
    )
    permutations: int | None = setting(
        None,
        "permutations per test [default: 999, or more if a single finding needs more to be significant at alpha / 2]",
        minimum=1,
        maximum=10**6,
    )
    alpha: float = setting(0.05, "significance level of adjusted p-values", above=0, below=1)
    correction: str = setting(
        "holm",
        "correction for multiple tests: holm and bonferroni control the family-wise error rate, bh the false discovery"
        " rate",
        choices=CORRECTIONS,
    )
    max_target_clips: int | None = setting(100, "maximum number of target clips per class, drawn at random", minimum=1)
    bootstrap_draws: int = 1000
    calibration_trials: int = setting(
        20,
        "calibration check: random sets per clip type tested like concepts, to measure the false-positive rate (0: no"
        " check)",
        minimum=0,
        maximum=10**4,
    )
    steering_clips: int = setting(
        20,
        "steering check: maximum number of target clips per class whose activations are moved along the vector of each"
        " finding, which is inconclusive if the score changes in the other direction than predicted (0: no check)",
        minimum=0,
    )
    steering_controls: int = setting(
        0,
        "random directions along which the steering check moves the same clips for comparison (19 allow p = 0.05)",
        minimum=0,
        maximum=10**4,
    )
    protocol: str = setting(
        "standard",
        "saha2024 also runs the tests of Saha et al. (2024) as published, with Bonferroni correction (saha2024.csv); it"
        " needs --pool=none, and their layers are layers.1, layers.2 and pool",
        choices=EXPERIMENT_PROTOCOLS,
    )
    export_vectors: bool = setting(
        True, "save the concept vectors, which score_concepts, attribute and pyramid can use"
    )
    seed: int = setting(0, SEED_HELP, minimum=0, maximum=MAX_SEED)
    batch_size: int = setting(8, BATCH_HELP, minimum=1, maximum=MAX_BATCH_SIZE)
    budget: int = 2 * 2**30

    def __post_init__(self):
        none = [("comparisons", f"expected some of {', '.join(COMPARISON_TYPES)}, got none")]
        pooled = [("pool", f"expected none with protocol saha2024, whose vectors are not pooled, got {self.pool}")]
        draws = [("bootstrap_draws", f"expected at least 2, got {self.bootstrap_draws}")]
        unmoved = [
            ("steering_controls", f"expected 0 without moved clips, got {self.steering_controls}; set steering_clips")
        ]
        whole_sets = [("within", f"expected no strata with permute=sets, got {self.within}; permute videos")]
        check_settings(
            self,
            *(whole_sets if self.within and self.permute == "sets" else []),
            *([] if self.comparisons else none),
            *(pooled if self.protocol == "saha2024" and self.pool != "none" else []),
            *(draws if self.bootstrap_draws < 2 else []),
            *(unmoved if self.steering_controls and not self.steering_clips else []),
        )
        _ = self.encode_config  # runs the checks of EncodeConfig

    def num_permutations(self, family_size: int) -> int:
        """Return `permutations`, by default enough for a single finding to be significant at alpha / 2."""
        if self.permutations is not None:
            return self.permutations
        return max(
            MIN_PERMUTATIONS,
            0 if self.correction == "bh" else attainable(0.5, family_size, self.alpha / 2, self.correction).n_needed,
        )

    @property
    def encode_config(self) -> EncodeConfig:
        return EncodeConfig(
            self.pool, self.score_fn, self.sensitivity, self.integration_steps, self.batch_size, budget=self.budget
        )

    @property
    def fit_config(self) -> FitConfig:
        return FitConfig(self.estimator, self.l2)
