"""Film of the maps of a video for all targets: its clips joined; frames in two clips are taken from the first."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from vtcav_jax.attribution.result import Attribution
from vtcav_jax.attribution.videos.clip_windows import unseen_frames
from vtcav_jax.attribution.videos.explain_videos import VideoMaps
from vtcav_jax.report.animation.overlay import (
    DEFAULT_STYLE,
    OverlayFilm,
    OverlayStyle,
    Panel,
    PanelGroup,
    common_scale,
)

MIN_MAP_ANIMATION_SECONDS = 2.0


def map_animation_name(stem: str, suffix: str) -> str:
    """Return the file name of the animation of a video, from the file of its maps."""
    return f"{stem}.{suffix}"


def draw_map_film(
    video_maps: VideoMaps, labels: Sequence[str], style: OverlayStyle = DEFAULT_STYLE
) -> tuple[OverlayFilm, float]:
    """Return the film of a video with the maps of all targets, and the frame rate, which is reduced for short clips.

    Beside the clip are the maps by each method, or with several targets, for each method, the map of each target.
    Long videos are shown as time lapse, with evenly spaced frames.
    """
    unseen = unseen_frames(video_maps.windows)
    frames, stride = np.stack(video_maps.film.pictures), video_maps.film.stride
    times = np.concatenate([window.clip.times[0][new] for window, new in zip(video_maps.windows, unseen)])
    panels = {
        target: [map_panel(attribution, unseen, stride) for attribution in maps]
        for target, maps in video_maps.maps.items()
    }
    predictions = {
        target: labels[int(answers[0])] if answers[0] >= 0 else "" for target, answers in video_maps.answers.items()
    }
    scores = {target: float(values.mean()) for target, values in video_maps.scores.items()}
    caption = film_caption(video_maps.read.item.name, predictions, scores)
    return OverlayFilm(frames, panel_groups(panels, predictions, scores), caption, style), animation_rate(times)


def panel_groups(
    panels: Mapping[str, Sequence[Panel]], predictions: Mapping[str, str], scores: Mapping[str, float]
) -> list[PanelGroup]:
    """Return the panels of a clip by target, each with a panel per method, as groups of a film.

    One target is a group without a heading. Several are a group per method. Its targets have one scale, apart from
    those without a prediction, such as channels, whose scores have other units.
    """
    if len(panels) < 2:
        return [PanelGroup(group) for group in panels.values()]
    groups = []
    for same_method in zip(*panels.values(), strict=True):
        methods = list(dict.fromkeys(panel.title for panel in same_method))
        heading = methods[0] if len(methods) == 1 else ""  # the default stage can depend on the target
        scale = common_scale(
            [panel for target, panel in zip(panels, same_method) if predictions[target]] or same_method
        )
        titled = [
            replace(
                panel,
                title="\n".join([target, *([] if heading else [panel.title]), f"score {scores[target]:.3g}"]),
                scale=scale if predictions[target] else None,
            )
            for target, panel in zip(panels, same_method)
        ]
        groups.append(PanelGroup(titled, heading))
    return groups


def film_caption(clip: str, predictions: Mapping[str, str], scores: Mapping[str, float]) -> str:
    """Return the caption of a film: that of the map of an only target, or the clip and all predictions."""
    if len(predictions) == 1:
        ((target, answer),) = predictions.items()
        return map_caption(clip, target, answer or target, scores[target])
    answers = list(dict.fromkeys(filter(None, predictions.values())))
    return f"{clip}  (prediction {', '.join(answers)})" if answers else clip


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
