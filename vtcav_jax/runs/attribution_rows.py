"""Rows of the tables of `vtcav attribute` and `vtcav motion`."""

import math
from dataclasses import dataclass

MAPS_CSV, PROFILE_CSV, SANITY_CSV, FAITHFULNESS_CSV = "maps.csv", "profile.csv", "sanity_checks.csv", "faithfulness.csv"
MOTION_CSV, MOTION_CLASSES_CSV = "motion.csv", "motion_classes.csv"
MOTION_MAPS_CSV, MOTION_MAP_MEANS_CSV = "motion_maps.csv", "motion_map_means.csv"
KNOWN_MOTION = "known"  # moving pixels in the record of a run; otherwise they come from optical flow
MOTION_PARTS_FOLDER = "motion_parts"  # arrays and animations of example clips


@dataclass(frozen=True)
class MapRow:
    """Summary of one attribution map of one clip of a video.

    `completeness_gap` is the score difference that the method should distribute minus `map_sum`; NaN for methods
    without that property. `peak_time` is the time (in seconds) of the step with the largest sum of the absolute map,
    `peak_share` that step's share. `temporal_half_mass` is the smallest fraction of the time steps that holds half of
    the absolute map (0.5 for an even spread); `spatial_half_mass` the same for the positions in a frame, averaged over
    time with the absolute map as weights, NaN for a map with one position. `sampling_noise` is the root mean square of
    the map's standard errors relative to that of the map, 0 for methods without random draws. `answer` is the
    predicted class, also if the target is another one; the target's name if it is not of a head.
    """

    clip: str
    clip_index: int
    start: float
    end: float
    target: str
    answer: str
    score: float
    method: str
    stage: str
    signed: bool
    forward_passes: int
    map_sum: float
    completeness_gap: float
    peak_time: float
    peak_share: float
    temporal_half_mass: float
    map_file: str
    spatial_half_mass: float = math.nan
    sampling_noise: float = 0.0


@dataclass(frozen=True)
class ProfileRow:
    """One time step of the temporal profile of a target, method and stage.

    `mass` is the share of a clip's absolute map in that step (mean over clips, bootstrap interval); 1 / `n_time_steps`
    for an even spread. `time_step` counts from 0.
    """

    target: str
    method: str
    stage: str
    time_step: int
    n_time_steps: int
    mass: float
    low: float
    high: float
    n_clips: int


@dataclass(frozen=True)
class SanityRow:
    """Mean over clips of one measure of `SanityScores`, with bootstrap interval; `n_clips` counts defined values."""

    target: str
    method: str
    stage: str
    measure: str
    mean: float
    low: float
    high: float
    n_clips: int


@dataclass(frozen=True)
class MetricRow:
    """Mean over clips of one metric of a map, with bootstrap interval; `n_clips` counts defined values.

    `forward_passes` is the cost per clip when the metric is computed alone, including the passes of the original and
    of the empty clip; metrics computed together share passes. The row of random maps averages several maps.
    """

    map: str
    metric: str
    infill: str  # empty where nothing is filled
    higher_is_better: int
    mean: float
    low: float
    high: float
    n_clips: int
    forward_passes: int


@dataclass(frozen=True)
class OwnMetricRow(MetricRow):
    """A metric of the maps of one target."""

    target: str


@dataclass(frozen=True)
class ClipMotionRow:
    """Reliance on motion of one clip and target; NaN where a value is undefined.

    `score_frozen` is the mean over the frames that the clip is frozen at, `score_shuffled` the mean over orders.
    `drop_frozen` and `drop_shuffled` are the lost shares of the score's rise above `score_baseline`, with bootstrap
    intervals over frames and over orders. `changing_mass` is the share of the absolute map by `method` that changes
    over time (`changing_mass_frozen`: for the frozen clip; `changing_mass_excess`: the difference), `changing_area` the
    fraction of voxels with such changes, `changing_lift` the ratio of the two; `MotionMapRow` has them for all methods.
    `parts_file` is the file in `motion_parts/` with the parts of the clip's maps, empty for most clips. `answer` is the
    explained class, `prediction` the class that the network predicts among those of the head and `probability` its
    probability there; empty and NaN if the target is not of a head.
    """

    clip: str
    clip_index: int
    source_video: str  # clips of one video are resampled together
    target: str
    answer: str
    score: float
    score_baseline: float
    score_frozen: float
    score_shuffled: float
    score_reversed: float
    score_half_rate: float
    drop_frozen: float
    drop_shuffled: float
    changing_mass: float
    changing_mass_frozen: float
    changing_mass_excess: float
    changing_area: float
    changing_lift: float
    drop_shuffled_low: float = math.nan
    drop_shuffled_high: float = math.nan
    drop_frozen_low: float = math.nan
    drop_frozen_high: float = math.nan
    method: str = ""
    parts_file: str = ""
    prediction: str = ""
    probability: float = math.nan


@dataclass(frozen=True)
class MotionMapRow:
    """Motion part of one map of a clip at one threshold (selective relevance); NaN where a value is undefined.

    `motion_share` is the share of the absolute map in the motion part, `frozen_share` that of the frozen clip, `area`
    the share of the voxels. The `flow_` columns, which need optical flow, are those of `FlowAgreement`: shares of cells
    and of relevance on moving pixels.
    """

    clip: str
    clip_index: int
    source_video: str
    target: str
    answer: str
    method: str
    stage: str
    threshold_sd: float
    motion_share: float
    frozen_share: float
    area: float
    flow_precision: float = math.nan
    flow_precision_map: float = math.nan
    flow_precision_smoothed: float = math.nan
    flow_precision_difference: float = math.nan
    flow_recall: float = math.nan
    flow_iou: float = math.nan
    flow_energy: float = math.nan
    flow_energy_top: float = math.nan
    flow_energy_map: float = math.nan
    flow_area: float = math.nan


@dataclass(frozen=True)
class MotionMapMeanRow:
    """Mean over clips of one column of `MotionMapRow`, or of a paired difference of two, with its interval.

    The interval resamples source videos; `n_clips` and `n_videos` count defined values. `answer` is empty for the mean
    over all clips.
    """

    target: str
    answer: str
    method: str
    stage: str
    threshold_sd: float
    measure: str
    mean: float
    low: float
    high: float
    n_clips: int
    n_videos: int


@dataclass(frozen=True)
class ClassMotionRow:
    """Reliance on motion over the clips of one answer, or of all answers (empty `answer`).

    Intervals come from resamples of whole source videos.

    `drop_shuffled`, `drop_frozen` and `drop_reversed` are lost shares of the score. `reference` is `other clips` where
    the score is a class's margin minus its margin on clips of other classes, and `no preference` where it is the score
    above the baseline (0 for margins). The other columns are means over clips.
    """

    target: str
    answer: str
    n_clips: int
    n_videos: int
    reference: str
    drop_shuffled: float
    drop_shuffled_low: float
    drop_shuffled_high: float
    drop_frozen: float
    drop_frozen_low: float
    drop_frozen_high: float
    drop_reversed: float
    drop_reversed_low: float
    drop_reversed_high: float
    changing_mass: float
    changing_mass_low: float
    changing_mass_high: float
    changing_mass_excess: float
    changing_mass_excess_low: float
    changing_mass_excess_high: float
