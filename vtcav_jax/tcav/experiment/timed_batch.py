"""Measured time of a micro-batch, on clips of zeros, to predict the time of a run."""

import time
from dataclasses import dataclass, replace

import numpy as np

from vtcav_jax.runtime import Runtime
from vtcav_jax.tcav.experiment.fill_cache import replicate_model
from vtcav_jax.tcav.experiment.plan import Plan
from vtcav_jax.tcav.features.encode import class_table, stream_activations, stream_gradients
from vtcav_jax.tcav.features.microbatches import in_memory


@dataclass(frozen=True)
class TimedBatch:
    """Seconds of a concept clip (forward), of a target clip (forward, and backward for all classes), and to compile."""

    forward_seconds: float
    target_seconds: float
    compile_seconds: float

    def encoding_seconds(self, plan: Plan) -> float:
        """Return the seconds to encode all clips that are not cached, without decoding."""
        return (
            self.compile_seconds
            + self.forward_seconds * len(plan.forward_missing)
            + self.target_seconds * len(plan.backward_missing)
        )


def time_batch(plan: Plan, runtime: Runtime) -> TimedBatch:
    """Time a micro-batch twice; the first time includes compilation."""
    n_clips = len(plan.clips.concepts) + len(plan.clips.targets)
    encode_config, stages = plan.config.encode_config, plan.stages
    encode_config = replace(encode_config, batch_size=min(encode_config.batch_size, n_clips))
    batch_size = max(encode_config.batch_size, runtime.mesh.devices.size)
    clips, model = (
        in_memory(np.zeros((batch_size, *plan.network.clip_spec.shape), np.float32)),
        replicate_model(plan, runtime),
    )
    table = class_table(np.array([target.index for target in plan.clips.classes]), batch_size)

    def measure_seconds() -> tuple[float, float]:
        start = time.perf_counter()
        list(stream_activations(model, clips, stages, encode_config, runtime))
        middle = time.perf_counter()
        list(stream_gradients(model, clips, table, stages, encode_config, runtime))
        return middle - start, time.perf_counter() - middle

    first, second = measure_seconds(), measure_seconds()
    return TimedBatch(second[0] / batch_size, second[1] / batch_size, max(0.0, sum(first) - sum(second)))
