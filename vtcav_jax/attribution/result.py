"""`Attribution`, the result of every attribution method."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, UInt8

from vtcav_jax.displayed_result import DisplayedResult

VIDEO = "video"  # stage name of maps over the pixels


@dataclass(frozen=True, eq=False)
class Attribution(DisplayedResult):
    """Attribution maps of clips, one value per voxel or token: neither scaled, clipped nor resized.

    `signed` maps contain evidence against the target as negative values. `forward_passes` is the cost per clip, with a
    backward pass counted as two. `completeness_gap`, for methods whose maps should sum to a known value such as the
    score, is that value minus the map's sum, in units of the score. `standard_error`, for methods that draw masks or
    orders at random, is that of each value over these draws; it says nothing about other clips.

    `target` and `frames`, the uint8 clips, are set by `attribute` for displays; `frames` are not copied.
    """

    map: Float[np.ndarray, "b t h w"]
    stage: str  # VIDEO or a stage of the network
    signed: bool
    forward_passes: int
    method: str
    completeness_gap: Float[np.ndarray, " b"] | None = None
    standard_error: Float[np.ndarray, "b t h w"] | None = None
    target: str = ""
    frames: UInt8[np.ndarray, "b frames height width 3"] | None = None

    def __repr__(self) -> str:
        n_clips, *grid = self.map.shape
        parts = [f"{self.method} at {self.stage}", f"{n_clips} clip{'' if n_clips == 1 else 's'}"]
        parts += [" x ".join(map(str, grid)), *([self.target] if self.target else [])]
        return f"Attribution({', '.join(parts)})"

    def __getitem__(self, rows: slice) -> "Attribution":
        """Return the maps of a subset of the clips."""
        return replace(
            self,
            map=self.map[rows],
            completeness_gap=None if self.completeness_gap is None else self.completeness_gap[rows],
            standard_error=None if self.standard_error is None else self.standard_error[rows],
            frames=None if self.frames is None else self.frames[rows],
        )

    @property
    def sampling_noise(self) -> Float[np.ndarray, " b"]:
        """Root mean square of the standard errors relative to that of the map; 0 for maps without random draws."""
        if self.standard_error is None:
            return np.zeros(len(self.map), np.float32)
        size, noise = (
            np.sqrt((values.astype(np.float64) ** 2).mean((1, 2, 3))) for values in (self.map, self.standard_error)
        )
        return np.divide(noise, size, out=np.full(len(size), np.nan), where=size > 0)

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
    errors = [part.standard_error for part in parts if part.standard_error is not None]
    frames = [part.frames for part in parts if part.frames is not None]
    return replace(
        parts[0],
        map=np.concatenate([part.map for part in parts]),
        completeness_gap=np.concatenate(gaps) if gaps else None,
        standard_error=np.concatenate(errors) if errors else None,
        frames=np.concatenate(frames) if len(frames) == len(parts) else None,
    )
