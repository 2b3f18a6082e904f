"""Rows of the table of sensitivity to time over depth."""

from dataclasses import dataclass

TIME_SENSITIVITY_CSV = "time_sensitivity.csv"
ACTIVATION_CHANGE, SCORE_LOSS, CARRIED_SCORE = "activation_change", "score_loss", "carried_score"


@dataclass(frozen=True)
class TimeSensitivityRow:
    """One quantity of a stage, or of one of its channels, with its 95 % interval over source videos.

    `activation_change`: squared change of the activation's time mean when the clip is edited, relative to the squared
    difference to clips of other videos. `score_loss` of a stage: share of the score that is lost when the activation is
    edited along time; `answer` is the predicted class, empty for all clips. `carried_score` of a channel: its
    contribution to the score, relative to clips of other videos; `score_loss` of a channel: the share of it that is
    lost when the clip is edited. Both are first-order estimates.
    """

    stage: str
    channel: int  # -1: the whole stage
    target: str  # empty: the activation, which has no target
    answer: str
    quantity: str
    edit: str  # shuffled, frozen or reversed; empty for a carried score
    value: float
    low: float
    high: float
    n_clips: int
    n_videos: int
