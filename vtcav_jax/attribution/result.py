"""`Attribution`, the result of every attribution method."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

VIDEO = "video"  # stage name of maps over the pixels


@dataclass(frozen=True, eq=False)
class Attribution:
    """Attribution maps of clips, one value per voxel or token: neither scaled, clipped nor resized.

    `signed` maps contain evidence against the target as negative values. `forward_passes` is the cost per clip, with a
    backward pass counted as two. `completeness_gap`, for methods whose maps should sum to a known value such as the
    score, is that value minus the map's sum, in units of the score.
    """

    map: Float[np.ndarray, "b t h w"]
    stage: str  # VIDEO or a stage of the network
    signed: bool
    forward_passes: int
    method: str
    completeness_gap: Float[np.ndarray, " b"] | None = None

    def __repr__(self) -> str:
        return f"Attribution({self.method} at {self.stage}, map of shape {self.map.shape})"

    def __getitem__(self, rows: slice) -> "Attribution":
        """Return the maps of a subset of the clips."""
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
        """Evidence for the target: the map with negative values set to 0, as CAMs are usually displayed."""
        return np.maximum(self.map, 0)


def concatenate_attributions(parts: Sequence[Attribution]) -> Attribution:
    """Concatenate the clips of all `parts`, which must have the same method and stage."""
    gaps = [part.completeness_gap for part in parts if part.completeness_gap is not None]
    return replace(
        parts[0],
        map=np.concatenate([part.map for part in parts]),
        completeness_gap=np.concatenate(gaps) if gaps else None,
    )
