"""Rows of the tables that `vtcav attribute --through` writes."""

from dataclasses import dataclass

SHARES_CSV, MOMENTS_CSV, GALLERY_FOLDER = "through_shares.csv", "through_moments.csv", "gallery"


@dataclass(frozen=True)
class ShareRow:
    """Share of the relevance at a stage that passes along one channel or concept, in clips predicted as one class.

    `share` is the sum over clips of the relevance along the direction, divided by that of all relevance at the stage,
    with a 95 % interval over source videos; NaN where the interval of all relevance contains 0, or its sum is less than
    1 % of that of its absolute values. `rank` counts from 1,
    for the largest share among the `n_ranked` directions of the kind. A random direction has the share `random_share`
    on average, and 95 % of them are between `random_low` and `random_high`.
    """

    target: str
    answer: str
    method: str
    stage: str
    concept: str
    title: str
    kind: str  # channel, discovered concept or concept vector
    chosen: bool  # named by --through
    share: float
    share_low: float
    share_high: float
    rank: int
    n_ranked: int
    random_share: float
    random_low: float
    random_high: float
    relevance: float  # mean over clips of all relevance at the stage
    n_clips: int
    n_videos: int


@dataclass(frozen=True)
class MomentRow:
    """One of the clips in which the most relevance for a class passes along a channel or concept.

    `relevance` is the relevance along the direction at its stage, `total` all relevance at the stage. The moment is the
    frame of the map of the video with the largest positive relevance; `x` and `y` are its place, as shares of the
    width and height of the frame.
    """

    target: str
    answer: str
    method: str
    concept: str
    rank: int
    clip: str
    clip_index: int
    source_video: str
    relevance: float
    total: float
    moment: float  # seconds
    frame: int  # of the clip, from 0
    x: float
    y: float
    picture: str
    animation: str  # empty without --animations
