"""Animation of the maps of a video: its clips joined; frames in two clips are taken from the first."""

import numpy as np
from jaxtyping import Float, UInt8

from vtcav_jax.attribution.result import Attribution
from vtcav_jax.attribution.videos.clip_windows import unseen_frames
from vtcav_jax.attribution.videos.explain_videos import VideoMaps
from vtcav_jax.names import safe_filename
from vtcav_jax.report.animation.overlay import DEFAULT_STYLE, OverlayStyle, Panel, overlay_maps

MIN_MAP_ANIMATION_SECONDS = 2.0


def map_animation_name(stem: str, target: str, suffix: str) -> str:
    """Return the file name of an animation, from the file of the maps and the question."""
    return f"{stem}--{safe_filename(target)}.{suffix}"


def render_map_animation(
    video_maps: VideoMaps, target: str, answer: str, style: OverlayStyle = DEFAULT_STYLE
) -> tuple[UInt8[np.ndarray, "n h w 3"], float]:
    """Return the frames of one question and the frame rate, which is reduced for short clips.

    Long videos are shown as time lapse, with evenly spaced frames.
    """
    unseen = unseen_frames(video_maps.windows)
    frames, stride = np.stack(video_maps.film.pictures), video_maps.film.stride
    times = np.concatenate([window.clip.times[0][new] for window, new in zip(video_maps.windows, unseen)])
    panels = [map_panel(attribution, unseen, stride) for attribution in video_maps.maps[target]]
    caption = map_caption(video_maps.read.item.name, target, answer, float(video_maps.scores[target].mean()))
    return overlay_maps(frames, panels, caption, style), animation_rate(times)


def map_caption(clip: str, target: str, answer: str, score: float) -> str:
    """Return the caption of a clip's map: what is explained, the prediction if it is another class, and the score."""
    is_same = answer == target or answer.startswith(f"{target}:")
    answer_text = answer if is_same else f"{target} (prediction {answer})"
    return f"{clip}  {answer_text}  score {score:.3g}"


def animation_rate(times: Float[np.ndarray, " frames"]) -> float:
    """Return the frames per second of a clip, or fewer if it were shorter than `MIN_MAP_ANIMATION_SECONDS`."""
    rate = 1 / max(float(np.median(np.diff(times))), 1e-3) if len(times) > 1 else 1.0
    return max(min(rate, len(times) / MIN_MAP_ANIMATION_SECONDS), 1.0)


def map_panel(attribution: Attribution, unseen: list[np.ndarray], stride: int = 1) -> Panel:
    """Join the time steps of all clips at the frames that each contributes; every `stride`-th frame is displayed."""
    maps, positions, offset = [], [], 0
    for values, new in zip(attribution.map, unseen):
        middles: Float[np.ndarray, " steps"] = (np.arange(len(values)) + 0.5) * len(new) / len(values) - 0.5
        indices = new[np.floor(middles + 0.5).astype(int)]
        if new.any() and not indices.any():  # fewer new frames than a time step has, as in a video of one frame
            indices[new.argmax() * len(values) // len(new)] = True
        maps.append(values[indices])
        positions.append(middles[indices] - new.argmax() + offset)
        offset += int(new.sum())
    return Panel(
        f"{attribution.method} @{attribution.stage}",
        np.concatenate(maps),
        np.concatenate(positions) / stride,
        attribution.signed,
    )
