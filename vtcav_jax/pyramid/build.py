"""From the target back through the levels: what each channel contributes to each channel that was chosen after it.

Between two levels, the share of channel j in the response r_i of channel i is the sum over places of a_j dr_i/da_j, for
any network with taps. Where all between them is linear, these sum to r_i less the biases' part. A stretch between two
levels is run by itself, its input put in at its first stage, so that what lies before is not computed again.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from vtcav_jax import tap
from vtcav_jax.attribution.score_model import Scored, explained, on_host
from vtcav_jax.attribution.targets import Target
from vtcav_jax.pyramid.cut_stages import Level, levels
from vtcav_jax.pyramid.graph import ROOT, Edge, Kind, Node, Pyramid, Selection
from vtcav_jax.pyramid.stergiou2019 import driven
from vtcav_jax.stats import intervals
from vtcav_jax.stats.quadrature import gauss_legendre
from vtcav_jax.tap import Model

Values = dict[str, Array]
Response = Literal["relevant", "mean"]


def build(
    model: Model,
    clips: ArrayLike,
    target: Target,
    *,
    stages: Sequence[str | Sequence[str]] | None = None,
    depth: int = 3,
    selection: Selection | None = None,
    edges: Kind = "gradient",
    response: Response = "relevant",
    reference: ArrayLike | None = None,
    nodes: int = 1,
    at_once: int = 32,
    seed: int = 0,
) -> Pyramid:
    """The pyramid of a target over clips, all of which have a say: shares are means over clips.

    `stages` names the levels (several stages at a time where a level has branches); by default they are the last
    `depth` stages that nothing by-passes. A kernel is followed further by its values weighted in place by how much they
    matter to its parents ("relevant"), or by their mean ("mean").

    `reference` are clips of all kinds, one of which is drawn for each clip: an activation then counts by how far it is
    from that clip's, so that what is the same in every clip explains nothing, and what a class lacks can explain it.
    Without them it counts from 0. With `nodes` of more than 1 gradients are averaged on the way from there, as for
    integrated gradients: a kernel that is silent in the clips has no gradient in the clips themselves.

    `edges="paper"` takes mean kernel times mean activation instead of gradients, as Stergiou et al. (2019), where a
    stage is a plain convolution. `at_once` kernels are pulled back together.
    """
    if edges not in ("gradient", "paper") or response not in ("relevant", "mean") or at_once < 1:
        raise ValueError(
            "expected edges gradient or paper, response relevant or mean, at_once of at least 1; "
            f"got {edges!r}, {response!r}, {at_once}"
        )
    what = explained(model, clips, target)
    chain = levels(what, stages, depth)
    scores, values = tap.activations(what.scored, what.video, _names(chain))
    start = from_reference(model, reference, len(what.video), chain, seed) or jax.tree.map(jnp.zeros_like, values)
    steps = [(1.0, 1.0)] if nodes == 1 else list(zip(*gauss_legendre(nodes)))
    walk = _Walk(chain, selection or Selection(), {name: values[name] - start[name] for name in values})

    def mean(gradients: Callable[[Values], Values], names: Level) -> Values:
        """On the way from the reference to the clips."""
        total = None
        for place, weight in steps:
            at = {name: start[name] + jnp.asarray(place, start[name].dtype) * walk.excess[name] for name in names}
            part = jax.tree.map(lambda g, weight=weight: g * jnp.asarray(weight, g.dtype), gradients(at))
            total = part if total is None else jax.tree.map(jnp.add, total, part)
        assert total is not None
        return total

    first = mean(partial(_of_score, what.scored, what.video), chain[0])
    walk.add([ROOT], *_given(first, walk.part(chain[0]), np.ones((1, len(what.video)), np.float32))[:2])
    for later, earlier in zip(chain, chain[1:]):
        parents = walk.last()
        if not parents:
            break
        if edges == "paper":
            walk.add(parents, driven(model, values, walk.nodes, parents, earlier), None)
            continue
        parts = []
        for some, kernels in walk.kernels(later, response, at_once):
            found = mean(partial(_of_kernels, what.scored.model, what.video, later, kernels), earlier)
            parts.append((some, *_given(found, walk.part(earlier), np.stack([walk.own[i] for i in some]))))
        order = [i for some, *_ in parts for i in some]
        shares = {name: np.concatenate([one[1][name] for one in parts]) for name in earlier}
        pulls = jax.tree.map(lambda *some: jnp.stack(some).sum(0), *(one[2] for one in parts))
        walk.follow(order, np.concatenate([one[3] for one in parts]), response)
        walk.add(order, shares, pulls)
    cost = 1 + 3 * nodes + nodes * _stretches(chain, what.shapes, walk)
    return walk.pyramid(on_host(scores[:, 0]), edges, cost)


def from_reference(
    model: Model, reference: ArrayLike | None, count: int, chain: Sequence[Level], seed: int
) -> Values | None:
    """What `count` clips drawn from `reference` have at the levels; none is drawn again before all have been."""
    if reference is None:
        return None
    clips = jnp.asarray(reference)
    if clips.ndim != 5 or not len(clips):
        raise ValueError(f"expected reference clips (n, t, h, w, c), at least one, got shape {clips.shape}")
    random = np.random.default_rng(seed)
    rows = np.concatenate([random.permutation(len(clips)) for _ in range(-(-count // len(clips)))])[:count]
    return tap.activations(model, clips[rows], _names(chain))[1]


class _Walk:
    """The pyramid while it grows."""

    def __init__(self, chain: tuple[Level, ...], selection: Selection, excess: Values):
        self.chain, self.selection, self.excess, self.depth = chain, selection, excess, 0
        self.nodes: list[dict[str, Any]] = []
        self.own: list[Float[np.ndarray, " b"]] = []  # of each node its relevance, clip by clip
        self.pulled: list[Array | None] = []  # of each node: how its parents' responses change with it, in place
        self.edges: list[Edge] = []
        self.stability: list[float] = []

    def last(self) -> list[int]:
        return [i for i, node in enumerate(self.nodes) if node["level"] == self.depth - 1]

    def values(self, node: int) -> Float[Array, "b t h w"]:
        return self.excess[self.nodes[node]["stage"]][..., self.nodes[node]["channel"]]

    def pulls(self, node: int) -> Float[Array, "b t h w"]:
        found = self.pulled[node]
        return jnp.ones_like(self.values(node)) if found is None else found

    def means(self, node: int) -> Float[Array, "b t h w"]:
        """The mean over places, negative where a channel matters by being weak."""
        values = self.values(node)
        helps = jnp.sign((values * self.pulls(node)).sum()) * jnp.sign(values.sum())
        return jnp.full_like(values, 1 / values[0].size) * jnp.where(helps < 0, -1, 1).astype(values.dtype)

    def part(self, level: Level) -> Values:
        return {name: self.excess[name] for name in level}

    def kernels(
        self, level: Level, response: Response, at_once: int
    ) -> Iterator[tuple[list[int], dict[str, tuple[Array, Array]]]]:
        """The last nodes, some at a time, with channels and weights in place for each stage that they are of."""
        nodes = sorted(self.last(), key=lambda i: level.index(self.nodes[i]["stage"]))
        weights = self.pulls if response == "relevant" else self.means
        for start in range(0, len(nodes), at_once):
            some = nodes[start : start + at_once]
            by_stage = {stage: [i for i in some if self.nodes[i]["stage"] == stage] for stage in level}
            yield (
                some,
                {
                    stage: (
                        jnp.asarray([self.nodes[i]["channel"] for i in here]),
                        jnp.stack([weights(i) for i in here]),
                    )
                    for stage, here in by_stage.items()
                    if here
                },
            )

    def follow(self, nodes: list[int], accounted: Float[np.ndarray, "k b"], response: Response) -> None:
        """Notes of each node what was followed and what of it the next level does not account for."""
        weights = self.pulls if response == "relevant" else self.means
        for i, part in zip(nodes, accounted):
            whole = on_host((self.values(i) * weights(i)).sum((1, 2, 3)))
            size = np.abs(whole).mean()
            rest = float((whole - part).mean() / size) if size > 0 else float("nan")
            self.nodes[i] |= {"response": float(whole.mean()), "rest": rest}

    def add(self, parents: list[int], shares: dict[str, np.ndarray], pulls: Values | None) -> None:
        """Chooses the next level by `shares`, of each stage `(parents, b, channels)`."""
        stages = list(shares)
        joined = np.concatenate([shares[name] for name in stages], -1)
        above = np.stack([np.ones(joined.shape[1]) if i == ROOT else self.own[i] for i in parents])
        relevance = (above[:, :, None] * joined).sum(0)  # of each clip
        chosen = np.flatnonzero(self.selection(relevance.mean(0)))
        alone = self.selection(relevance)
        self.stability.append(_overlap(alone))
        starts = np.cumsum([0, *(shares[name].shape[-1] for name in stages)])
        means = np.concatenate([on_host(self.excess[name].mean((0, 1, 2, 3))) for name in stages])
        chosen = chosen[np.argsort(-relevance[:, chosen].mean(0), kind="stable")]
        told = zip(chosen, zip(*intervals.means(relevance[:, chosen].T)))
        through = zip(*intervals.means(joined[:, :, chosen].transpose(2, 0, 1).reshape(-1, joined.shape[1])))
        for j, (mean, low, high) in told:
            part = int(np.searchsorted(starts, j, "right") - 1)
            stage, channel = stages[part], int(j - starts[part])
            child = len(self.nodes)
            self.nodes.append(
                {"level": self.depth, "stage": stage, "channel": channel, "relevance": float(mean)}
                | {"relevance_low": float(low), "relevance_high": float(high), "excess": float(means[j])}
                | {"frequency": float(alone[:, j].mean()), "response": float("nan"), "rest": float("nan")}
            )
            self.own.append(relevance[:, j])
            self.pulled.append(None if pulls is None else pulls[stage][..., channel])
            self.edges += [Edge(parent, child, *map(float, next(through))) for parent in parents]
        self.depth += 1

    def pyramid(self, score: np.ndarray, kind: Kind, cost: float) -> Pyramid:
        nodes = tuple(Node(**node) for node in self.nodes)
        maps = tuple(on_host(self.values(i) * self.pulls(i)) for i in range(len(nodes)))
        return Pyramid(
            self.chain, nodes, tuple(self.edges), score, maps, tuple(self.stability), self.selection, kind, cost
        )


class _Given(NamedTuple):
    """Of kernels: every channel's shares `(k, b, c)` by stage, pulls by stage, and what all channels account for."""

    shares: dict[str, np.ndarray]
    pulls: Values
    accounted: Float[np.ndarray, "k b"]


def _given(gradients: Values, excess: Values, relevance: Float[np.ndarray, "k b"]) -> _Given:
    shares, pulls, accounted = _summed(gradients, excess, jnp.asarray(relevance))
    return _Given({name: on_host(one) for name, one in shares.items()}, pulls, on_host(accounted))


@jax.jit
def _summed(gradients: Values, excess: Values, relevance: Float[Array, "k b"]) -> tuple[Values, Values, Array]:
    each = {name: jnp.einsum("bthwc,kbthwc->kbc", excess[name], g) for name, g in gradients.items()}
    positive = jnp.stack([jnp.maximum(one, 0).sum(-1) for one in each.values()]).sum(0)
    inverse = jnp.where(positive > 0, 1 / jnp.where(positive > 0, positive, 1), 0)
    shares = {name: one * inverse[..., None] for name, one in each.items()}
    factors = relevance.astype(inverse.dtype) * inverse
    pulls = {name: jnp.einsum("kb,kbthwc->bthwc", factors, g) for name, g in gradients.items()}
    return shares, pulls, jnp.stack([one.sum(-1) for one in each.values()]).sum(0)


@jax.jit
def _of_score(scored: Scored, video: Array, at: Values) -> Values:
    """The score's gradients by what is put in at some stages, with a leading axis of 1."""
    found = jax.grad(lambda start: scored(video, partial(_put, start, (), {})).sum())(at)
    return jax.tree.map(lambda g: g[None], found)


@partial(jax.jit, static_argnames="later")
def _of_kernels(model: Any, video: Array, later: Level, kernels: dict[str, tuple[Array, Array]], at: Values) -> Values:
    """The gradients of kernels' weighted values by what is put in before, with a leading axis for the kernels."""

    def stretch(start: Values) -> Values:
        seen = {}
        model(video, partial(_put, start, later, seen))
        return seen

    after, pullback = jax.vjp(stretch, at)
    gradients = []
    for stage in (name for name in later if name in kernels):

        def one(channel: Array, weight: Array, stage: str = stage) -> Values:
            weight = weight.astype(after[stage].dtype)
            onehot = jax.nn.one_hot(channel, after[stage].shape[-1], dtype=weight.dtype)
            cotangents = {name: jnp.zeros_like(x) for name, x in after.items()}
            return pullback(cotangents | {stage: weight[..., None] * onehot[None, None, None, None]})[0]

        gradients.append(jax.vmap(one)(*kernels[stage]))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *gradients)


def _put(start: Values, later: Level, seen: Values, name: str, value: Array) -> Array:
    """The tap that goes on with what is put in at some stages, and keeps what comes at others."""
    if name in later:
        seen[name] = value
    return start.get(name, value)


def _names(chain: Sequence[Level]) -> tuple[str, ...]:
    return tuple(name for level in chain for name in level)


def _overlap(chosen: np.ndarray) -> float:
    """The mean over pairs of clips of common over all that either would choose (Jaccard); NaN for one clip."""
    if len(chosen) < 2:
        return float("nan")
    chosen = chosen.astype(np.float64)
    common = chosen @ chosen.T
    sizes = chosen.sum(1)
    either = sizes[:, None] + sizes[None] - common
    pairs = np.triu_indices(len(chosen), 1)
    return float(np.divide(common, either, out=np.ones_like(common), where=either > 0)[pairs].mean())


def _stretches(chain: tuple[Level, ...], shapes: dict[str, tuple[int, ...]], walk: _Walk) -> float:
    """Stretches run again and pulled back once for each kernel, in forward passes: by the stages that they span."""
    order = list(shapes)
    ends = [max(order.index(name) for name in level) for level in chain]
    spans = [(a - b) / (len(order) - 1) for a, b in zip(ends, ends[1:])]
    kernels = [sum(node["level"] == k for node in walk.nodes) for k in range(len(chain) - 1)]
    return float(sum(span * (1 + n) for span, n in zip(spans, kernels)))
