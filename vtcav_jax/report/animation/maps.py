"""A video's maps as a film: its clips put together, frames that two of them share from the first."""

import numpy as np
from jaxtyping import Float, UInt8

from vtcav_jax.attribution.result import Attribution
from vtcav_jax.attribution.videos.clip_windows import new_frames
from vtcav_jax.attribution.videos.explain_videos import VideoMaps
from vtcav_jax.names import filed
from vtcav_jax.report.animation.overlay import Panel, overlay

LOOP = 2.0  # seconds that a film lasts at least


def file(stem: str, target: str, kind: str) -> str:
    """The name of a video's film: of the file of its maps, and what was asked."""
    return f"{stem}--{filed(target)}.{kind}"


def film(found: VideoMaps, target: str, answer: str) -> tuple[UInt8[np.ndarray, "n h w 3"], float]:
    """Of one question; and how many frames a second it shows, slower than in life where the clip is short."""
    fresh = new_frames(found.windows)
    frames = np.concatenate([window.clip.video[0][new] for window, new in zip(found.windows, fresh)])
    times = np.concatenate([window.clip.times[0][new] for window, new in zip(found.windows, fresh)])
    panels = [panel(one, fresh) for one in found.maps[target]]
    told = answer if answer == target or answer.startswith(f"{target}:") else f"{target}: {answer}"
    caption = f"{found.read.item.name}  {told}  score {found.scores[target].mean():.3g}"
    rate = 1 / max(float(np.median(np.diff(times))), 1e-3) if len(times) > 1 else 1.0
    return overlay(frames, panels, caption), max(min(rate, len(frames) / LOOP), 1.0)


def panel(one: Attribution, fresh: list[np.ndarray]) -> Panel:
    """The steps of all clips that show frames of their own, at these frames."""
    maps, at, shown = [], [], 0
    for values, new in zip(one.map, fresh):
        middles: Float[np.ndarray, " steps"] = (np.arange(len(values)) + 0.5) * len(new) / len(values) - 0.5
        kept = new[np.floor(middles + 0.5).astype(int)]
        maps.append(values[kept])
        at.append(middles[kept] - new.argmax() + shown)
        shown += int(new.sum())
    return Panel(f"{one.method} @{one.stage}", np.concatenate(maps), np.concatenate(at), one.signed)
