"""One question at one stage, about all classes at once: what they share is computed once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vtcav_jax.tcav.experiment.comparisons import Question
from vtcav_jax.tcav.experiment.config import Experiment
from vtcav_jax.tcav.experiment.verdicts import NAN
from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.stats.bootstrap import Intervals, Source, bootstraps
from vtcav_jax.tcav.stats.permutation_test import Along, Test, gaps, label_tests, set_tests
from vtcav_jax.tcav.stats.scores import derivatives
from vtcav_jax.tcav.stats.vectors import Vectors, fit, labels

REACHED = 50  # permutations that are as far as the concept end a test: p is then above 50 in all, whatever follows


@dataclass(frozen=True)
class AtStage:
    """`grams` of the classes and `vector` have the question's own examples only; see `narrowed`."""

    question: Question
    grams: Sequence[Gram]
    vector: Vectors
    settings: Experiment
    along: Along | None

    @property
    def signed(self) -> np.ndarray:
        return self.question.signed(len(self.grams[0].kernel))

    @property
    def blocks(self) -> np.ndarray | None:
        return self.question.blocks(len(self.grams[0].kernel))

    def derivatives(self, unit: np.ndarray, signed: np.ndarray) -> list[np.ndarray]:
        """For each class `(1, n, v)`, along the unit vectors that come of the labels `signed`."""
        if self.along is None:
            return [derivatives(gram, unit) for gram in self.grams]
        return list(self.along(unit, gaps(self.grams[0].kernel, signed, unit)))

    def tests(self) -> list[Test]:
        """By exchanging labels, or sets if those are asked for and there are any."""
        s = self.settings
        if s.null == "sets" and self.question.sets:
            return self.set_tests()
        return label_tests(
            self.grams,
            self.signed,
            s.training,
            permutations=s.enough(1),
            seed=[s.seed, self.question.seed],
            blocks=self.blocks,
            enough=REACHED,
            along=self.along,
        )

    def set_tests(self) -> list[Test]:
        sets = [np.array(rows) for rows in (self.question.positive, *(rows for _, rows in self.question.sets))]
        return set_tests(self.grams, sets, self.settings.training, along=self.along)

    def intervals(self, observed: Sequence[np.ndarray]) -> list[dict[Source, Intervals]]:
        s = self.settings
        if not self.vector.norm[0] > 0:
            return [{} for _ in self.grams]
        return bootstraps(
            self.grams,
            self.signed,
            s.training,
            draws=s.draws,
            seed=[s.seed, self.question.seed],
            observed=None if self.along is None else [slopes[:, :, 0] for slopes in observed],
        )

    def single_sets(self) -> list[tuple[float, float, float]]:
        """For each class the least and the greatest derivative of a vector against one random set, and the sets' p."""
        if not self.question.sets:
            return [(NAN, NAN, NAN) for _ in self.grams]
        count = len(self.grams[0].kernel)
        signed = np.stack([labels(self.question.positive, rows, count) for _, rows in self.question.sets])
        unit = fit(self.grams[0].kernel, signed, self.settings.training).unit
        found = []
        for slopes, test in zip(self.derivatives(unit, signed), self.set_tests()):
            each = slopes.mean(1)[0]
            found.append((float(each.min()), float(each.max()), chosen(test, self.settings)))
        return found


def chosen(test: Test, settings: Experiment) -> float:
    return float((test.step_p if settings.statistic == "step" else test.p)[0])


def widened(along: Along, used: Sequence[int], count: int) -> Along:
    """`along` for vectors of which only the coefficients of the `used` examples are given."""

    def wide(unit: np.ndarray, gap: np.ndarray) -> Sequence[np.ndarray]:
        whole = np.zeros((len(unit), count))
        whole[:, used] = unit
        return along(whole, gap)

    return wide


def used_by(question: Question) -> tuple[int, ...]:
    return tuple(sorted((*question.positive, *question.negative)))


def narrowed(grams: Sequence[Gram], question: Question) -> tuple[list[Gram], Question]:
    """The same question about a K of its own clips only: what has no part in it costs nothing."""
    rows = used_by(question)
    at = {row: i for i, row in enumerate(rows)}

    def places(some: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(at[row] for row in some)

    same = replace(
        question,
        positive=places(question.positive),
        negative=places(question.negative),
        pairs=tuple((at[left], at[right]) for left, right in question.pairs),
        sets=tuple((name, places(some)) for name, some in question.sets),
    )
    return [reduced(gram, rows) for gram in grams], same


def reduced(gram: Gram, rows: Sequence[int]) -> Gram:
    """Of these examples only."""
    return Gram(gram.kernel[np.ix_(rows, rows)], gram.products[:, :, rows], gram.gradients)
