"""Views over which the predictions of a video are averaged: temporal clips and spatial crops."""

import re
from dataclasses import dataclass

from vtcav_jax import models
from vtcav_jax.data import SamplingConfig
from vtcav_jax.runs.accuracy_rows import describe_views

PAPER, CENTRE, ALL = "paper", "centre", "all"
MAX_CLIPS = 1000
CROPS = {1: "center_crop", 3: "three_crop"}


@dataclass(frozen=True)
class ViewPlan:
    """Clips per video (evenly spaced; 0: all consecutive ones), crops of each (1 or 3), and who says these numbers."""

    clips: int
    crops: int
    origin: str

    def __str__(self) -> str:
        return describe_views(self.clips, self.crops, self.origin)

    def sampling(self, interval_seconds: float | None = None) -> SamplingConfig:
        """Return the settings that read these views as uint8."""
        return SamplingConfig(
            clips_per_video=max(self.clips, 1),
            consecutive=self.clips == 0,
            views="three_crop" if self.crops == 3 else "center_crop",
            interval_seconds=interval_seconds,
            normalise=False,
        )


def plan_views(text: str, network: models.Network) -> ViewPlan:
    """Return the views that `text` names: `paper`, `centre`, or numbers of clips and crops such as `4x3`.

    `allx1` are all consecutive clips. `paper` are those of the network's paper; a network without such a number has one
    centred clip.
    """
    if text == CENTRE:
        return ViewPlan(1, 1, "the centre of the video and of the frame")
    if text == PAPER:
        preset = models.PRESETS.get(network.preset or "")
        if preset is None or preset.test_views is None:
            return ViewPlan(1, 1, f"no number of clips and crops is known for {network.name}")
        return ViewPlan(preset.test_views.clips, preset.test_views.crops, preset.test_views.origin)
    match = re.fullmatch(rf"({ALL}|\d{{1,4}})[x×](\d)", text)
    clips = 0 if match is None or match[1] == ALL else int(match[1])
    if match is None or not (match[1] == ALL or 1 <= clips <= MAX_CLIPS) or int(match[2]) not in CROPS:
        raise ValueError(
            f"expected {PAPER}, {CENTRE}, or CLIPSxCROPS with 1 to {MAX_CLIPS} clips, or all, and 1 or 3 crops, such as"
            f" 4x3 or allx1, got {text!r}"
        )
    if clips == 0 and network.clip_spec.sampling == "uniform":
        raise ValueError("the frames of this network's clips are spread over the whole video; pass a number of clips")
    return ViewPlan(clips, int(match[2]), "as requested")
