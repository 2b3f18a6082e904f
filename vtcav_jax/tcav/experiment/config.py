"""What an experiment asks: which stages, which tests, how they are made and corrected."""

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vtcav_jax.names import unknown_name_message
from vtcav_jax.tcav.features.encode import Reading
from vtcav_jax.tcav.stats.multiple_testing import CORRECTIONS, attainable
from vtcav_jax.tcav.stats.vectors import Training

TESTS = ("absolute", "motion", "relative", "group", "pairs")
PROTOCOLS = ("standard", "paper")
NULLS = ("labels", "sets")
STATISTICS = ("step", "unit")
PAPER = "layers.1", "layers.2", "pool"  # stages
CHECKED = 199  # permutations of a pseudo-concept; with them exactly 5 % of p-values are at most .05
LEAST = 999  # permutations
BOUNDARY = re.compile(r"\w+\.\d+")  # layers.2, but not layers.2.blocks.0


@dataclass(frozen=True)
class Experiment:
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
    tests: tuple[str, ...] = ("absolute", "motion", "relative")
    null: str = "labels"
    statistic: str = "step"
    pool: str = "space"
    target_fn: str = "logit"
    sensitivity: str = "gradient"
    steps: int = 16
    estimator: str = "logistic"
    lam: float = 0.01
    solver: str = "host"
    permutations: int | None = None  # None: 999, or twice what one finding needs to pass alone in its family
    alpha: float = 0.05
    correction: str = "holm"
    n_targets: int | None = 100  # at most, of each class
    draws: int = 1000  # of each bootstrap
    self_check: int = 20
    steering: int = 0
    protocol: str = "standard"
    export: bool = True  # vectors.safetensors
    seed: int = 0
    batch: int = 8
    budget: int = 2 * 2**30

    def __post_init__(self):
        problems = [
            f"{name} is one of {', '.join(allowed)}, got {value!r}"
            for name, value, allowed in [
                ("correction", self.correction, CORRECTIONS),
                ("protocol", self.protocol, PROTOCOLS),
                ("null", self.null, NULLS),
                ("statistic", self.statistic, STATISTICS),
                *(("tests", test, TESTS) for test in self.tests),
            ]
            if value not in allowed
        ]
        if not self.tests:
            problems.append(f"tests are some of {', '.join(TESTS)}, got none")
        if not 0 < self.alpha < 1:
            problems.append(f"alpha is between 0 and 1, got {self.alpha:g}")
        if self.lam <= 0:
            problems.append(f"lam must be above 0, got {self.lam:g}")
        least = {"permutations": 1, "draws": 2, "self_check": 0, "steering": 0, "seed": 0}
        problems += [
            f"{name} must be at least {low}, got {getattr(self, name)}"
            for name, low in least.items()
            if getattr(self, name) is not None and getattr(self, name) < low
        ]
        if self.n_targets is not None and self.n_targets < 1:
            problems.append(f"n_targets must be at least 1, got {self.n_targets}")
        for make in (lambda: self.reading, lambda: self.training):
            try:
                make()
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise ValueError("; ".join(problems))

    def enough(self, family: int) -> int:
        """Permutations, where they are not given: a finding can then pass alone with half of alpha, not just."""
        if self.permutations is not None:
            return self.permutations
        return max(
            LEAST, 0 if self.correction == "bh" else attainable(0.5, family, self.alpha / 2, self.correction).needed
        )

    def adapted(self, known: Sequence[str]) -> "Experiment":
        """To the paper's protocol, if that is asked for: flattened activations, Bonferroni's correction, and where no
        stages are named its three, the ends of the second and the third part before merging and the pooled features."""
        if self.protocol != "paper":
            return self
        stages = self.stages or (PAPER if set(PAPER) <= set(known) else ())
        return replace(self, pool="none", correction="bonferroni", stages=stages)

    @property
    def reading(self) -> Reading:
        return Reading(self.pool, self.target_fn, self.sensitivity, self.steps, self.batch, budget=self.budget)

    @property
    def training(self) -> Training:
        return Training(self.estimator, self.lam, solver=self.solver)


def chosen_stages(globs: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The known stages that any of the globs means, in the network's order."""
    if not globs:
        return tuple(filter(BOUNDARY.fullmatch, known)) or tuple(known)
    if missing := [glob for glob in globs if not any(fnmatch.fnmatchcase(name, glob) for name in known)]:
        raise ValueError(unknown_name_message("stage", missing, known))
    return tuple(name for name in known if any(fnmatch.fnmatchcase(name, glob) for glob in globs))
