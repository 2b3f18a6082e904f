"""Rows of the tables of `vtcav tcav` about effects by depth that are not among its tests."""

from dataclasses import dataclass

GROUP_EFFECTS_CSV, DEPTH_TRENDS_CSV = "group_effects.csv", "depth_trends.csv"
RANDOM_SETS, CLIP_TYPES = "random sets", "clip types"


@dataclass(frozen=True)
class GroupEffectRow:
    """Effect of a vector at a stage (layer) for a class, without a test; the columns mean what they mean in ScoreRow.

    In the group `random sets`, one random set (`concept`) is compared with the other sets, as if it were a concept. In
    the group `clip types`, the dynamic clips of a concept, or of all random sets, are compared with its static clips.
    Intervals are 95 % over source videos of both sides and of the target clips.
    """

    target: str
    stage: str
    group: str
    concept: str
    clip_type: str
    negatives: str
    n_concept: int
    n_negatives: int
    n_clips: int
    n_target_videos: int
    tcav_score: float
    tcav_score_low: float
    tcav_score_high: float
    derivative: float
    derivative_low: float
    derivative_high: float
    relative_derivative: float
    step_effect: float
    step_effect_low: float
    step_effect_high: float


@dataclass(frozen=True)
class DepthTrendRow:
    """Change of a step effect per stage, from input to output: slope over the index of the stage, by least squares.

    The interval is 95 % over source videos of concept clips, negatives and target clips, resampled together and alike
    at all stages. `p` is two-sided, for motion comparisons only; `p_adjusted` is corrected (Holm) for all of them.
    """

    target: str
    comparison: str
    concept: str
    clip_type: str
    negatives: str
    stages: str  # separated by spaces
    n_videos: int  # source videos of the side that has fewer
    n_target_videos: int
    slope: float
    slope_low: float
    slope_high: float
    p: float
    p_adjusted: float
