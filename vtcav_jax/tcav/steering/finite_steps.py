"""Finite-step derivatives: score changes when the activations of target clips are moved along a vector.

Gradients describe infinitesimal steps and vanish where a network saturates. A finite step is as long as the distance
between the means of the negatives and of the concept and is made in both directions, so that opposite vectors have
opposite derivatives. It costs two forward passes per vector and target clip. Permuted labels are tested with the same
steps, as valid p-values require.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256

import numpy as np
from jaxtyping import Float

from vtcav_jax.runtime import Runtime
from vtcav_jax.tcav.experiment.plan import Plan
from vtcav_jax.tcav.features.cache import content_key
from vtcav_jax.tcav.features.feature_store import Features
from vtcav_jax.tcav.features.microbatches import ClipBatches
from vtcav_jax.tcav.steering.steer import score_changes

MOVES_PER_CALL = 32  # bounded by device memory


@dataclass(frozen=True)
class FiniteStepDerivatives:
    """Derivatives of all classes at their target clips by finite steps; results are cached."""

    plan: Plan
    stage: str
    examples: Features
    target_clips: ClipBatches
    target_rows: Sequence[int]  # rows of `target_clips` among the plan's targets
    runtime: Runtime

    def __call__(
        self, unit: Float[np.ndarray, "v m"], gap: Float[np.ndarray, " v"]
    ) -> Sequence[Float[np.ndarray, "1 n v"]]:
        """Return the derivatives along unit vectors, by steps of length `gap` in both directions."""
        step_length = np.where(np.abs(gap) > 0, np.abs(gap), np.nan)
        steps = np.nan_to_num(unit * step_length[:, None])
        size = math.prod(self.examples.shape) * np.dtype(self.examples.dtype).itemsize
        moves_per_call = max(1, min(MOVES_PER_CALL, self.plan.config.budget // (8 * size)))
        changes = [
            self._score_changes(steps[i : i + moves_per_call], moves_per_call)
            for i in range(0, len(steps), moves_per_call)
        ]
        derivatives = np.concatenate(changes) / (2 * step_length[:, None, None])
        row_index = {row: i for i, row in enumerate(self.target_rows)}
        return [
            derivatives[:, c, [row_index[row] for row in target.rows]].T[None]
            for c, target in enumerate(self.plan.clips.classes)
        ]

    def _score_changes(self, steps: Float[np.ndarray, "v m"], moves_per_call: int) -> Float[np.ndarray, "v c n"]:
        """Return score differences between the ends of the steps; `moves_per_call` pads them to one compiled shape."""
        plan, store = self.plan, self.plan.store
        s = plan.config
        key_parts = (
            plan.base_key,
            self.stage,
            s.score_fn,
            plan.clips.targets.keys,
            [asdict(t) for t in plan.clips.classes],
        )
        key = content_key("finite", *key_parts, plan.clips.concepts.keys, sha256(steps.tobytes()).hexdigest())
        if not store.has(key):
            moves = self.examples.linear_combination(np.pad(steps, ((0, moves_per_call - len(steps)), (0, 0))))
            both_ways = np.concatenate([moves, -moves])
            classes = np.array([target.index for target in plan.clips.classes])
            changes = score_changes(
                plan.network.model,
                self.target_clips,
                classes,
                self.stage,
                both_ways,
                s.encode_config,
                runtime=self.runtime,
            )
            store.put(key, changes[: len(steps)] - changes[moves_per_call : moves_per_call + len(steps)])
        return store.get(key)
