"""Removal methods: maps from the scores of clips without some of their parts; forward passes only.

A removed part is replaced by a baseline, or by the last voxel that remains at its place (`baseline="hold"`). Methods
that draw masks at random estimate the standard errors of their values.
"""

from collections.abc import Sequence

from jaxtyping import ArrayLike

from vtcav_jax.attribution.baselines import Baseline
from vtcav_jax.attribution.removal import plans
from vtcav_jax.attribution.removal.engine import HOLD, explain_segments, masks_per_call, match_dtype, score_masks
from vtcav_jax.attribution.removal.plans import Segments
from vtcav_jax.attribution.removal.segments import Counts
from vtcav_jax.attribution.removal.soft_masks import rise_values
from vtcav_jax.attribution.result import VIDEO, Attribution
from vtcav_jax.attribution.score_model import prepare_multi_score
from vtcav_jax.attribution.shared_passes import SharedPasses
from vtcav_jax.attribution.targets import Target
from vtcav_jax.tap import Model


@SharedPasses
def occlusion(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    window: Counts | None = None,
    stride: Counts | None = None,
    baseline: Baseline = "zero",
    budget: int | None = None,
) -> list[Attribution]:
    """Compute each voxel's mean score drop over the sliding windows that cover it.

    `window` and `stride` are voxels along time, height and width. By default a window has a quarter of the clip along
    each axis (with a smaller `budget`: more), and the stride is half a window, or a whole one if only that fits
    the budget.

    Reference: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014, arXiv:1311.2901.
    """
    return explain_segments(
        *(model, clips, targets),
        lambda clip_shape: plans.occlusion_plan(clip_shape, window, stride, budget),
        baseline=baseline,
        name="occlusion",
    )


@SharedPasses
def sos(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    window: Counts | None = None,
    stride: Counts | None = None,
    baseline: Baseline = "zero",
    budget: int | None = None,
) -> list[Attribution]:
    """Compute each voxel's mean score drop over sliding cuboids that cover it (sliding occlusion sensitivity).

    The published window is a quarter of the frames and a seventh of height and width, with half of it as stride: 1184
    forward passes, with `budget=1184`. The default has the same proportions and takes 406: a third of the frames and a
    fifth of height and width. `window` and `stride` are voxels, as in `occlusion`.

    Reference: Gaya-Morey et al., "REVEX: A Unified Framework for Removal-Based Explainable Artificial Intelligence in
    Video", 2024, arXiv:2401.11796.
    """
    return explain_segments(
        *(model, clips, targets),
        lambda clip_shape: plans.sos_plan(clip_shape, window, stride, budget),
        baseline=baseline,
        name="sos",
    )


@SharedPasses
def loco(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    segments: Segments = "grid",
    cells: Counts | None = None,
    baseline: Baseline = "zero",
    budget: int | None = None,
) -> list[Attribution]:
    """Compute the score drop when each segment is removed alone (leave one covariate out).

    Args:
        segments: "grid", "supervoxels", "flow" (tubes along the optical flow), or the segment number of each voxel.
        cells: number of segments along time, height and width; by default the most that fit `budget`.
        baseline: replacement of removed voxels; "hold" repeats the last voxel that remains at the same place.
        budget: maximum number of forward passes, 500 by default.

    Reference: Lei et al., "Distribution-Free Predictive Inference for Regression", 2018, arXiv:1604.04173.
    """
    return explain_segments(
        *(model, clips, targets),
        lambda clip_shape: plans.loco_plan(clip_shape, segments, cells, budget),
        baseline=baseline,
        name="loco",
    )


@SharedPasses
def up(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    segments: Segments = "grid",
    cells: Counts | None = None,
    baseline: Baseline = "zero",
    budget: int | None = None,
) -> list[Attribution]:
    """Compute the score of each segment alone minus that of the baseline (univariate predictors).

    The arguments are those of `loco`. Reference: Guyon and Elisseeff, "An Introduction to Variable and Feature
    Selection", 2003, Journal of Machine Learning Research 3.
    """
    return explain_segments(
        *(model, clips, targets),
        lambda clip_shape: plans.up_plan(clip_shape, segments, cells, budget),
        baseline=baseline,
        name="up",
    )


@SharedPasses
def lime(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    segments: Segments = "grid",
    cells: Counts | None = None,
    masks: int | None = None,
    width: float = 0.25,
    ridge: float = 1.0,
    baseline: Baseline = "zero",
    budget: int | None = None,
    seed: int = 0,
) -> list[Attribution]:
    """Compute the coefficients of a ridge regression of the score on the segments that remain in random masks.

    `masks` (default: `budget`) are drawn with probability 1/2 per segment, each with its complement, and weighted by
    `exp(-d**2 / width**2) ** 0.5`, where d is the cosine distance to the whole clip; `ridge` is the penalty. The other
    arguments are those of `loco`; by default there is a segment per six masks or more.

    Reference: Ribeiro et al., "'Why Should I Trust You?': Explaining the Predictions of Any Classifier", 2016,
    arXiv:1602.04938.
    """
    return explain_segments(
        *(model, clips, targets),
        lambda clip_shape: plans.lime_plan(clip_shape, segments, cells, masks, width, ridge, budget, seed),
        baseline=baseline,
        name="lime",
    )


@SharedPasses
def kernel_shap(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    segments: Segments = "grid",
    cells: Counts | None = None,
    masks: int | None = None,
    baseline: Baseline = "zero",
    budget: int | None = None,
    seed: int = 0,
) -> list[Attribution]:
    """Estimate Shapley values of segments by a regression on random masks, spread evenly over their voxels.

    The map sums to score(x) - score(baseline). Values are exact if `masks` (default: `budget`) suffice for all
    combinations of segments, else an estimate from masks in pairs of complements. The other arguments are those of
    `loco`; by default there is a segment per six masks or more.

    References: Lundberg and Lee, "A Unified Approach to Interpreting Model Predictions", 2017, arXiv:1705.07874;
    Covert and Lee, "Improving KernelSHAP: Practical Shapley Value Estimation via Linear Regression", 2021,
    arXiv:2012.01536.
    """
    return explain_segments(
        *(model, clips, targets),
        lambda clip_shape: plans.kernel_shap_plan(clip_shape, segments, cells, masks, budget, seed),
        baseline=baseline,
        name="kernel_shap",
        spread=True,
    )


@SharedPasses
def shapley(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    segments: Segments = "grid",
    cells: Counts | None = None,
    orders: int | None = None,
    baseline: Baseline = "zero",
    budget: int | None = None,
    seed: int = 0,
) -> list[Attribution]:
    """Compute each segment's Shapley value of the score's rise over `baseline`, spread evenly over its voxels.

    The value is the mean, over all orders of segments, of score(segments up to i) - score(segments before i). It is
    exact for up to 10 segments, else the mean over `orders` orders (default: as many as fit `budget`), half random,
    half their reversals. The map sums to score(x) - score(baseline) in both cases. The other arguments are those of
    `loco`; `cells` are (4, 2, 2) by default.
    """
    return explain_segments(
        *(model, clips, targets),
        lambda clip_shape: plans.shapley_plan(clip_shape, segments, cells, orders, budget, seed),
        baseline=baseline,
        name="shapley",
        spread=True,
    )


@SharedPasses
def frame_shapley(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    groups: int | None = None,
    baseline: Baseline = HOLD,
    budget: int | None = None,
    seed: int = 0,
) -> list[Attribution]:
    """Compute Shapley values of groups of consecutive frames, by default up to 8 that are exact within `budget`.

    They are exact for up to 10 groups, else an approximation from sets of every size with at most `budget` passes
    (default: 500): the mean gain of adding the group to sets that grow group by group.

    Reference: Price and Damen, "Play Fair: Frame Attributions in Video Models", 2020, arXiv:2011.12372.
    """
    return explain_segments(
        *(model, clips, targets),
        lambda clip_shape: plans.frame_shapley_plan(clip_shape, groups, budget, seed),
        baseline=baseline,
        name="frame_shapley",
        spread=True,
    )


@SharedPasses
def rise(
    model: Model,
    clips: ArrayLike,
    targets: Sequence[Target],
    *,
    masks: int | None = None,
    cells: Counts | None = None,
    keep: float = 0.5,
    baseline: Baseline = "zero",
    budget: int | None = None,
    seed: int = 0,
) -> list[Attribution]:
    """Compute the mean score with each voxel minus the mean score without it, over random soft masks.

    `masks` (default: `budget`, 500) are drawn on a grid of `cells` (4 along each axis), each visible with probability
    `keep`, interpolated and shifted at random. The noise from the other voxels falls only as 1 / sqrt(`masks`).

    Reference: Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models", 2018,
    arXiv:1806.07421.
    """
    scorer, video = prepare_multi_score(model, clips, targets)
    if isinstance(baseline, str) and baseline == HOLD:
        raise ValueError("masks of rise are soft, and a voxel cannot be held in part; use another baseline than hold")
    soft_masks = plans.rise_plan(video.shape[1:4], masks, cells, keep, budget, seed)
    scores = score_masks(scorer, video, soft_masks.voxels, soft_masks.passes, baseline)
    values, errors = rise_values(soft_masks, scores, masks_per_call(video.shape[1:4]))
    attributions = []
    for i in range(len(targets)):
        error = None if errors is None else match_dtype(errors[i], video)
        values_map = match_dtype(values[i], video)
        attributions.append(Attribution(values_map, VIDEO, True, len(scores), "rise", standard_error=error))
    return attributions
