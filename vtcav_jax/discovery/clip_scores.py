"""What the second pass of discovery collects: the scores of all concepts in the clips, and their strongest clips."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from vtcav_jax.attribution.videos.clip_windows import Window
from vtcav_jax.discovery.strongest_clips import StrongestClips

State = dict[str, np.ndarray]
CLIP_COLUMNS = ("items", "extents", "predictions")


@dataclass
class ClipScores:
    """Scores of all concepts in the scored clips, their strongest clips, and the explained shares, by stage."""

    strongest: dict[str, StrongestClips]
    items: list[int] = field(default_factory=list)  # position in the source of each clip
    extents: list[tuple[int, int]] = field(default_factory=list)  # first and last frame of each clip
    predictions: list[np.ndarray] = field(default_factory=list)  # of each clip, the class of each head
    values: dict[str, list[np.ndarray]] = field(default_factory=dict)  # one row per clip
    sums: dict[str, np.ndarray] = field(default_factory=dict)  # explained shares, summed over clips

    def add(self, window: Window, video: int, result: Mapping[str, tuple[np.ndarray, ...]], row: int) -> None:
        """Add a clip of a source video, from a row of the results of its batch."""
        self.items.append(window.read.index)
        frames = window.clip.frames[0]
        self.extents.append((int(frames.min()), int(frames.max())))
        for stage, (scores, maps, shares) in result.items():
            self.values.setdefault(stage, []).append(scores[row])
            self.sums[stage] = self.sums.get(stage, 0) + shares[row]
            self.strongest[stage].offer(scores[row], maps[row], window.read.index, video, frames)

    def merge(self, state: Mapping[str, State]) -> None:
        """Add the clips of a stored part."""
        clips = state["clips"]
        self.items += clips["items"].tolist()
        self.extents += [(first, last) for first, last in clips["extents"].tolist()]
        self.predictions += list(clips["predictions"])
        for stage, strongest in self.strongest.items():
            if part := state.get(f"values {stage}"):
                self.values.setdefault(stage, []).extend(part["scores"])
                self.sums[stage] = self.sums.get(stage, 0) + part["sums"]
            strongest.merge(StrongestClips(**state[f"strongest {stage}"]))

    def shares(self, stage: str) -> Float[np.ndarray, " shares"]:
        """Return the mean explained share of all concepts, then of each."""
        return self.sums[stage] / max(len(self.items), 1)

    def state(self) -> dict[str, State]:
        """Return the content as arrays, for storage."""
        parts = {f"strongest {stage}": clips.state() for stage, clips in self.strongest.items()}
        for stage, rows in self.values.items():
            parts[f"values {stage}"] = {"scores": np.stack(rows), "sums": self.sums[stage]}
        return {**parts, "clips": {name: np.array(getattr(self, name), np.int64) for name in CLIP_COLUMNS}}
