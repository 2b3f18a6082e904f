"""Temporal masks: the shortest part of a clip whose motion, or whose order of frames, a score needs.

Within the part, the clip is frozen (the frame before it is repeated) or played backwards. `temporal_windows` tries
every part of consecutive frames; `temporal_mask` optimises a weight for each frame by its gradient, so that the frames
need not be consecutive.

Reference: Mänttäri et al., "Interpreting Video Features: a Comparison of 3D Convolutional Networks and Convolutional
LSTM Networks", 2020, arXiv:2002.00367.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from vtcav_jax.attribution.inputs import resolve_inputs
from vtcav_jax.attribution.removal.optimised_masks import hold_softly
from vtcav_jax.attribution.score_model import ScoreModel, clip_scores, prepare_explanation
from vtcav_jax.attribution.targets import Target
from vtcav_jax.console import progress
from vtcav_jax.models.network import Network
from vtcav_jax.tap import Model

MAX_GROUPS = 16  # of frames: 136 windows
LENGTH_WEIGHT, CHANGE_WEIGHT, CHANGE_EXPONENT = 0.5, 0.02, 3  # of the mask's mean and of its changes over time
EDIT_THRESHOLD = 0.1  # frames with a larger weight are edited; runs of them are reversed together
START_LOGIT, STEP_SIZE = 3.0, 0.2
MIN_FALL = 1e-6


@dataclass(frozen=True, eq=False)
class TemporalWindows:
    """Scores of each clip with every window of consecutive frames edited; `windows` has first frames and ends."""

    edit: str  # frozen or reversed
    windows: Int[np.ndarray, "n 2"]  # the end is not part of the window; the last window is the whole clip
    scores: Float[np.ndarray, " b"]
    edited_scores: Float[np.ndarray, "b n"]

    @property
    def losses(self) -> Float[np.ndarray, "b n"]:
        """Loss of score of each window, as a share of that of the whole clip; NaN unless the whole clip loses."""
        fall = self.scores - self.edited_scores[:, -1]
        fall = np.where(fall > MIN_FALL, fall, np.nan)
        return (self.scores[:, None] - self.edited_scores) / fall[:, None]

    def shortest(self, share: float = 0.9) -> list[tuple[int, int] | None]:
        """Return each clip's shortest window that loses at least this share of what the whole clip loses.

        Of equally short windows it is the one that loses most. None if the whole clip loses nothing.
        """
        lengths = self.windows[:, 1] - self.windows[:, 0]
        shortest: list[tuple[int, int] | None] = []
        for losses in self.losses:
            enough = np.flatnonzero(losses >= share)
            if not len(enough):
                shortest.append(None)
                continue
            best = enough[np.lexsort((-losses[enough], lengths[enough]))[0]]
            shortest.append((int(self.windows[best, 0]), int(self.windows[best, 1])))
        return shortest


@dataclass(frozen=True, eq=False)
class TemporalMask:
    """The frames that are edited, and the scores of the clips: as they are, edited there, and edited everywhere."""

    edit: str  # frozen or reversed
    mask: Bool[np.ndarray, "b t"]
    scores: Float[np.ndarray, " b"]
    edited_scores: Float[np.ndarray, " b"]
    fully_edited_scores: Float[np.ndarray, " b"]


def temporal_windows(
    network: Network | Model,
    clips: ArrayLike,
    target: Target | str,
    *,
    edit: str = "frozen",
    groups: int | None = None,
) -> TemporalWindows:
    """Score the clips with each window of consecutive groups of frames frozen or reversed.

        result = temporal_windows(network, clips, "direction", edit="reversed")
        result.shortest()   # for each clip, the first frame and the end of the shortest window that decides

    Each group of frames is edited as a whole: by default 16 groups, or one frame each in shorter clips; 16 groups take
    137 forward passes.
    """
    score_model, video = _prepare(network, clips, target, edit)
    frames = video.shape[1]
    groups = min(frames, MAX_GROUPS) if groups is None else groups
    if not 1 <= groups <= frames:
        raise ValueError(f"expected between 1 and {frames} groups of frames, got {groups}")
    borders = np.linspace(0, frames, groups + 1).round().astype(int).tolist()
    windows = [(borders[i], borders[i + n]) for n in range(1, groups + 1) for i in range(groups - n + 1)]
    scores = clip_scores(score_model, video)
    edited = []
    for start, end in progress(windows, len(windows), "windows of frames", size=lambda _: 1):
        order = edited_order(frames, start, end, edit)
        unchanged = np.array_equal(order, np.arange(frames))
        edited.append(scores if unchanged else clip_scores(score_model, video[:, order]))
    return TemporalWindows(edit, np.array(windows), scores, np.stack(edited, 1))


def edited_order(frames: int, start: int, end: int, edit: str) -> Int[np.ndarray, " frames"]:
    """Return the frames of a clip in which those from `start` to before `end` are held or reversed."""
    order = np.arange(frames)
    order[start:end] = max(start - 1, 0) if edit == "frozen" else order[start:end][::-1]
    return order


def temporal_mask(
    network: Network | Model,
    clips: ArrayLike,
    target: Target | str,
    *,
    edit: str = "frozen",
    steps: int = 100,
) -> TemporalMask:
    """Optimise which frames to edit, so that the score falls as far as in the fully edited clip and few are edited.

    Each frame has a weight m. Its loss is the rest of the score, as a share of what the fully edited clip loses, plus
    half the mean of the weights and a penalty on their changes over time. A frozen frame is `y_t = (1 - m_t) x_t + m_t
    y_(t-1)`; runs of frames with weights above 0.1 are reversed, and blended with the clip by their weights. Blended
    frames are not what is asked about: the mask is the best, by the same loss, of the sets of frames with weights above
    0.1 on the way. It starts from all frames. Each of `steps` costs as much as four forward passes.
    """
    score_model, video = _prepare(network, clips, target, edit)
    b, frames = video.shape[:2]
    scores = clip_scores(score_model, video)
    full = clip_scores(score_model, video[:, edited_order(frames, 0, frames, edit)])
    unit = np.maximum(scores - full, MIN_FALL)
    low_and_unit = jnp.asarray(np.stack([full, unit]), video.dtype)
    values = jnp.full((b, frames), START_LOGIT, video.dtype)
    state = optax.adam(STEP_SIZE).init(values)
    mask, edited_scores, lowest = np.ones((b, frames), bool), full, np.full(b, LENGTH_WEIGHT)
    for _ in progress(range(steps), steps, "steps of the mask", size=lambda _: 1):
        frames_edited = np.asarray(jax.nn.sigmoid(values)) > EDIT_THRESHOLD
        order = jnp.asarray(_reversed_runs(frames_edited))
        edited = clip_scores(score_model, _edit_softly(video, jnp.asarray(frames_edited, video.dtype), order, edit))
        loss = np.maximum((edited - full) / unit, 0) + LENGTH_WEIGHT * frames_edited.mean(1)
        is_better = loss < lowest
        lowest, edited_scores = np.where(is_better, loss, lowest), np.where(is_better, edited, edited_scores)
        mask = np.where(is_better[:, None], frames_edited, mask)
        values, state = _descend(score_model, values, state, video, low_and_unit, order, edit)
    return TemporalMask(edit, mask, scores, edited_scores, full)


def _prepare(
    network: Network | Model, clips: ArrayLike, target: Target | str, edit: str
) -> tuple[ScoreModel, Float[Array, "b t h w c"]]:
    if edit not in ("frozen", "reversed"):
        raise ValueError(f"expected the edit frozen or reversed, got {edit!r}")
    model, video, resolved = resolve_inputs(network, clips, target)
    context = prepare_explanation(model, video, resolved)
    return context.score_model, context.video


def _reversed_runs(edited: Bool[np.ndarray, "b t"]) -> Int[np.ndarray, "b t"]:
    """Return the order of frames in which each run of edited frames is reversed."""
    order = np.tile(np.arange(edited.shape[1]), (len(edited), 1))
    for row, flags in zip(order, edited):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
        for start, end in edges.reshape(-1, 2):
            row[start:end] = row[start:end][::-1].copy()
    return order


@partial(jax.jit, static_argnames="edit")
def _descend(
    score_model: ScoreModel, values: Array, state: Any, video: Array, low_and_unit: Array, order: Array, edit: str
) -> tuple[Any, Any]:
    def loss(values: Array) -> Array:
        mask = jax.nn.sigmoid(values)
        changes = (jnp.abs(mask[:, 1:] - mask[:, :-1]) ** CHANGE_EXPONENT).sum(1)
        score = score_model.score(_edit_softly(video, mask, order, edit))
        remainder = jnp.maximum(
            (score - low_and_unit[0]) / low_and_unit[1], 0
        )  # below the fully edited clip's score, nothing is gained
        return (remainder + LENGTH_WEIGHT * mask.mean(1) + CHANGE_WEIGHT * changes).sum()

    gradient = jax.grad(loss)(values)
    with jax.numpy_dtype_promotion("standard"):  # optax multiplies a float by the step's number
        updates, state = optax.adam(STEP_SIZE).update(gradient, state)
    return optax.apply_updates(values, updates), state


def _edit_softly(
    video: Float[Array, "b t h w c"], mask: Float[Array, "b t"], order: Int[Array, "b t"], edit: str
) -> Float[Array, "b t h w c"]:
    weights = mask[..., None, None, None]
    if edit == "frozen":
        return hold_softly(video, 1 - weights)
    backwards = jnp.take_along_axis(video, order[..., None, None, None], axis=1)
    return video + weights * (backwards - video)
