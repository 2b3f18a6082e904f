"""What an experiment asks: which stages, which tests, how they are made and corrected."""

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vtcav_jax.names import unknown_name_message
from vtcav_jax.settings import BATCH_HELP, MAX_SEED, SEED_HELP, check_settings, setting
from vtcav_jax.tcav.features.encode import SCORE_FNS, SENSITIVITIES, EncodeConfig
from vtcav_jax.tcav.features.pooling import POOLS
from vtcav_jax.tcav.stats.multiple_testing import CORRECTIONS, attainable
from vtcav_jax.tcav.stats.vectors import ESTIMATORS, SOLVERS, FitConfig

COMPARISON_TYPES = ("absolute", "motion", "relative", "group", "pairs")
EXPERIMENT_PROTOCOLS = ("standard", "saha2024")
PERMUTE_UNITS = ("clips", "sets")
TEST_STATISTICS = ("step_effect", "unit_derivative")
SAHA2024_STAGES = "layers.1", "layers.2", "pool"  # stages
CALIBRATION_PERMUTATIONS = 199  # permutations of a pseudo-concept; with them exactly 5 % of p-values are at most .05
MIN_PERMUTATIONS = 999  # permutations
TOP_LEVEL_STAGE_PATTERN = re.compile(r"\w+\.\d+")  # layers.2, but not layers.2.blocks.0


@dataclass(frozen=True)
class ExperimentConfig:
    """The settings of `experiment.run`.

    Comparisons: `absolute` is a concept against the pooled random clips; `motion` dynamic clips against their own
    controls; `relative` a concept against all the others of its clip type, `pairs` against each of them, `group` one
    concept among k: against the others and the random clips, each with the same weight. `permute` is what the tests
    exchange: single `clips`, or whole random `sets`, for sets whose clips are more alike than clips of two sets are.
    `statistic` is compared with its values under exchange: `unit_derivative` along the unit vector, or `step_effect`,
    the derivative times the step from the negatives to the concept (see `permutation_test.TestResult`). Both p-values
    are in the table. `calibration_trials` pseudo-concepts of each clip type are tested like concepts: the random sets,
    and further ones drawn out of all of them. `steering_controls` is the number of random directions with which moves
    along the vector of a finding are compared, each of them two forward passes of every target; 0: no moves. `budget`
    is the memory in bytes for the activations of one stage; larger ones are read in blocks.
    """

    stages: tuple[str, ...] = setting(
        (), "layers to test: names or globs ('*' for all) [default: the ends of the network's parts, such as layers.2]"
    )
    comparisons: tuple[str, ...] = setting(
        ("absolute", "motion", "relative"),
        "absolute (against the random sets), motion (dynamic clips against their controls), relative (against the other"
        " concepts), pairs (against each other concept), group (against the others and the random sets together)",
        choices=COMPARISON_TYPES,
    )
    permute: str = setting("clips", "what the permutation test exchanges", choices=PERMUTE_UNITS)
    statistic: str = setting(
        "step_effect",
        "test statistic: step_effect = derivative x distance from the negative mean to the concept mean;"
        " unit_derivative = derivative along the unit vector",
        choices=TEST_STATISTICS,
    )
    pool: str = setting("space", "axes over which activations are averaged", choices=POOLS)
    score_fn: str = setting("logit", "class score that is explained", choices=tuple(SCORE_FNS))
    sensitivity: str = setting(
        "gradient",
        "how to measure sensitivity: gradient at the clip; gradient integrated from a zero activation; or the score"
        " change after a finite step",
        choices=SENSITIVITIES,
    )
    integration_steps: int = 16
    estimator: str = setting("logistic", "how concept vectors are estimated", choices=ESTIMATORS)
    l2: float = setting(0.01, "L2 penalty of the vectors, in the same units at every stage", above=0)
    solver: str = setting(
        "host", "logistic solver: L-BFGS on the host's cores, or optax on the device", choices=SOLVERS
    )
    permutations: int | None = setting(
        None, "permutations per test [default: 999, or twice what one finding needs to pass alone]", minimum=1
    )
    alpha: float = setting(0.05, "family-wise error rate", above=0, below=1)
    correction: str = setting("holm", "correction for the number of tests", choices=CORRECTIONS)
    max_target_clips: int | None = setting(100, "clips per class, at most", minimum=1)
    bootstrap_draws: int = 1000
    calibration_trials: int = setting(
        20, "pseudo-concepts per clip type that measure the false-positive rate of the tests", minimum=0
    )
    steering_controls: int = setting(
        0,
        "move the target clips along the vectors of findings, and along this many random directions for comparison (19"
        " are enough for p = 0.05; 0: do not)",
        minimum=0,
    )
    protocol: str = setting(
        "standard", "saha2024 adds the tests of Saha et al. 2024 as published", choices=EXPERIMENT_PROTOCOLS
    )
    export_vectors: bool = setting(True, "write the concept vectors, for --task=score_concepts")
    seed: int = setting(0, SEED_HELP, minimum=0, maximum=MAX_SEED)
    batch_size: int = setting(8, BATCH_HELP, minimum=1)
    budget: int = 2 * 2**30

    def __post_init__(self):
        none = [("comparisons", f"expected some of {', '.join(COMPARISON_TYPES)}, got none")]
        draws = [("bootstrap_draws", f"expected at least 2, got {self.bootstrap_draws}")]
        check_settings(self, *([] if self.comparisons else none), *(draws if self.bootstrap_draws < 2 else []))
        _ = self.encode_config  # checks what only the network's reader knows to be wrong

    def num_permutations(self, family_size: int) -> int:
        """Permutations, where they are not given: a finding can then pass alone with half of alpha, not just."""
        if self.permutations is not None:
            return self.permutations
        return max(
            MIN_PERMUTATIONS,
            0 if self.correction == "bh" else attainable(0.5, family_size, self.alpha / 2, self.correction).n_needed,
        )

    def with_protocol(self, network_stages: Sequence[str]) -> "ExperimentConfig":
        """To the paper's protocol, if that is asked for: flattened activations, Bonferroni's correction, and where no
        stages are named its three, the ends of the second and the third part before merging and the pooled features."""
        if self.protocol != "saha2024":
            return self
        stages = self.stages or (SAHA2024_STAGES if set(SAHA2024_STAGES) <= set(network_stages) else ())
        return replace(self, pool="none", correction="bonferroni", stages=stages)

    @property
    def encode_config(self) -> EncodeConfig:
        return EncodeConfig(
            self.pool, self.score_fn, self.sensitivity, self.integration_steps, self.batch_size, budget=self.budget
        )

    @property
    def fit_config(self) -> FitConfig:
        return FitConfig(self.estimator, self.l2, solver=self.solver)


def resolve_stages(globs: Sequence[str], network_stages: Sequence[str]) -> tuple[str, ...]:
    """The known stages that any of the globs means, in the network's order."""
    if not globs:
        return tuple(filter(TOP_LEVEL_STAGE_PATTERN.fullmatch, network_stages)) or tuple(network_stages)
    if missing := [glob for glob in globs if not any(fnmatch.fnmatchcase(name, glob) for name in network_stages)]:
        raise ValueError(unknown_name_message("stage", missing, network_stages))
    return tuple(name for name in network_stages if any(fnmatch.fnmatchcase(name, glob) for glob in globs))
