"""A pyramid as data: kernels as nodes, shares as edges, and where each kernel is active for what it is there for."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from vtcav_jax.pyramid.cut_stages import PyramidLevel
from vtcav_jax.runs.pyramid_rows import Edge, Node

EdgeRule = Literal["gradient", "stergiou2019"]  # of edges
ROOT_NODE = -1  # the parent of the first level: the target


@dataclass(frozen=True)
class Selection:
    """Which channels go on the pyramid: by `rule`, and at most `max_channels` at each level.

    mass: the fewest that have the share `value` of all positive relevance. threshold: those of at least the share
    `value` of the greatest. top: the `value` greatest.
    """

    rule: str = "mass"
    value: float = 0.5
    max_channels: int = 32

    def __post_init__(self):
        is_share = self.rule in ("mass", "threshold") and 0 < self.value <= 1
        if (
            not (is_share or (self.rule == "top" and self.value >= 1 and self.value == int(self.value)))
            or self.max_channels < 1
        ):
            raise ValueError(
                "expected rule mass or threshold with a value above 0 and at most 1, or top with a whole number, and "
                f"max_channels of at least 1; got {self.rule!r}, {self.value}, {self.max_channels}"
            )

    @classmethod
    def parse(cls, text: str, max_channels: int = 32) -> "Selection":
        """Of `mass:0.5`, `threshold:0.6` or `top:8`."""
        rule, _, value = text.partition(":")
        try:
            return cls(rule, float(value), max_channels)
        except ValueError as error:
            raise ValueError(f"expected mass:SHARE, threshold:SHARE or top:NUMBER, got {text!r}: {error}") from error

    def __call__(self, relevance: Float[np.ndarray, "... c"]) -> Bool[np.ndarray, "... c"]:
        """Which of the channels; nothing without positive relevance is chosen."""
        gain = np.maximum(relevance, 0)
        order = np.argsort(-gain, -1, kind="stable")
        falling = np.take_along_axis(gain, order, -1)
        if self.rule == "mass":
            before = np.cumsum(falling, -1) - falling
            keep = before < self.value * falling.sum(-1, keepdims=True) * (1 - 1e-6)
        elif self.rule == "threshold":
            keep = falling >= self.value * falling[..., :1]
        else:
            keep = np.arange(gain.shape[-1]) < self.value
        keep = keep & (falling > 0) & (np.arange(gain.shape[-1]) < self.max_channels)
        out = np.zeros(gain.shape, bool)
        np.put_along_axis(out, order, np.broadcast_to(keep, gain.shape), -1)
        return out


@dataclass(frozen=True, eq=False)
class Pyramid:
    """The kernels that a target hangs on, as one graph: a kernel that serves several has one node."""

    levels: tuple[PyramidLevel, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    score: Float[np.ndarray, " b"]
    maps: tuple[Float[np.ndarray, "b _ _ _"], ...]  # of each node: what it contributes, in place; sums to its relevance
    stability: tuple[float, ...]  # of each level: mean overlap (Jaccard) of what two clips would choose
    selection: Selection
    edge_rule: EdgeRule
    forward_passes: float  # passes forward, a backward pass as two; stretches by their share of the stages

    def nodes_at(self, level: int) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.level == level)

    def tube(self, node: int) -> Float[np.ndarray, "b t h w"]:
        """Where the children of a node (-1: of the target) are active for it: their maps by their edges' shares.

        At the resolution of the children's stage; where they have several, all that are of the first one's.
        """
        below = [edge for edge in self.edges if edge.parent == node and edge.share > 0]
        if not below:
            return self.maps[node]
        shape = self.maps[below[0].child].shape
        weighted_maps = [(edge.share, self.maps[edge.child]) for edge in below if self.maps[edge.child].shape == shape]
        return np.sum([share * node_map for share, node_map in weighted_maps], 0)

    def as_json(self) -> dict[str, Any]:
        """All but the maps."""
        return {
            "levels": [list(level) for level in self.levels],
            "edge_rule": self.edge_rule,
            "selection": vars(self.selection),
            "clips": len(self.score),
            "score": [float(s) for s in self.score],
            "stability": list(self.stability),
            "forward_passes": self.forward_passes,
            "nodes": [vars(node) for node in self.nodes],
            "edges": [vars(edge) for edge in self.edges],
        }
