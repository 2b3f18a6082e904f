"""Construction of pyramids, from the target back: the contribution of each channel to each selected later channel.

The contribution of channel j to the response r_i of channel i of the next level is the sum over places of
a_j dr_i/da_j, for any network with taps. If the segment between the levels is linear, contributions sum to r_i minus
the part of biases. A segment runs by itself, with its input inserted at its first stage.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from vtcav_jax import tap
from vtcav_jax.attribution.inputs import resolve_clips, resolve_inputs
from vtcav_jax.attribution.score_model import ScoreModel, prepare_explanation, to_numpy
from vtcav_jax.attribution.targets import Target
from vtcav_jax.models.network import Network
from vtcav_jax.pyramid.graph import ROOT_NODE, EdgeRule, Pyramid, Selection
from vtcav_jax.pyramid.levels import PyramidLevel, pyramid_levels
from vtcav_jax.pyramid.stergiou2019 import stergiou_shares
from vtcav_jax.runs.pyramid_rows import Edge, Node
from vtcav_jax.stats import intervals
from vtcav_jax.stats.quadrature import gauss_legendre
from vtcav_jax.tap import Model

StageValues = dict[str, Array]
ResponseWeighting = Literal["relevant", "mean"]


def build_pyramid(
    network: Network | Model,
    clips: ArrayLike,
    target: Target | str,
    *,
    stages: Sequence[str | Sequence[str]] | None = None,
    depth: int = 3,
    selection: Selection | None = None,
    edge_rule: EdgeRule = "gradient",
    response: ResponseWeighting = "relevant",
    reference: ArrayLike | None = None,
    ig_steps: int = 1,
    kernels_per_pass: int = 32,
    seed: int = 0,
) -> Pyramid:
    """Build the class feature pyramid of a target; shares are means over `clips`.

        pyramid = build_pyramid(network, frames[is_left], "direction:left", reference=frames[~is_left], depth=2)
        pyramid.nodes[0].stage, pyramid.nodes[0].channel, pyramid.nodes[0].relevance

    `network`, `clips` and `target` are those of `vtcav_jax.attribute`.

    Args:
        stages: stages of the levels, a tuple for a level with branches; by default the last `depth` cut stages, which
            no connection bypasses.
        response: response of a channel that the next level explains: its values weighted at each place by their effect
            on the parents ("relevant"), or their mean ("mean").
        reference: clips of several classes, one drawn per clip. Activations count as differences from those of that
            clip, so that constant ones explain nothing and missing ones can explain; by default differences from 0.
        ig_steps: number of gradients to average on the path from the reference, as in integrated gradients; with 1, a
            channel that is 0 after a ReLU has no gradient.
        edge_rule: "gradient", or "stergiou2019": mean kernel times mean activation, for stages of plain convolutions.
        kernels_per_pass: number of channels per backward pass.

    Reference: Stergiou et al., "Class Feature Pyramids for Video Explanation", 2019, arXiv:1909.08611.
    """
    if edge_rule not in get_args(EdgeRule) or response not in ("relevant", "mean") or kernels_per_pass < 1:
        raise ValueError(
            "expected edge_rule gradient or stergiou2019, response relevant or mean, kernels_per_pass of at least 1; "
            f"got {edge_rule!r}, {response!r}, {kernels_per_pass}"
        )
    model, video, resolved = resolve_inputs(network, clips, target)
    context = prepare_explanation(model, video, resolved)
    reference = None if reference is None else resolve_clips(network, reference)
    chain = pyramid_levels(context, stages, depth)
    scores, values = tap.activations(context.score_model, context.video, _stage_names(chain))
    start = reference_activations(model, reference, len(context.video), chain, seed) or jax.tree.map(
        jnp.zeros_like, values
    )
    steps = [(1.0, 1.0)] if ig_steps == 1 else list(zip(*gauss_legendre(ig_steps)))
    walk = _Walk(chain, selection or Selection(), {name: values[name] - start[name] for name in values})

    def path_mean(gradients: Callable[[StageValues], StageValues], names: PyramidLevel) -> StageValues:
        """Average gradients over the path from the reference to the clips."""
        total = None
        for place, weight in steps:
            point = {name: start[name] + jnp.asarray(place, start[name].dtype) * walk.excess[name] for name in names}
            part = jax.tree.map(lambda g, weight=weight: g * jnp.asarray(weight, g.dtype), gradients(point))
            total = part if total is None else jax.tree.map(jnp.add, total, part)
        assert total is not None
        return total

    score_gradients = path_mean(partial(_score_gradients, context.score_model, context.video), chain[0])
    walk.add(
        [ROOT_NODE],
        *_kernel_shares(score_gradients, walk.level_excess(chain[0]), np.ones((1, len(context.video)), np.float32))[:2],
    )
    for later, earlier in itertools.pairwise(chain):
        parents = walk.last_level()
        if not parents:
            break
        if edge_rule == "stergiou2019":
            walk.add(parents, stergiou_shares(model, values, walk.nodes, parents, earlier), None)
            continue
        parts = []
        for node_group, kernels in walk.kernels(later, response, kernels_per_pass):
            gradients = path_mean(
                partial(_kernel_gradients, context.score_model.model, context.video, later, kernels), earlier
            )
            relevance = np.stack([walk.relevances[i] for i in node_group])
            parts.append((node_group, *_kernel_shares(gradients, walk.level_excess(earlier), relevance)))
        order = [i for node_group, *_ in parts for i in node_group]
        shares = {name: np.concatenate([group_shares[1][name] for group_shares in parts]) for name in earlier}
        pulls = jax.tree.map(lambda *some: jnp.stack(some).sum(0), *(group_shares[2] for group_shares in parts))
        walk.follow(order, np.concatenate([group_shares[3] for group_shares in parts]), response)
        walk.add(order, shares, pulls)
    forward_passes = 1 + 3 * ig_steps + ig_steps * _segment_cost(chain, context.shapes, walk)
    name = target if isinstance(target, str) else ""
    return walk.pyramid(to_numpy(scores[:, 0]), edge_rule, forward_passes, name)


def reference_activations(
    model: Model, reference: ArrayLike | None, count: int, chain: Sequence[PyramidLevel], seed: int
) -> StageValues | None:
    """Return the activations of `count` clips drawn from `reference`; none is drawn twice before all are drawn."""
    if reference is None:
        return None
    clips = jnp.asarray(reference)
    if clips.ndim != 5 or not len(clips):
        raise ValueError(f"expected reference clips (n, t, h, w, c), at least one, got shape {clips.shape}")
    random = np.random.default_rng(seed)
    rows = np.concatenate([random.permutation(len(clips)) for _ in range(-(-count // len(clips)))])[:count]
    return tap.activations(model, clips[rows], _stage_names(chain))[1]


class _Walk:
    """A pyramid under construction."""

    def __init__(self, chain: tuple[PyramidLevel, ...], selection: Selection, excess: StageValues):
        self.chain, self.selection, self.excess, self.depth = chain, selection, excess, 0
        self.nodes: list[dict[str, Any]] = []
        self.relevances: list[Float[np.ndarray, " b"]] = []  # relevance of each node by clip
        self.values: list[Float[np.ndarray, "b t h w"]] = []  # differences of each node's activations
        self.pulls: list[Float[np.ndarray, "b t h w"]] = []  # gradient of its parents' responses
        self.edges: list[Edge] = []
        self.stability: list[float] = []

    def last_level(self) -> list[int]:
        return [i for i, node in enumerate(self.nodes) if node["level"] == self.depth - 1]

    def weights(self, node: int, response: ResponseWeighting) -> Float[np.ndarray, "b t h w"]:
        """Return the node's pulls, or equal weights, negative if a low activation of it supports its parents."""
        if response == "relevant":
            return self.pulls[node]
        values = self.values[node]
        helps = np.sign((values * self.pulls[node]).sum()) * np.sign(values.sum())
        return np.full_like(values, (-1 if helps < 0 else 1) / values[0].size)

    def level_excess(self, level: PyramidLevel) -> StageValues:
        return {name: self.excess[name] for name in level}

    def kernels(
        self, level: PyramidLevel, response: ResponseWeighting, kernels_per_pass: int
    ) -> Iterator[tuple[list[int], dict[str, tuple[Array, Array]]]]:
        """Yield groups of nodes of the last level, with their channels and weights by place, for each stage."""
        nodes = sorted(self.last_level(), key=lambda i: level.index(self.nodes[i]["stage"]))
        for start in range(0, len(nodes), kernels_per_pass):
            node_group = nodes[start : start + kernels_per_pass]
            by_stage = {stage: [i for i in node_group if self.nodes[i]["stage"] == stage] for stage in level}
            yield (
                node_group,
                {
                    stage: (
                        jnp.asarray([self.nodes[i]["channel"] for i in stage_nodes]),
                        jnp.asarray(np.stack([self.weights(i, response) for i in stage_nodes])),
                    )
                    for stage, stage_nodes in by_stage.items()
                    if stage_nodes
                },
            )

    def follow(self, nodes: list[int], accounted: Float[np.ndarray, "k b"], response: ResponseWeighting) -> None:
        """Store each node's response, and the share of it that the next level does not explain."""
        for i, accounted_part in zip(nodes, accounted):
            weighted = (self.values[i] * self.weights(i, response)).sum((1, 2, 3))
            size = np.abs(weighted).mean()
            unexplained = float((weighted - accounted_part).mean() / size) if size > 0 else float("nan")
            self.nodes[i] |= {"response": float(weighted.mean()), "unexplained": unexplained}

    def add(self, parents: list[int], shares: dict[str, np.ndarray], pulls: StageValues | None) -> None:
        """Select the next level by `shares`, `(parents, b, channels)` for each stage."""
        stages = list(shares)
        all_shares = np.concatenate([shares[name] for name in stages], -1)
        parent_relevance = np.stack(
            [np.ones(all_shares.shape[1]) if i == ROOT_NODE else self.relevances[i] for i in parents]
        )
        relevance = (parent_relevance[:, :, None] * all_shares).sum(0)  # by clip
        selected = np.flatnonzero(self.selection(relevance.mean(0)))
        selected_per_clip = self.selection(relevance)
        self.stability.append(_mean_overlap(selected_per_clip))
        starts = np.cumsum([0, *(shares[name].shape[-1] for name in stages)])
        means = np.concatenate([to_numpy(self.excess[name].mean((0, 1, 2, 3))) for name in stages])
        selected = selected[np.argsort(-relevance[:, selected].mean(0), kind="stable")]
        relevance_intervals = zip(selected, zip(*intervals.row_mean_ci(relevance[:, selected].T)))
        edge_intervals = zip(
            *intervals.row_mean_ci(all_shares[:, :, selected].transpose(2, 0, 1).reshape(-1, all_shares.shape[1]))
        )
        stage_numbers = np.searchsorted(starts, selected, "right") - 1
        places = [(int(k), int(j - starts[k])) for j, k in zip(selected, stage_numbers)]
        maps_of_stage = [self.node_maps(name, [c for i, c in places if i == k], pulls) for k, name in enumerate(stages)]
        for (stage_index, channel), (j, (mean, low, high)) in zip(places, relevance_intervals):
            stage = stages[stage_index]
            child = len(self.nodes)
            self.nodes.append(
                {"level": self.depth, "stage": stage, "channel": channel, "relevance": float(mean)}
                | {"relevance_low": float(low), "relevance_high": float(high), "activation_excess": float(means[j])}
                | {
                    "frequency": float(selected_per_clip[:, j].mean()),
                    "response": float("nan"),
                    "unexplained": float("nan"),
                }
            )
            self.relevances.append(relevance[:, j])
            values, pull = next(maps_of_stage[stage_index])
            self.values.append(values)
            self.pulls.append(pull)
            self.edges += [Edge(parent, child, *map(float, next(edge_intervals))) for parent in parents]
        self.depth += 1

    def node_maps(
        self, stage: str, channels: Sequence[int], pulls: StageValues | None
    ) -> Iterator[tuple[Float[np.ndarray, "b t h w"], Float[np.ndarray, "b t h w"]]]:
        """Yield values and pulls (1 if there are none) of each channel, which are copied from the device at once."""
        index = np.array(channels, int)
        values = np.moveaxis(to_numpy(self.excess[stage][..., index]), -1, 0)
        return zip(
            values, np.ones_like(values) if pulls is None else np.moveaxis(to_numpy(pulls[stage][..., index]), -1, 0)
        )

    def pyramid(self, score: np.ndarray, edge_rule: EdgeRule, forward_passes: float, target: str) -> Pyramid:
        nodes = tuple(Node(**node) for node in self.nodes)
        maps = tuple(values * pulls for values, pulls in zip(self.values, self.pulls))
        return Pyramid(
            self.chain,
            nodes,
            tuple(self.edges),
            score,
            maps,
            tuple(self.stability),
            self.selection,
            edge_rule,
            forward_passes,
            target,
        )


class _KernelShares(NamedTuple):
    """Shares `(k, b, c)` and weighted gradients of k channels by stage, and the sum of all contributions."""

    shares: dict[str, np.ndarray]
    pulls: StageValues
    accounted: Float[np.ndarray, "k b"]


def _kernel_shares(gradients: StageValues, excess: StageValues, relevance: Float[np.ndarray, "k b"]) -> _KernelShares:
    shares, pulls, accounted = _sum_contributions(gradients, excess, jnp.asarray(relevance))
    return _KernelShares({name: to_numpy(share) for name, share in shares.items()}, pulls, to_numpy(accounted))


@jax.jit
def _sum_contributions(
    gradients: StageValues, excess: StageValues, relevance: Float[Array, "k b"]
) -> tuple[StageValues, StageValues, Array]:
    contributions = {name: jnp.einsum("bthwc,kbthwc->kbc", excess[name], g) for name, g in gradients.items()}
    positive = jnp.stack([jnp.maximum(contribution, 0).sum(-1) for contribution in contributions.values()]).sum(0)
    inverse = jnp.where(positive > 0, 1 / jnp.where(positive > 0, positive, 1), 0)
    shares = {name: contribution * inverse[..., None] for name, contribution in contributions.items()}
    factors = relevance.astype(inverse.dtype) * inverse
    pulls = {name: jnp.einsum("kb,kbthwc->bthwc", factors, g) for name, g in gradients.items()}
    return shares, pulls, jnp.stack([contribution.sum(-1) for contribution in contributions.values()]).sum(0)


@jax.jit
def _score_gradients(score_model: ScoreModel, video: Array, start_values: StageValues) -> StageValues:
    """Return the score's gradients for values inserted at some stages, with a leading axis of 1."""
    score_gradients = jax.grad(lambda start: score_model(video, partial(_replace_and_record, start, (), {})).sum())(
        start_values
    )
    return jax.tree.map(lambda g: g[None], score_gradients)


@partial(jax.jit, static_argnames="later")
def _kernel_gradients(
    model: Any, video: Array, later: PyramidLevel, kernels: dict[str, tuple[Array, Array]], start_values: StageValues
) -> StageValues:
    """Return the gradients of channels' weighted values for earlier inserted values; the first axis is the channel."""

    def segment(start: StageValues) -> StageValues:
        later_values = {}
        model(video, partial(_replace_and_record, start, later, later_values))
        return later_values

    after, pullback = jax.vjp(segment, start_values)
    gradients = []
    for stage in (name for name in later if name in kernels):

        def pull_back(channel: Array, weight: Array, stage: str = stage) -> StageValues:
            weight = weight.astype(after[stage].dtype)
            onehot = jax.nn.one_hot(channel, after[stage].shape[-1], dtype=weight.dtype)
            cotangents = {name: jnp.zeros_like(x) for name, x in after.items()}
            return pullback(cotangents | {stage: weight[..., None] * onehot[None, None, None, None]})[0]

        gradients.append(jax.vmap(pull_back)(*kernels[stage]))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *gradients)


def _replace_and_record(
    start: StageValues, later: PyramidLevel, recorded_values: StageValues, name: str, value: Array
) -> Array:
    """Tap that replaces the values at stages in `start` and records those at stages in `later`."""
    if name in later:
        recorded_values[name] = value
    return start.get(name, value)


def _stage_names(chain: Sequence[PyramidLevel]) -> tuple[str, ...]:
    return tuple(name for level in chain for name in level)


def _mean_overlap(selections: np.ndarray) -> float:
    """Return the mean Jaccard overlap of the selections of two clips, over all pairs; NaN for one clip."""
    if len(selections) < 2:
        return float("nan")
    selections = selections.astype(np.float64)
    common = selections @ selections.T
    sizes = selections.sum(1)
    either = sizes[:, None] + sizes[None] - common
    pairs = np.triu_indices(len(selections), 1)
    return float(np.divide(common, either, out=np.ones_like(common), where=either > 0)[pairs].mean())


def _segment_cost(chain: tuple[PyramidLevel, ...], shapes: dict[str, tuple[int, ...]], walk: _Walk) -> float:
    """Return the cost of rerunning segments and of one backward pass per channel, by the share of stages they span."""
    order = list(shapes)
    ends = [max(order.index(name) for name in level) for level in chain]
    spans = [(a - b) / (len(order) - 1) for a, b in itertools.pairwise(ends)]
    kernels = [sum(node["level"] == k for node in walk.nodes) for k in range(len(chain) - 1)]
    return float(sum(span * (1 + n) for span, n in zip(spans, kernels)))
