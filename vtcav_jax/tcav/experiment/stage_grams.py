"""Features, products and statistics of each stage (layer), computed once and cached.

Several processes divide the blocks of features of each product and sum the parts, and divide the stages for statistics.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vtcav_jax import distributed
from vtcav_jax.runs.tcav_rows import DerivativeRow, ScoreRow, VectorRow
from vtcav_jax.runtime import Runtime
from vtcav_jax.tcav.experiment.fill_cache import target_batches
from vtcav_jax.tcav.experiment.plan import Plan
from vtcav_jax.tcav.experiment.stage_results import StageResults, evaluate_stage
from vtcav_jax.tcav.features.cache import content_key, load_features
from vtcav_jax.tcav.features.feature_store import Features
from vtcav_jax.tcav.features.gram import Gram, compute_gram
from vtcav_jax.tcav.features.microbatches import ClipBatches
from vtcav_jax.tcav.steering.finite_steps import FiniteStepDerivatives

# Settings that do not change the statistics of a stage
NOT_IN_KEY = (
    *("stages", "export_vectors", "batch_size", "budget", "correction", "alpha"),
    *("steering_clips", "steering_controls"),
)

PRODUCT_PARTS = 16  # of the blocks of features, summed by themselves: at most as many processes share a product

STATISTICS_SOURCES = (
    *(
        "experiment/stage_results.py",
        "experiment/calibration.py",
        "experiment/stage_comparison.py",
        "stats/permutation_test.py",
        "stats/vectors.py",
    ),
    *("stats/kernel_lbfgs.py", "stats/bootstrap.py", "stats/step_effect.py", "stats/vector_validation.py"),
    *("experiment/comparisons.py", "features/gram.py", "stats/scores.py"),
)


@dataclass(frozen=True)
class StageGrams:
    """Features, products and statistics of a plan's stages."""

    plan: Plan
    runtime: Runtime

    def examples(self, stage: str) -> Features:
        plan = self.plan
        keys = [plan.example_key(row, stage) for row in range(len(plan.clips.concepts))]
        return load_features(plan.store, keys, *plan.shapes[stage], plan.config.budget, self._n_rows)

    @cached_property
    def targets(self) -> tuple[ClipBatches, list[int]]:
        """Target clips of all classes and their rows, for finite steps."""
        rows = sorted({row for target in self.plan.clips.classes for row in target.rows})
        return target_batches(self.plan, self.runtime, rows), rows

    def gram(self, stage: str) -> Gram:
        """Compute or load the products, with gradients ordered by class; all processes must call this together."""
        plan, key = self.plan, self.gram_key(stage)
        with self.runtime.timer("products"):
            if not distributed.broadcast_from_main(plan.store.has(key, ".npz")):
                gradients = load_features(
                    plan.store, self._gradient_keys(stage), *plan.shapes[stage], plan.config.budget, self._n_rows
                )
                examples, mesh = self.examples(stage), self.runtime.mesh if self.runtime.mesh.devices.size > 1 else None
                blocks = range(len(examples.columns))
                total = distributed.sum_parts(
                    min(PRODUCT_PARTS, len(blocks)),
                    lambda i: asdict(compute_gram(examples, gradients, 1, mesh, blocks=blocks[i::PRODUCT_PARTS])),
                )
                distributed.main_process_first(lambda: plan.store.put_arrays(key, total))
            return self.cached_gram(stage)

    def cached_gram(self, stage: str) -> Gram:
        """Load the products that `gram` has stored, without communication between processes."""
        return Gram(**self.plan.store.get_arrays(self.gram_key(stage)))

    def evaluate_stages(self, stages: tuple[str, ...]) -> dict[str, StageResults]:
        """Return the statistics of all stages in every process."""
        grams = {stage: self.gram(stage) for stage in stages}
        with self.runtime.timer("statistics"):
            for stage in distributed.local_share(stages):
                self._stage_results(stage, grams[stage])
            distributed.all_gather(None)
            return {stage: self._stage_results(stage, grams[stage]) for stage in stages}

    def _stage_results(self, stage: str, stage_gram: Gram) -> StageResults:
        """Load the statistics of a stage for the same clips and comparisons, or compute them."""
        plan = self.plan
        key_parts = {
            **{k: v for k, v in asdict(plan.config).items() if k not in NOT_IN_KEY},
            "questions": [asdict(comparison) for comparison in plan.comparisons.entries],
            "classes": [asdict(target) for target in plan.clips.classes],
            "names": plan.clips.targets.names,
            "random": plan.comparisons.random_sets,
            "videos": plan.clips.video_ids.tolist(),
            "target_videos": [videos.tolist() for videos in plan.clips.target_videos],
            "code": _read_sources(*STATISTICS_SOURCES),
        }
        key = content_key("stage_results", self.gram_key(stage), key_parts)
        if not plan.store.has(key, ".json"):
            scores = [
                np.array([plan.store.get(plan.gradient_key(row, target.index, None)) for row in target.rows])
                for target in plan.clips.classes
            ]
            is_finite_step = plan.config.sensitivity == "finite"
            derivative_fn = (
                FiniteStepDerivatives(plan, stage, self.examples(stage), *self.targets, self.runtime)
                if is_finite_step
                else None
            )
            plan.store.put_json(key, asdict(evaluate_stage(plan, stage, stage_gram, scores, derivative_fn)))
        content = plan.store.get_json(key)
        row_types: dict[str, Callable] = {"rows": ScoreRow, "vectors": VectorRow, "derivatives": DerivativeRow}
        parts: dict[str, Any] = {
            part: [row_type(**values) for values in content[part]] for part, row_type in row_types.items()
        }
        return StageResults(**parts, calibration_p=content["calibration_p"])

    @property
    def _n_rows(self) -> int:
        clips = self.plan.clips
        return len(clips.concepts) + sum(len(target.rows) for target in clips.classes)

    def _gradient_keys(self, stage: str) -> list[str]:
        plan = self.plan
        return [plan.gradient_key(row, target.index, stage) for target in plan.clips.classes for row in target.rows]

    def gram_key(self, stage: str) -> str:
        """Return the key of a stage's products."""
        keys = [self.plan.example_key(row, stage) for row in range(len(self.plan.clips.concepts))]
        return content_key(
            "products", _read_sources("features/gram.py", "features/feature_store.py"), keys, self._gradient_keys(stage)
        )


def _read_sources(*names: str) -> list[str]:
    return [(Path(__file__).parent.parent / name).read_text(encoding="utf-8") for name in names]
