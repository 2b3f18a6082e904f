"""Rows of the tables that the mining of movements writes into a concept folder."""

from dataclasses import dataclass

MOVEMENTS_CSV, MOVEMENT_WINDOWS_CSV, MOVEMENTS_JSON = "movements.csv", "movement_windows.csv", "movements.json"
MOVEMENT_PATHS_NPZ = "movement_paths.npz"  # mean path of each movement's joints, by number of the cluster


@dataclass(frozen=True)
class MovementRow:
    """A cluster of movements of people.

    `windows` are clips of one person; `concept_windows` are those that can become concept clips, nearer to their own
    cluster than to the next, without those kept for random sets. `silhouette` is the mean over all windows, with its
    95 % interval over source videos. `stability` is the mean Jaccard index with the most similar cluster that resampled
    source videos give, and the values between which 95 % of the resamples are.
    """

    concept: str  # empty if the cluster was dropped
    cluster: int
    movement: str  # in words, by rules
    windows: int
    concept_windows: int
    source_videos: int  # of the concept windows
    silhouette: float
    silhouette_low: float
    silhouette_high: float
    stability: float
    stability_low: float
    stability_high: float


@dataclass(frozen=True)
class MovementWindowRow:
    """A window of a tracked person, and what it is used for."""

    video: str
    source_video: str
    track: int
    first_frame: int
    last_frame: int
    movement_size: float  # of the joint that moves most, in torso lengths
    cluster: int  # -1 for people who are still
    silhouette: float
    use: str  # concept, random sets, still, between clusters, or too few source videos
