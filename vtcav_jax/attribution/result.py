"""What every explainer returns."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

VIDEO = "video"  # the stage that a map over the pixels belongs to


@dataclass(frozen=True, eq=False)
class Attribution:
    """One value per voxel or token: signed where the method is, not scaled, not clipped, not resized.

    `cost` counts forward passes of each clip, a backward pass as two. `residual` is, for methods that owe a sum, what
    each map's sum misses of it, in units of the target's score.
    """

    map: Float[np.ndarray, "b t h w"]
    stage: str  # VIDEO or where in the network
    signed: bool
    forward_passes: int
    method: str
    completeness_gap: Float[np.ndarray, " b"] | None = None

    def __getitem__(self, rows: slice) -> "Attribution":
        """Of some of the clips."""
        return replace(
            self,
            map=self.map[rows],
            completeness_gap=None if self.completeness_gap is None else self.completeness_gap[rows],
        )

    @property
    def granularity(self) -> str:
        return "voxel" if self.stage == VIDEO else "token"

    @property
    def positive(self) -> Float[np.ndarray, "b t h w"]:
        """What speaks for the target; the CAM family is usually shown like this."""
        return np.maximum(self.map, 0)


def concatenate_attributions(parts: Sequence[Attribution]) -> Attribution:
    """Of the clips of all `parts`, which are of one method and stage."""
    residuals = [part.completeness_gap for part in parts if part.completeness_gap is not None]
    return replace(
        parts[0],
        map=np.concatenate([part.map for part in parts]),
        completeness_gap=np.concatenate(residuals) if residuals else None,
    )
