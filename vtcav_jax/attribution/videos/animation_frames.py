"""Frames of a video for its animation: evenly spaced and bounded in number, however long the video is."""

from dataclasses import replace

import numpy as np

from vtcav_jax.attribution.videos.clip_windows import Window, unseen_frames

MAX_ANIMATION_FRAMES = 500


class AnimationFrames:
    """Every `stride`-th frame of the windows of a video; the stride doubles when there are too many."""

    def __init__(self, max_frames: int = MAX_ANIMATION_FRAMES):
        self.max_frames, self.stride = max_frames, 1
        self.pictures: list[np.ndarray] = []
        self.n_frames, self.last_seen = 0, -1

    def add(self, window: Window) -> None:
        """Add the frames of the next window that are in no earlier one."""
        (new,) = unseen_frames([window], self.last_seen)
        self.last_seen = max(self.last_seen, int(window.clip.frames[0].max()))
        for picture in window.clip.video[0][new]:
            if self.n_frames % self.stride == 0:
                self.pictures.append(picture.copy())  # a view would keep the frames of the whole window
            self.n_frames += 1
            if len(self.pictures) > self.max_frames:
                del self.pictures[1::2]
                self.stride *= 2


def drop_frames(window: Window) -> Window:
    """Return a window without its pictures, which take most of its memory."""
    return replace(window, clip=replace(window.clip, video=np.empty((0, *window.clip.video.shape[1:]), np.uint8)))
