"""What --task=pyramid leaves in a run's folder: the rows of its tables, what else is told, and the names of files."""

from dataclasses import dataclass

from vtcav_jax.names import safe_filename

PYRAMID_JSON = "pyramid.json"


@dataclass(frozen=True)
class AblationResult:
    """Of one stage, the fall of the score when its `kernels` most relevant channels are taken out.

    Means over clips with bootstrap intervals; `random_*` are those of as many channels drawn from the whole stage, its
    interval the middle 95 % of the draws. `p`: how often a draw does as much, counted with the choice itself.
    """

    level: int
    stage: str
    kernels: int
    channels: int  # that the stage has
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
    """One kernel. `relevance` is its share of the target through the nodes above it, a mean over clips.

    `activation_excess` is how far it is on average above what it is in the reference: below 0 its weakness speaks for
    the target. `frequency` is in how many of the clips it would be chosen by that clip alone. `response` is what was
    followed further: the channel's mean, and `unexplained` what of it no channel of the next level accounts for
    (biases, ways around the level), NaN at the last level.
    """

    level: int  # 0: next to the target
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
    """What part of the parent's response comes through the child; of all positive parts the sum is 1.

    `parent` and `child` number the nodes; parent -1 is the target.
    """

    parent: int
    child: int
    share: float
    share_low: float
    share_high: float


@dataclass(frozen=True)
class _OfTarget:
    """Written last among the bases of a row, for columns in front of the other base's."""

    target: str


@dataclass(frozen=True)
class _NodeOfTarget(_OfTarget):
    node: int


@dataclass(frozen=True)
class NodeRow(Node, _NodeOfTarget):
    """A node of a target's pyramid, and the clips where it contributes most."""

    top_clips: str


@dataclass(frozen=True)
class EdgeRow(Edge, _OfTarget):
    """An edge of a target's pyramid."""


@dataclass(frozen=True)
class AlignedRow:
    """How much of a concept vector (of length 1) lies on a kernel of its stage, with its sign.

    `rank` is how many of the stage's channels have as much of it, this one included; `auc` and `auc_p` say whether the
    vector tells its clips apart at all, NaN where its run has no table of that.
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
    """What no table says of a target's pyramid: its levels, how it was chosen, whether it is stable.

    `stability` is the overlap of what two clips by themselves would choose, by level; `under_noise` that of the
    pyramid with those of noisy copies, by level and copy. `compared` is with how many clips, if any.
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
