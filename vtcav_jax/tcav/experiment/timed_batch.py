"""What a micro-batch really takes, before a run of many: compiled and timed once, on clips of zeros."""

import time
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh

from vtcav_jax.tcav.experiment.fill_cache import placed
from vtcav_jax.tcav.experiment.plan import Plan
from vtcav_jax.tcav.features.encode import activations_of, class_table, gradients_of
from vtcav_jax.tcav.features.microbatches import Work, held


@dataclass(frozen=True)
class Trial:
    """Seconds of a concept clip forward, of a target forward and backward for all classes, and of compiling both."""

    forward: float
    target: float
    compiling: float

    def encoding(self, plan: Plan) -> float:
        """Of all clips that are not in the cache; decoding them comes on top."""
        return self.compiling + self.forward * len(plan.forward_missing) + self.target * len(plan.backward_missing)


def trial(plan: Plan, mesh: Mesh) -> Trial:
    reading, stages = plan.settings.reading, plan.stages
    size = max(reading.micro_batch, mesh.devices.size)
    clips, model = held(np.zeros((size, *plan.geometry.shape), np.float32)), placed(plan, mesh)
    table = class_table(np.array([target.index for target in plan.looked.classes]), size)

    def seconds() -> tuple[float, float]:
        start = time.perf_counter()
        list(activations_of(model, clips, stages, reading, mesh, Work()))
        middle = time.perf_counter()
        list(gradients_of(model, clips, table, stages, reading, mesh, Work()))
        return middle - start, time.perf_counter() - middle

    first, second = seconds(), seconds()
    return Trial(second[0] / size, second[1] / size, max(0.0, sum(first) - sum(second)))
