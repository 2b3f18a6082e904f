"""Second pass of discovery: the score of each concept in each clip, and the clips in which it is strongest."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass
class StrongestClips:
    """For each concept of a stage, the clips with the highest scores, at most one per source video, and their maps.

    Only `count` clips per concept are kept, so that memory does not grow with the number of clips.
    """

    scores: Float[np.ndarray, "k count"]  # -inf where there are fewer clips
    items: Int[np.ndarray, "k count"]  # positions in the source
    videos: Int[np.ndarray, "k count"]  # numbers of the source videos
    frames: Int[np.ndarray, "k count frames"]
    maps: Float[np.ndarray, "k count t h w"]

    @classmethod
    def empty(cls, k: int, count: int, n_frames: int, grid: tuple[int, int, int]) -> "StrongestClips":
        return cls(
            np.full((k, count), -np.inf),
            np.full((k, count), -1),
            np.full((k, count), -1),
            np.zeros((k, count, n_frames), np.int64),
            np.zeros((k, count, *grid), np.float16),
        )

    def offer(
        self,
        scores: Float[np.ndarray, " k"],
        maps: Float[np.ndarray, "t h w k"],
        item: int,
        video: int,
        frames: Int[np.ndarray, " frames"],
    ) -> None:
        """Insert a clip where its score is among the highest."""
        for j in np.flatnonzero((scores > self.scores.min(1)) & (scores > 0)):
            self._insert(int(j), float(scores[j]), maps[..., j], item, video, frames)

    def merge(self, other: "StrongestClips") -> None:
        """Insert the clips of other videos, or of the same ones, that were collected by themselves."""
        for j in range(len(other.scores)):
            for row in other.ranked(j):
                item, video = int(other.items[j, row]), int(other.videos[j, row])
                self._insert(j, float(other.scores[j, row]), other.maps[j, row], item, video, other.frames[j, row])

    def _insert(
        self,
        j: int,
        score: float,
        clip_map: Float[np.ndarray, "t h w"],
        item: int,
        video: int,
        frames: Int[np.ndarray, " frames"],
    ) -> None:
        same_video = np.flatnonzero(self.videos[j] == video)
        row = int(same_video[0]) if len(same_video) else int(self.scores[j].argmin())
        if score > self.scores[j, row]:
            self.scores[j, row], self.items[j, row], self.videos[j, row] = score, item, video
            self.frames[j, row], self.maps[j, row] = frames, clip_map

    def ranked(self, j: int) -> list[int]:
        """Return the rows of a concept's clips, the strongest first."""
        order = np.lexsort((self.items[j], -self.scores[j]))
        return [int(row) for row in order if np.isfinite(self.scores[j, row])]

    def state(self) -> dict[str, np.ndarray]:
        return dict(vars(self))
