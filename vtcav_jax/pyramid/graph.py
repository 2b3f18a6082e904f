"""Data of a pyramid: channels as nodes, shares as edges, and a map of each channel's contribution."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from vtcav_jax.displayed_result import DisplayedResult
from vtcav_jax.pyramid.levels import PyramidLevel
from vtcav_jax.runs.pyramid_rows import Edge, Node

EdgeRule = Literal["gradient", "stergiou2019"]
ROOT_NODE = -1  # the parent of the first level: the target


@dataclass(frozen=True)
class Selection:
    """Rule that selects the channels of a level, at most `max_channels`, all with positive relevance.

    "mass": the fewest channels with the share `value` of all positive relevance. "threshold": channels with at least
    the share `value` of the maximum relevance. "top": the `value` most relevant channels.
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
        """Parse a selection such as `mass:0.5`, `threshold:0.6` or `top:8`."""
        rule, _, value = text.partition(":")
        try:
            return cls(rule, float(value), max_channels)
        except ValueError as error:
            raise ValueError(f"expected mass:SHARE, threshold:SHARE or top:NUMBER, got {text!r}: {error}") from error

    def __call__(self, relevance: Float[np.ndarray, "... c"]) -> Bool[np.ndarray, "... c"]:
        """Return the mask of selected channels; only positive relevance is selected."""
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
class Pyramid(DisplayedResult):
    """Channels that a target depends on, as a graph; a channel with several parents is one node.

    `maps` holds each node's contribution to its parents by place, which sums to its relevance; `stability` the mean
    Jaccard overlap, per level, of the channels that two clips would select; `forward_passes` the cost, with a backward
    pass counted as two and a segment by its share of the stages.
    """

    levels: tuple[PyramidLevel, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    score: Float[np.ndarray, " b"]
    maps: tuple[Float[np.ndarray, "b _ _ _"], ...]
    stability: tuple[float, ...]
    selection: Selection
    edge_rule: EdgeRule
    forward_passes: float
    target: str = ""

    def __repr__(self) -> str:
        sizes = " + ".join(str(len(self.nodes_at(level))) for level in range(len(self.levels)))
        target = f", {self.target}" if self.target else ""
        return f"Pyramid({sizes} channels at {len(self.levels)} levels, {len(self.score)} clips{target})"

    def nodes_at(self, level: int) -> tuple[Node, ...]:
        """Return the nodes of a level; level 0 is the last stage, next to the target."""
        return tuple(node for node in self.nodes if node.level == level)

    def tube(self, node: int) -> Float[np.ndarray, "b t h w"]:
        """Return the sum of the maps of a node's children (-1: of the target's), weighted by their edges' shares.

        The resolution is that of the first child's map; children with other resolutions are omitted.
        """
        below = [edge for edge in self.edges if edge.parent == node and edge.share > 0]
        if not below:
            return self.maps[node]
        shape = self.maps[below[0].child].shape
        weighted_maps = [(edge.share, self.maps[edge.child]) for edge in below if self.maps[edge.child].shape == shape]
        return np.sum([share * node_map for share, node_map in weighted_maps], 0)

    def as_json(self) -> dict[str, Any]:
        """Return everything but the maps, as JSON types."""
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
