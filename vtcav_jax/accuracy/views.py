"""Views over which the predictions of a video are averaged: temporal clips and spatial crops."""

import re
from dataclasses import dataclass

from vtcav_jax import models
from vtcav_jax.data import SamplingConfig

PAPER, CENTRE = "paper", "centre"
MAX_CLIPS = 1000
CROPS = {1: "center_crop", 3: "three_crop"}


@dataclass(frozen=True)
class ViewPlan:
    """Evenly spaced clips per video, crops of each (1 or 3), and where these numbers come from."""

    clips: int
    crops: int
    origin: str

    def __str__(self) -> str:
        clips = f"{self.clips} clip{'s' if self.clips > 1 else ''}"
        return f"{clips} x {self.crops} crop{'s' if self.crops > 1 else ''} per video ({self.origin})"

    def sampling(self, interval_seconds: float | None = None) -> SamplingConfig:
        """Return the settings that read these views as uint8."""
        return SamplingConfig(
            clips_per_video=self.clips,
            views="three_crop" if self.crops == 3 else "center_crop",
            interval_seconds=interval_seconds,
            normalise=False,
        )


def plan_views(text: str, network: models.Network) -> ViewPlan:
    """Return the views that `text` names: `paper`, `centre`, or numbers of clips and crops such as `4x3`.

    `paper` are those of the network's paper; a network without such a number has one centred clip.
    """
    if text == CENTRE:
        return ViewPlan(1, 1, "the centre of the video and of the frame")
    if text == PAPER:
        preset = models.PRESETS.get(network.preset or "")
        if preset is None or preset.test_views is None:
            return ViewPlan(1, 1, f"no number of clips and crops is known for {network.name}")
        return ViewPlan(preset.test_views.clips, preset.test_views.crops, preset.test_views.origin)
    match = re.fullmatch(r"(\d{1,4})[x×](\d)", text)
    if match is None or not 1 <= int(match[1]) <= MAX_CLIPS or int(match[2]) not in CROPS:
        raise ValueError(
            f"expected {PAPER}, {CENTRE}, or CLIPSxCROPS with 1 to {MAX_CLIPS} clips and 1 or 3 crops, such as 4x3,"
            f" got {text!r}"
        )
    return ViewPlan(int(match[1]), int(match[2]), "as requested")
