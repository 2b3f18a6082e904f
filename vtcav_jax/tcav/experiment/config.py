"""What an experiment asks: which stages, which tests, how they are made and corrected."""

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vtcav_jax.names import unknown_name_message
from vtcav_jax.tcav.features.encode import EncodeConfig
from vtcav_jax.tcav.stats.multiple_testing import CORRECTIONS, attainable
from vtcav_jax.tcav.stats.vectors import FitConfig

COMPARISON_TYPES = ("absolute", "motion", "relative", "group", "pairs")
EXPERIMENT_PROTOCOLS = ("standard", "paper")
PERMUTE_UNITS = ("labels", "sets")
TEST_STATISTICS = ("step", "unit")
SAHA2024_STAGES = "layers.1", "layers.2", "pool"  # stages
CALIBRATION_PERMUTATIONS = 199  # permutations of a pseudo-concept; with them exactly 5 % of p-values are at most .05
MIN_PERMUTATIONS = 999  # permutations
TOP_LEVEL_STAGE_PATTERN = re.compile(r"\w+\.\d+")  # layers.2, but not layers.2.blocks.0


@dataclass(frozen=True)
class ExperimentConfig:
    """The settings of `experiment.run`.

    `tests`: `absolute` is a concept against the pooled random clips; `motion` dynamic clips against their own twins;
    `relative` a concept against all the others of its kind, `pairs` against each of them, `group` one concept among k:
    against the others and the random clips, each with the same weight. `null` is what is exchanged:
    `labels` of clips, or whole `sets`, for random sets whose clips are more alike than clips of two sets are.
    `statistic` is what is compared with its values under exchange: the derivative along the `unit` vector, or times the
    `step` from the negatives to the concept (see `significance.Test`). Both p-values are in the table.
    `self_check` pseudo-concepts of each kind are tested like concepts: the random sets, and further ones that are drawn
    out of all of them. `steering` is how many random directions the moves along the vector of a finding are compared
    with, each of them two forward passes of every target; 0: nothing is moved. `budget` is bytes of memory for the
    activations of one stage; larger ones are read in blocks.
    """

    stages: tuple[str, ...] = ()  # names or globs; none: the ends of the network's parts, such as layers.2
    comparisons: tuple[str, ...] = ("absolute", "motion", "relative")
    permute: str = "labels"
    statistic: str = "step"
    pool: str = "space"
    score_fn: str = "logit"
    sensitivity: str = "gradient"
    integration_steps: int = 16
    estimator: str = "logistic"
    l2: float = 0.01
    solver: str = "host"
    permutations: int | None = None  # None: 999, or twice what one finding needs to pass alone in its family
    alpha: float = 0.05
    correction: str = "holm"
    max_target_clips: int | None = 100  # at most, of each class
    bootstrap_draws: int = 1000  # of each bootstrap
    calibration_trials: int = 20
    steering_controls: int = 0
    protocol: str = "standard"
    export_vectors: bool = True  # vectors.safetensors
    seed: int = 0
    batch_size: int = 8
    budget: int = 2 * 2**30

    def __post_init__(self):
        problems = [
            f"{name} is one of {', '.join(allowed)}, got {value!r}"
            for name, value, allowed in [
                ("correction", self.correction, CORRECTIONS),
                ("protocol", self.protocol, EXPERIMENT_PROTOCOLS),
                ("null", self.permute, PERMUTE_UNITS),
                ("statistic", self.statistic, TEST_STATISTICS),
                *(("tests", test, COMPARISON_TYPES) for test in self.comparisons),
            ]
            if value not in allowed
        ]
        if not self.comparisons:
            problems.append(f"tests are some of {', '.join(COMPARISON_TYPES)}, got none")
        if not 0 < self.alpha < 1:
            problems.append(f"alpha is between 0 and 1, got {self.alpha:g}")
        if self.l2 <= 0:
            problems.append(f"lam must be above 0, got {self.l2:g}")
        minimums = {"permutations": 1, "draws": 2, "self_check": 0, "steering": 0, "seed": 0}
        problems += [
            f"{name} must be at least {low}, got {getattr(self, name)}"
            for name, low in minimums.items()
            if getattr(self, name) is not None and getattr(self, name) < low
        ]
        if self.max_target_clips is not None and self.max_target_clips < 1:
            problems.append(f"n_targets must be at least 1, got {self.max_target_clips}")
        for make in (lambda: self.encode_config, lambda: self.fit_config):
            try:
                make()
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise ValueError("; ".join(problems))

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
        if self.protocol != "paper":
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
