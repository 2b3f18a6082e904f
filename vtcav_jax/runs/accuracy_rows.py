"""Rows of the tables of `vtcav evaluate`."""

from dataclasses import dataclass

from vtcav_jax.names import count_noun

ACCURACY_CSV, CLASS_ACCURACY_CSV, CONFUSIONS_CSV = "accuracy.csv", "class_accuracy.csv", "confusions.csv"
VIDEO_PREDICTIONS_CSV, UNMATCHED_CLASSES_CSV = "video_predictions.csv", "unmatched_classes.csv"
EVALUATE_FAILURES_CSV = "evaluate_failures.csv"
TOP_1, TOP_5, CLASS_MEAN, MEAN_AP = "top-1", "top-5", "mean per class", "mAP"
GROUP_SEPARATOR = " / "  # of groups of the label tree, the outer first
HEAD_SEPARATOR = " + "  # of the heads that must all be right


def describe_views(clips: int, crops: int, origin: str) -> str:
    """Return a text about the views of each video; 0 clips are all consecutive ones."""
    clips_text = count_noun(clips, "clip") if clips else "all consecutive clips"
    return f"{clips_text} x {count_noun(crops, 'crop')} per video ({origin})"


@dataclass(frozen=True)
class AccuracyRow:
    """One measure of one head, or of several that must all be right, with its 95 % interval over source videos.

    `n_classes` counts the classes with labelled videos; the mean per class and the mAP are means over these.
    """

    head: str
    measure: str
    value: float
    low: float
    high: float
    n_clips: int
    n_videos: int
    n_classes: int


@dataclass(frozen=True)
class ClassAccuracyRow:
    """Accuracy of one class, with its 95 % interval over source videos, and the class that it is most often taken for.

    Classes without videos are included if they are predicted. `n_predicted` counts the videos predicted as the class,
    and `group` is its place in the label tree, from the top, as in `sports / racket sports`.
    """

    head: str
    class_name: str
    group: str
    n_clips: int
    n_videos: int
    n_predicted: int
    accuracy: float
    low: float
    high: float
    average_precision: float
    most_confused: str
    n_most_confused: int


@dataclass(frozen=True)
class ConfusionRow:
    """Videos of one class that were predicted as one class, which may be the same; `share` is of the true class."""

    head: str
    true_class: str
    predicted_class: str
    n_clips: int
    share: float


@dataclass(frozen=True)
class VideoPredictionRow:
    """Prediction of one head for one labelled video; `rank` is the place of the true class, 1 if it is right."""

    video: str
    source_video: str
    head: str
    true_class: str
    predicted_class: str
    probability: float
    true_probability: float
    rank: int


@dataclass(frozen=True)
class UnmatchedClassRow:
    """A class of the `videos` or of the `network` that the other side lacks, with the nearest names there."""

    head: str
    side: str
    class_name: str
    nearest: str
    n_clips: int  # videos that are left out for it
