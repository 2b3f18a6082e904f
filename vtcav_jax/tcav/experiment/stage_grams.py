"""A stage's numbers out of the cache: its features, their products, and all that is measured on them.

What is not there is made and kept. Where several processes share the work, each multiplies blocks of features of its
own, the sums are everybody's, and each stage is measured by one of them.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from vtcav_jax.tcav.experiment.clock import Clock
from vtcav_jax.tcav.experiment.fill_cache import targets_of
from vtcav_jax.tcav.experiment.plan import Plan
from vtcav_jax.tcav.experiment.stage_results import Measured, measure
from vtcav_jax.tcav.experiment.verdicts import Clip, Row, VectorRow
from vtcav_jax.tcav.features import distributed
from vtcav_jax.tcav.features.cache import kept, key_of
from vtcav_jax.tcav.features.feature_store import Features
from vtcav_jax.tcav.features.gram import Gram, gram
from vtcav_jax.tcav.features.microbatches import Clips, Work
from vtcav_jax.tcav.steering.finite_steps import Finite

IRRELEVANT = ("stages", "export", "batch", "budget", "correction", "alpha", "steering")  # to one stage's numbers

STATISTICS = (
    *("experiment/stage_results.py", "experiment/stage_comparison.py", "stats/permutation_test.py", "stats/vectors.py"),
    *("stats/kernel_lbfgs.py", "stats/bootstrap.py", "stats/vector_validation.py"),
)


@dataclass(frozen=True)
class Products:
    """Of all stages; `targets` are read again only where something moves them."""

    plan: Plan
    mesh: Mesh
    work: Work
    workers: int
    clock: Clock

    def examples(self, stage: str) -> Features:
        plan = self.plan
        keys = [plan.example_key(row, stage) for row in range(len(plan.looked.concepts))]
        return kept(plan.store, keys, *plan.shapes[stage], plan.settings.budget, self._rows)

    @cached_property
    def targets(self) -> tuple[Clips, list[int]]:
        """As `filling.targets_of` has them."""
        return targets_of(self.plan, self.workers)

    def gram(self, stage: str) -> Gram:
        """Of all classes' gradients, one class after the other. All processes ask for the same at the same time."""
        plan, key = self.plan, self.key(stage)
        with self.clock("products"):
            if not distributed.agreed(plan.store.has(key, ".npz")):
                slopes = kept(plan.store, self._slopes(stage), *plan.shapes[stage], plan.settings.budget, self._rows)
                examples, mesh = self.examples(stage), self.mesh if self.mesh.devices.size > 1 else None
                part = gram(examples, slopes, 1, mesh, blocks=distributed.share(range(len(examples.columns))))
                whole = distributed.summed(asdict(part))
                distributed.once(lambda: plan.store.put_arrays(key, whole))
            return self.there(stage)

    def there(self, stage: str) -> Gram:
        """What `gram` has made, without asking the other processes."""
        return Gram(**self.plan.store.get_arrays(self.key(stage)))

    def measured(self, stages: tuple[str, ...]) -> dict[str, Measured]:
        """Every process gets all of it."""
        grams = {stage: self.gram(stage) for stage in stages}
        with self.clock("statistics"):
            for stage in distributed.share(stages):
                self._measured(stage, grams[stage])
            distributed.gathered(None)
            return {stage: self._measured(stage, grams[stage]) for stage in stages}

    def _measured(self, stage: str, whole: Gram) -> Measured:
        """Those that are there for the same clips and questions, or new ones."""
        plan = self.plan
        asked = {
            **{k: v for k, v in asdict(plan.settings).items() if k not in IRRELEVANT},
            "questions": [asdict(question) for question in plan.asked.questions],
            "classes": [asdict(target) for target in plan.looked.classes],
            "names": plan.looked.targets.names,
            "random": plan.asked.random,
            "videos": plan.looked.videos.tolist(),
            "code": _source(*STATISTICS),
        }
        key = key_of("measured", self.key(stage), asked)
        if not plan.store.has(key, ".json"):
            scores = [
                np.array([plan.store.get(plan.gradient_key(row, target.index, None)) for row in target.rows])
                for target in plan.looked.classes
            ]
            finite = plan.settings.sensitivity == "finite"
            along = Finite(plan, stage, self.examples(stage), *self.targets, self.mesh, self.work) if finite else None
            plan.store.put_json(key, asdict(measure(plan, stage, whole, scores, along)))
        found = plan.store.get_json(key)
        kinds: dict[str, Callable] = {"rows": Row, "vectors": VectorRow, "clips": Clip}
        parts: dict[str, Any] = {part: [kind(**each) for each in found[part]] for part, kind in kinds.items()}
        return Measured(**parts, checked=found["checked"])

    @property
    def _rows(self) -> int:
        looked = self.plan.looked
        return len(looked.concepts) + sum(len(target.rows) for target in looked.classes)

    def _slopes(self, stage: str) -> list[str]:
        plan = self.plan
        return [plan.gradient_key(row, target.index, stage) for target in plan.looked.classes for row in target.rows]

    def key(self, stage: str) -> str:
        """Of the products."""
        keys = [self.plan.example_key(row, stage) for row in range(len(self.plan.looked.concepts))]
        return key_of("products", _source("features/gram.py", "features/feature_store.py"), keys, self._slopes(stage))


def _source(*names: str) -> list[str]:
    return [(Path(__file__).parent.parent / name).read_text(encoding="utf-8") for name in names]
