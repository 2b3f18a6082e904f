"""Table rows, further results and file names of `vtcav pyramid` in a run folder."""

from dataclasses import dataclass

from vtcav_jax.names import safe_filename

PYRAMID_JSON = "pyramid.json"


@dataclass(frozen=True)
class AblationResult:
    """Drop of the class score when the `kernels` most relevant channels of a stage are ablated.

    `score_drop` is a mean over clips with bootstrap interval; `random_score_drop` that of as many channels drawn at
    random from the stage, with the central 95 % of the draws. `p` is the share of draws (counting the pyramid's own
    selection as one) with a drop at least as large.
    """

    level: int
    stage: str
    kernels: int
    channels: int  # number of channels of the stage
    score_drop: float
    score_drop_low: float
    score_drop_high: float
    random_score_drop: float
    random_score_drop_low: float
    random_score_drop_high: float
    p: float


@dataclass(frozen=True)
class AblationRow(AblationResult):
    target: str


@dataclass(frozen=True)
class Node:
    """One channel of a class feature pyramid.

    `relevance` is its share of the target through the nodes above it (mean over clips, bootstrap interval).
    `activation_excess` is its mean activation minus that in the reference clips (or minus 0); if it is negative, the
    channel supports the target by being weak. `frequency` is the share of clips that alone would select the channel.
    `response` is the weighted channel activation that the next level explains, `unexplained` the fraction of it that no
    channel of that level accounts for (biases, bypassing paths); both are NaN at the last level.
    """

    level: int  # 0: closest to the target
    stage: str
    channel: int
    relevance: float
    relevance_low: float
    relevance_high: float
    activation_excess: float
    frequency: float
    response: float
    unexplained: float


@dataclass(frozen=True)
class Edge:
    """Share of the parent's response that comes through the child (mean over clips, bootstrap interval).

    The positive shares of all channels of the child's level sum to 1. `parent` and `child` index the nodes; parent -1
    is the target.
    """

    parent: int
    child: int
    share: float
    share_low: float
    share_high: float


@dataclass(frozen=True)
class _OfTarget:
    """Base class that puts `target` before the other base's columns; it must be listed last."""

    target: str


@dataclass(frozen=True)
class _NodeOfTarget(_OfTarget):
    node: int


@dataclass(frozen=True)
class NodeRow(Node, _NodeOfTarget):
    """A node of a target's pyramid and the clips with its largest contributions."""

    top_clips: str


@dataclass(frozen=True)
class EdgeRow(Edge, _OfTarget):
    """An edge of a target's pyramid."""


@dataclass(frozen=True)
class AlignedRow:
    """Signed component of a unit concept vector on a pyramid's channel of the same stage.

    `rank` is the number of channels of the stage with at least as large an absolute component, this one included.
    `auc` and `auc_p` say how well the vector separates held-out clips; NaN if its run has no quality.csv.
    """

    target: str
    node: int
    stage: str
    channel: int
    concept: str
    clip_type: str
    negatives: str
    cosine_share: float
    rank: int
    channels: int
    auc: float
    auc_p: float


@dataclass(frozen=True)
class PyramidFacts:
    """Results about a target's pyramid that are not in a table: levels, channel selection and stability.

    `stability` is, for each level, the mean Jaccard overlap of the channels that two single clips would select;
    `noise_stability` the overlap with the pyramids of noisy copies, by level and copy. `n_reference_clips` is 0 for a
    pyramid without reference clips.
    """

    target: str
    levels: tuple[tuple[str, ...], ...]
    score: tuple[float, ...]
    stability: tuple[float, ...]
    noise_stability: tuple[tuple[float, ...], ...]
    selection: dict[str, str | int | float]
    edge_rule: str
    ablation_clips: tuple[str, ...]
    same_clips: bool
    n_reference_clips: int


def kernel_animation_name(target: str, stage: str, channel: int) -> str:
    return f"pyramid--{safe_filename(f'{target}--{stage}')}--{channel}.webp"
