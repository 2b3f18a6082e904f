"""The tables that --task=truth leaves in a run."""

from dataclasses import dataclass

FILE, REFUSED, GATES, METRICS = "truth.csv", "truth_refused.csv", "world_gates.txt", "truth_metrics.csv"
AXES = ("WHERE", "WHO", "WHEN", "WHAT-FOR", "EFFECT")
TRUTH, STABLE = "TRUTH", "STABLE"  # the mean of the axes; told, but no part of it
CHOSEN = "CHOSEN"  # TRUTH of the stage that is best on half of the clips, on the other half
EXACT, KIND = "EXACT", "KIND"  # of W0 alone; of methods that have a motion part
ABLATION, SELECTIVE = "ABLATION", "SELECTIVE"  # of kernels that are named
ALL = "all"  # questions of a network
MODEL_FREE = ("random", "difference_to_mean", "frame_difference", "sobel")  # maps that ask no network


@dataclass(frozen=True)
class Row:
    """A value and its bootstrap interval over clips; 0 is chance, 1 is all there is to get, worse than chance below 0.

    `forwards` and `seconds` are the cost of one clip's map; `seconds` of methods that share a pass are the pass's, and
    were measured beside another network. Of a function that does not tell its cost `forwards` are those passes that
    take as long, and 0 on the hand-wired network.
    """

    method: str
    stage: str
    network: str
    world: str
    axis: str
    value: float
    low: float
    high: float
    clips: int
    forwards: int
    seconds: float

    @property
    def free(self) -> bool:
        """Whether the map asks no network."""
        return self.method in MODEL_FREE


@dataclass(frozen=True)
class Refused:
    """A method that is not for a network, and why."""

    method: str
    network: str
    reason: str


@dataclass(frozen=True)
class MetaRow:
    """Spearman's correlation, over maps, of a metric with the truth that the maps tell; the interval is over maps.

    A metric of which less is better is turned around: 1 is the order of the truth.
    """

    network: str
    world: str
    metric: str
    fill: str
    value: float
    low: float
    high: float
    maps: int
