"""Metrics that take a method's maps of other clips, other classes and other weights, not only those that it made."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.attribution import Attribution, explain_many
from vtcav_jax.attribution.result import VIDEO
from vtcav_jax.attribution.targets import Margin, Target
from vtcav_jax.evaluation.faithfulness.metrics import MetricRow
from vtcav_jax.evaluation.faithfulness.randomisation import cascade, parameter_names, random_logit
from vtcav_jax.evaluation.faithfulness.robustness import max_sensitivity
from vtcav_jax.evaluation.faithfulness.splice import splice_test
from vtcav_jax.evaluation.trivial_maps import MODEL_FREE, baseline_map
from vtcav_jax.progress import progress
from vtcav_jax.stats import intervals
from vtcav_jax.tap import Model, as_pytree, stages_of

SPLICE, SENSITIVITY, LOGIT, WEIGHTS = "splice", "max_sensitivity", "random_logit", "randomisation"
BETTER = {SPLICE: 1, SENSITIVITY: -1, LOGIT: -1, WEIGHTS: -1}
DRAWS = 4  # of noise


@dataclass
class Maker:
    """A method at a stage as an explainer that keeps what it made last; `name` is known from then on."""

    method: tuple[str, str | None]
    options: Mapping[str, dict[str, Any]]
    last: Attribution | None = None

    def __call__(self, model: Any, video: Any, target: Any) -> Attribution:
        (self.last,) = explain_many(model, video, target, [self.method], self.options)
        return self.last

    @property
    def name(self) -> str:
        assert self.last is not None, "nothing was asked of it"
        return f"{self.last.method}@{self.last.stage}"

    @property
    def cost(self) -> int:
        assert self.last is not None, "nothing was asked of it"
        return self.last.forward_passes


@dataclass
class Free:
    """A map that asks no network, as an explainer."""

    name: str
    seed: int
    cost: int = 0

    def __call__(self, model: Any, video: Any, target: Any) -> Attribution:
        return Attribution(baseline_map(self.name, np.asarray(video), self.seed), VIDEO, False, 0, self.name)


def remade(
    model: Model,
    clips: Float[np.ndarray, "b t h w c"],
    ask: Callable[[slice | np.ndarray], Target],
    pairs: Int[np.ndarray, "pairs 2"],
    methods: Sequence[tuple[str, str | None]],
    options: Mapping[str, dict[str, Any]],
    *,
    batch: int,
    seed: int,
    draws: int = DRAWS,
) -> Iterator[MetricRow]:
    """Method by method, then of what asks no network: whether the map of a class lies on its clip (`pairs` are of
    different classes), how far noise that no one sees moves the map, how like it is to that of another class, and to
    those of the network while it loses what it learnt, stage by stage from the head. `ask` tells what is asked of some
    of the clips.
    """
    layers, classes = coarse(model), isinstance(ask(slice(0, 1)), Margin)
    makers = [*(Maker(method, options) for method in methods), *(Free(name, seed) for name in MODEL_FREE)]
    for (maker,) in progress(([one] for one in makers), len(makers), "maps made again"):
        found: dict[str, tuple[list[np.ndarray], int]] = {SENSITIVITY: ([], 1 + draws), WEIGHTS: ([], 1 + len(layers))}
        if classes:
            found |= {LOGIT: ([], 2)} | ({SPLICE: ([], 4)} if len(pairs) else {})
        for i in range(0, len(clips), batch):
            some, asked = clips[i : i + batch], ask(slice(i, i + batch))
            own = maker(model, some, asked).map
            moved = max_sensitivity(maker, model, some, asked, own=own, draws=draws, seed=seed)
            found[SENSITIVITY][0].append(moved.largest)
            found[WEIGHTS][0].append(cascade(maker, model, some, asked, own=own, layers=layers, seed=seed).area)
            if LOGIT in found:
                found[LOGIT][0].append(random_logit(maker, model, some, asked, own=own, seed=seed))
        for i in range(0, len(pairs) if SPLICE in found else 0, batch):
            one, other = pairs[i : i + batch].T
            right = splice_test(maker, model, clips[one], clips[other], ask(one), ask(other)).right
            found[SPLICE][0].append(right.mean(1))
        for metric, (parts, times) in found.items():
            values = np.concatenate(parts).astype(np.float64)
            told = int(np.isfinite(values).sum())
            yield MetricRow(
                maker.name, metric, "", BETTER[metric], *intervals.mean_ci(values), told, times * maker.cost
            )


def coarse(model: Model) -> tuple[str, ...]:
    """From head to stem the stages that are in no other and have parameters, after what belongs to none."""
    stages = stages_of(model)
    names = parameter_names(as_pytree(model))
    outer = [one for one in stages if not any(one.startswith(f"{other}.") for other in stages)]
    owned = {one: [name for name in names if name.startswith(f"{one}.")] for one in outer}
    rest = len(names) > sum(map(len, owned.values()))
    return (*([""] if rest else []), *(one for one in reversed(outer) if owned[one]))
