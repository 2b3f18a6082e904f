"""Rows of the tables of attribution maps, and of how much of a decision is motion."""

import math
from dataclasses import dataclass

MAPS_CSV, PROFILE_CSV, SANITY_CSV, FAITHFULNESS_CSV = "maps.csv", "profile.csv", "sanity_checks.csv", "faithfulness.csv"
MOTION_CSV, MOTION_CLASSES_CSV = "motion.csv", "motion_classes.csv"


@dataclass(frozen=True)
class MapRow:
    """One map of one clip of a video, told in numbers.

    `total` is the map's sum, `residual` what is missing from it of what the method owes, `peak` the moment, in seconds,
    at which most of the absolute map lies, `peak_share` how much of it lies in that step. `half` is the smallest part
    of the clip's time that holds half of the absolute map: 0.5 where it is spread evenly. `places` is the same of the
    places in a frame, the mean over time by how much of the map lies there; NaN of a map that has one place.
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


@dataclass(frozen=True)
class ProfileRow:
    """One time step of the maps of a question, method and stage: the mean over clips of the share of a clip's absolute
    map that lies in it, with its bootstrap interval; an even spread is 1 / `steps`. `step` counts from 0."""

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
    """A measure of `Limits` over clips: its mean and the bootstrap interval; `clips` are those where it can be told."""

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
    """A metric of a map over clips, and its bootstrap interval; `clips` are those where it can be told.

    `forwards` are the passes of each clip that this number takes if it is asked for alone, with the two of the whole
    clip and of nothing; in one call rows share what they can. The row of random maps is the mean of several.
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
    """A metric of the maps for one question."""

    target: str


@dataclass(frozen=True)
class ClipMotionRow:
    """Of one clip and question; nan is what cannot be told.

    Scores: of the clip, of nothing, of the clip frozen (the mean over its frames), shuffled (over orders), reversed, at
    half rate. `still` is the share that goes when it stands still, `order` that which goes when it is shuffled; their
    intervals are of the mean over frames at which it may stand, and over orders.
    `moving` is the share of relevance that changes over time, `moving_frozen` the same of the clip frozen, `excess` the
    difference; `area` and `lift` are of the changing part. The four of the flow: does it lie on what moves?
    """

    clip: str
    clip_index: int
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
    flow_precision: float = math.nan
    flow_recall: float = math.nan
    flow_iou: float = math.nan
    flow_energy: float = math.nan
    drop_shuffled_low: float = math.nan
    drop_shuffled_high: float = math.nan
    drop_frozen_low: float = math.nan
    drop_frozen_high: float = math.nan


@dataclass(frozen=True)
class ClassMotionRow:
    """Over the clips of one answer, or of all answers to a question (`answer` is empty), with bootstrap intervals.

    `order`, `still` and `backwards` are what goes of the score when clips are shuffled, frozen, reversed; `against` is
    `other clips` where the score is a margin less that of the clips of other classes, `no preference` where it is the
    margin itself. The others are means over clips.
    """

    target: str
    answer: str
    n_clips: int
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
