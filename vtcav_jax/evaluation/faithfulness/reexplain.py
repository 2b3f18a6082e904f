"""Metrics that recompute maps for modified clips, other classes and other weights."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vtcav_jax.attribution import Attribution, attribute_many
from vtcav_jax.attribution.result import VIDEO
from vtcav_jax.attribution.targets import Margin, Target
from vtcav_jax.console import progress
from vtcav_jax.evaluation.faithfulness.randomisation import cascade, parameter_names, random_logit
from vtcav_jax.evaluation.faithfulness.robustness import max_sensitivity
from vtcav_jax.evaluation.faithfulness.splice import splice_test
from vtcav_jax.evaluation.trivial_maps import TRIVIAL_MAPS, trivial_maps
from vtcav_jax.runs.attribution_rows import MetricRow
from vtcav_jax.stats import intervals
from vtcav_jax.tap import Model, as_pytree, stages_of

SPLICE_METRIC, SENSITIVITY_METRIC, RANDOM_LOGIT_METRIC, RANDOMISATION_METRIC = (
    "splice",
    "max_sensitivity",
    "random_logit",
    "randomisation",
)
METRIC_DIRECTIONS = {SPLICE_METRIC: 1, SENSITIVITY_METRIC: -1, RANDOM_LOGIT_METRIC: -1, RANDOMISATION_METRIC: -1}
REEXPLAIN_DRAWS = 4  # noise samples


@dataclass
class CachedExplainer:
    """Explainer for a method at a stage that stores its last result, from which `name` and `cost` are read."""

    method: tuple[str, str | None]
    options: Mapping[str, dict[str, Any]]
    last: Attribution | None = None

    def __call__(self, model: Any, video: Any, target: Any) -> Attribution:
        (self.last,) = attribute_many(model, video, target, [self.method], self.options)
        return self.last

    @property
    def name(self) -> str:
        assert self.last is not None, "not called yet"
        return f"{self.last.method}@{self.last.stage}"

    @property
    def cost(self) -> int:
        assert self.last is not None, "not called yet"
        return self.last.forward_passes


@dataclass
class TrivialExplainer:
    """Explainer that returns a trivial map."""

    name: str
    seed: int
    cost: int = 0

    def __call__(self, model: Any, video: Any, target: Any) -> Attribution:
        values = trivial_maps(np.asarray(video), self.seed, [self.name])[self.name]
        return Attribution(values, VIDEO, False, 0, self.name)


def reexplain_metrics(
    model: Model,
    clips: Float[np.ndarray, "b t h w c"],
    make_target: Callable[[slice | np.ndarray], Target],
    pairs: Int[np.ndarray, "pairs 2"],
    methods: Sequence[tuple[str, str | None]],
    options: Mapping[str, dict[str, Any]],
    *,
    batch_size: int,
    seed: int,
    draws: int = REEXPLAIN_DRAWS,
) -> Iterator[MetricRow]:
    """Yield metrics of each method and trivial map.

    These are: whether the map of a class lies on its clip in a splice (`pairs` are of different classes), the change
    under imperceptible noise, the similarity to the map of another class, and to maps of the network as it is
    randomised from the head. `make_target` returns the target of some clips.
    """
    layers, classes = top_level_modules(model), isinstance(make_target(slice(0, 1)), Margin)
    explainers = [
        *(CachedExplainer(method, options) for method in methods),
        *(TrivialExplainer(name, seed) for name in TRIVIAL_MAPS),
    ]
    for (explainer,) in progress(([first] for first in explainers), len(explainers), "recomputed maps"):
        values_by_metric: dict[str, tuple[list[np.ndarray], int]] = {
            SENSITIVITY_METRIC: ([], 1 + draws),
            RANDOMISATION_METRIC: ([], 1 + len(layers)),
        }
        if classes:
            values_by_metric |= {RANDOM_LOGIT_METRIC: ([], 2)} | ({SPLICE_METRIC: ([], 4)} if len(pairs) else {})
        for i in range(0, len(clips), batch_size):
            batch_clips, batch_target = clips[i : i + batch_size], make_target(slice(i, i + batch_size))
            batch_maps = explainer(model, batch_clips, batch_target).map
            sensitivity = max_sensitivity(
                explainer, model, batch_clips, batch_target, original_maps=batch_maps, draws=draws, seed=seed
            )
            values_by_metric[SENSITIVITY_METRIC][0].append(sensitivity.max_change)
            values_by_metric[RANDOMISATION_METRIC][0].append(
                cascade(
                    explainer, model, batch_clips, batch_target, original_maps=batch_maps, layers=layers, seed=seed
                ).area
            )
            if RANDOM_LOGIT_METRIC in values_by_metric:
                values_by_metric[RANDOM_LOGIT_METRIC][0].append(
                    random_logit(explainer, model, batch_clips, batch_target, original_maps=batch_maps, seed=seed)
                )
        for i in range(0, len(pairs) if SPLICE_METRIC in values_by_metric else 0, batch_size):
            first, second = pairs[i : i + batch_size].T
            correct = splice_test(
                explainer, model, clips[first], clips[second], make_target(first), make_target(second)
            ).is_correct
            values_by_metric[SPLICE_METRIC][0].append(correct.mean(1))
        for metric, (parts, passes_per_map) in values_by_metric.items():
            values = np.concatenate(parts).astype(np.float64)
            n_known = int(np.isfinite(values).sum())
            yield MetricRow(
                explainer.name,
                metric,
                "",
                METRIC_DIRECTIONS[metric],
                *intervals.mean_ci(values),
                n_known,
                passes_per_map * explainer.cost,
            )


def top_level_modules(model: Model) -> tuple[str, ...]:
    """Return the outermost stages with parameters, from head to stem; first "" if parameters belong to no stage."""
    stages = stages_of(model)
    names = parameter_names(as_pytree(model))
    outer = [stage for stage in stages if not any(stage.startswith(f"{other}.") for other in stages)]
    owned = {stage: [name for name in names if name.startswith(f"{stage}.")] for stage in outer}
    rest = len(names) > sum(map(len, owned.values()))
    return (*([""] if rest else []), *(stage for stage in reversed(outer) if owned[stage]))
