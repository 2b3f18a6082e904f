"""Causal tracing: the stages and places at which the difference between two clips' scores is carried.

A corrupted clip, such as a frozen clip or one of another class, is run with the activation of the clean clip at one
place of one stage (layer). The share of the score difference that returns is the effect of this place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from vtcav_jax import tap as taps
from vtcav_jax.attribution.inputs import resolve_clips, resolve_inputs
from vtcav_jax.attribution.removal.plans import fit_cells
from vtcav_jax.attribution.removal.segments import Counts, check_counts, grid
from vtcav_jax.attribution.score_model import clip_scores, prepare_explanation, to_numpy
from vtcav_jax.attribution.targets import Target
from vtcav_jax.console import progress
from vtcav_jax.models.network import Network
from vtcav_jax.stats.intervals import ratio_ci
from vtcav_jax.tap import Model


@dataclass(frozen=True, eq=False)
class CausalTrace:
    """Scores of the clean clips, of the corrupted ones, and of the corrupted ones patched at each place of each stage.

    The places of a stage are a grid over time and space.
    """

    clean_scores: Float[np.ndarray, " b"]
    corrupted_scores: Float[np.ndarray, " b"]
    patched_scores: dict[str, Float[np.ndarray, "b t h w"]]  # by stage, in forward order
    forward_passes: int

    def shares(self, stage: str, *, source_videos: Sequence[str] | None = None) -> Float[np.ndarray, "t h w 3"]:
        """Return the share of the score difference that moves with each place, and its 95 % interval.

        The share is a ratio of means over clips: 0 where patching changes nothing, 1 where it restores the clean score.
        The intervals resample clips, or the `source_videos` that they are from. They hold place by place.
        """
        patched = self.patched_scores[stage]
        whole = (self.clean_scores - self.corrupted_scores).astype(np.float64)
        shares = np.empty((*patched.shape[1:], 3))
        for place in np.ndindex(*patched.shape[1:]):
            moved = patched[(slice(None), *place)] - self.corrupted_scores
            shares[place] = ratio_ci(moved, whole, units=source_videos)
        return shares


def causal_tracing(
    network: Network | Model,
    clips: ArrayLike,
    corrupted: ArrayLike,
    target: Target | str,
    *,
    stages: Sequence[str] | None = None,
    cells: Counts | None = None,
) -> CausalTrace:
    """Score the corrupted clips with the activation of the clean `clips` at each place of each stage.

    Args:
        network: a `Network`, or a bare model.
        clips: the clean clips.
        corrupted: one corrupted clip for each clean one, such as `baselines.freeze_middle(video)` or a clip of another
            class.
        target: the target of `attribute`; a `Contrast` of the two clips' classes measures which of them wins.
        stages: stages with time and space; by default the video and all such stages that the target depends on.
        cells: places along time, height and width, fewer at coarser stages; by default each time step of a stage.

    Reference: Meng et al., "Locating and Editing Factual Associations in GPT", 2022, arXiv:2202.05262.
    """
    model, video, resolved = resolve_inputs(network, clips, target)
    context = prepare_explanation(model, video, resolved)
    score_model, video = context.score_model, context.video
    other = jnp.asarray(resolve_clips(network, corrupted), video.dtype)
    if other.shape != video.shape:
        raise ValueError(f"expected one corrupted clip for each clean one, {video.shape}; got {other.shape}")
    if stages is None:
        grids = [name for name, shape in context.shapes.items() if len(shape) == 5]
        stages = grids[: grids.index(context.resolve_stage(None)) + 1]
    context.require_reachable([context.resolve_stage(stage) for stage in stages])
    counts = {}
    for stage in stages:
        shape = context.shapes[stage][1:4]
        counts[stage] = (shape[0], 1, 1) if cells is None else fit_cells(shape, cells)
        check_counts(shape, counts[stage])
    scores, activations = taps.activations(score_model, video, stages)
    clean_scores, corrupted_scores = to_numpy(scores[:, 0]), clip_scores(score_model, other)
    if not clean_scores.mean() > corrupted_scores.mean():
        raise ValueError(
            "expected a target that scores higher for the clean clips than for the corrupted ones, got means of"
            f" {clean_scores.mean():.3g} and {corrupted_scores.mean():.3g}; use Contrast(clean class, other class)"
        )
    places = [(stage, number) for stage in stages for number in range(int(np.prod(counts[stage])))]
    patched: dict[str, list[np.ndarray]] = {stage: [] for stage in stages}
    ids = {stage: grid(context.shapes[stage][1:4], counts[stage]) for stage in stages}
    for stage, number in progress(places, len(places), "places", size=lambda _: 1):
        # All stages in every call, all but one without places: one compiled program serves all
        masks = [jnp.asarray((ids[name] == number) & (name == stage)) for name in stages]
        scores = taps.run_patched(score_model, other, tuple(stages), [activations[name] for name in stages], masks)
        patched[stage].append(to_numpy(scores[:, 0]))
    patched_scores = {stage: np.stack(parts, 1).reshape(-1, *counts[stage]) for stage, parts in patched.items()}
    return CausalTrace(clean_scores, corrupted_scores, patched_scores, len(places) + 2)
