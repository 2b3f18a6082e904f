"""Rows of the tables that discovery writes into a concept folder."""

from dataclasses import dataclass

DIRECTIONS_NPZ = "directions.npz"  # direction of each concept, by name, with `/` as `|`
CLIP_SCORES_NPZ = "clip_scores.npz"  # score of each concept in each clip, by name, with `/` as `|`
DISCOVERED_CSV, HEAD_IMPORTANCE_CSV, COMPLETENESS_CSV = "discovered.csv", "head_importance.csv", "completeness.csv"


@dataclass(frozen=True)
class DiscoveredRow:
    """A discovered concept: a direction of the activations at a stage.

    `explained_share` is the share of the activations' variance that is lost without it. `importance` is the mean lead
    of the predicted classes that is lost without it, to first order, summed over heads; `low` and `high` are 95 %
    intervals over source videos. `importance_p` is the probability that a random direction with the same codes has at
    least this importance, adjusted (Holm) for all concepts of the table. `label` is empty if no label has enough
    videos.
    """

    concept: str
    stage: str
    method: str
    clip_type: str  # `motion` if the frozen clip was subtracted, else `all`
    explained_share: float
    importance: float
    importance_low: float
    importance_high: float
    importance_p: float
    label: str
    label_auc: float
    label_auc_low: float
    label_auc_high: float
    n_videos: int  # source videos of its clips
    name: str = ""  # given in the review


@dataclass(frozen=True)
class HeadImportanceRow:
    """Importance of a discovered concept for the predicted classes of one head."""

    concept: str
    head: str
    importance: float
    low: float
    high: float
    n_videos: int


@dataclass(frozen=True)
class CompletenessRow:
    """Share of a head's predictions above chance that the scores of all concepts of a stage determine linearly."""

    stage: str
    head: str
    share: float
    low: float
    high: float
    chance: float
    n_videos: int  # on which it was measured
