"""Sensitivity to steps that are not small: where scores go when targets are really moved along a vector.

Gradients say what an infinitely small step does, and where a network is saturated that is nothing. A finite step goes
from the mean of the negatives to the mean of the concept, and as far the other way, so that opposite vectors have
opposite derivatives. It costs two forward passes for each vector and target: permuted labels are tested in the same
way, or p-values would mean nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from vtcav_jax.tcav.experiment.plan import Plan
from vtcav_jax.tcav.features.cache import key_of
from vtcav_jax.tcav.features.feature_store import Features
from vtcav_jax.tcav.features.microbatches import Clips, Work
from vtcav_jax.tcav.steering.steer import changes

MOVES = 32  # at once; they are held at the devices


@dataclass(frozen=True)
class Finite:
    """Derivatives of all classes at their targets; a call of what was asked before is answered by the cache."""

    plan: Plan
    stage: str
    examples: Features
    clips: Clips  # the targets
    rows: Sequence[int]  # which they are
    mesh: Mesh
    work: Work

    def __call__(
        self, unit: Float[np.ndarray, "v m"], gap: Float[np.ndarray, " v"]
    ) -> Sequence[Float[np.ndarray, "1 n v"]]:
        """Along unit vectors, by steps of `gap` both ways."""
        length = np.where(np.abs(gap) > 0, np.abs(gap), np.nan)
        steps = np.nan_to_num(unit * length[:, None])
        size = math.prod(self.examples.shape) * np.dtype(self.examples.dtype).itemsize
        at_once = max(1, min(MOVES, self.plan.settings.budget // (8 * size)))
        parts = [self._changes(steps[i : i + at_once], at_once) for i in range(0, len(steps), at_once)]
        slopes = np.concatenate(parts) / (2 * length[:, None, None])
        place = {row: i for i, row in enumerate(self.rows)}
        return [
            slopes[:, c, [place[row] for row in target.rows]].T[None]
            for c, target in enumerate(self.plan.looked.classes)
        ]

    def _changes(self, steps: Float[np.ndarray, "v m"], at_once: int) -> Float[np.ndarray, "v c n"]:
        """Of the scores, from one end to the other. Filled up to `at_once`, so that one program is compiled."""
        plan, store = self.plan, self.plan.store
        s = plan.settings
        asked = plan.base, self.stage, s.target_fn, plan.looked.targets.keys, [asdict(t) for t in plan.looked.classes]
        key = key_of("finite", *asked, plan.looked.concepts.keys, sha256(steps.tobytes()).hexdigest())
        if not store.has(key):
            moves = self.examples.combined(np.pad(steps, ((0, at_once - len(steps)), (0, 0))))
            both = np.concatenate([moves, -moves])
            classes = np.array([target.index for target in plan.looked.classes])
            found = changes(
                plan.loaded.model, self.clips, classes, self.stage, both, s.reading, mesh=self.mesh, work=self.work
            )
            store.put(key, found[: len(steps)] - found[at_once : at_once + len(steps)])
        return store.get(key)
