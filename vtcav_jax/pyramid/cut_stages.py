"""Cut stages: stages on every path from the video to the logits, which can be levels of a pyramid."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Literal

from vtcav_jax.attribution.score_model import ExplainContext
from vtcav_jax.names import unknown_name_message

PyramidLevel = tuple[str, ...]  # stages of equal depth, such as the branches of a block


def find_cut_stages(model: Any, video: Any) -> tuple[str, ...]:
    """Return the stages that lie on every path from the video to the logits, in forward order.

    No connection bypasses a cut stage, so its channels explain everything after it; a branch or a summand of a residual
    stream is none, nor is a grid that a class token bypasses (TimeSformer, ViViT). Of consecutive cut stages with equal
    shapes and no product with weights between them, such as a sum before and after its ReLU, only the last is returned.
    Paths are read from the model's trace; nothing is computed.
    """
    graph = jax.make_jaxpr(lambda v: model(v, lambda name, x: checkpoint_name(x, name)))(video).jaxpr
    cut_equations: list[tuple[int, str]] = []
    for i, equation in enumerate(graph.eqns):
        if equation.primitive.name == "name" and not _reaches_output(graph, held_equation=i):
            if cut_equations and _differ_by_channelwise_steps(graph, cut_equations[-1][0], i):
                cut_equations.pop()
            cut_equations.append((i, str(equation.params["name"])))
    return tuple(name for _, name in cut_equations)


def _differ_by_channelwise_steps(graph: Any, earlier: int, later: int) -> bool:
    """Return True if only operations within channels lie between two stages."""
    shapes = {graph.eqns[i].outvars[0].aval.shape for i in (earlier, later)}
    return len(shapes) == 1 and not any(_multiplies(equation) for equation in graph.eqns[earlier:later])


def _multiplies(equation: Any) -> bool:
    """Return True if an operation is or contains a matrix product or convolution."""
    if equation.primitive.name in ("dot_general", "conv_general_dilated"):
        return True
    inner = (
        getattr(value, "jaxpr", value) for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_graph)
    )
    return any(_multiplies(inner_equation) for graph in inner for inner_equation in getattr(graph, "eqns", ()))


def _is_graph(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def _reaches_output(graph: Any, held_equation: int) -> bool:
    """Return True if the output depends on the video even with one equation's result held fixed."""
    reached = set(graph.invars)
    for i, equation in enumerate(graph.eqns):
        if i != held_equation and any(v in reached for v in equation.invars if not isinstance(v, Literal)):
            reached.update(equation.outvars)
    return any(v in reached for v in graph.outvars if not isinstance(v, Literal))


def pyramid_levels(
    context: ExplainContext, stages: Sequence[str | Sequence[str]] | None, depth: int
) -> tuple[PyramidLevel, ...]:
    """Return the levels, last stage first: those in `stages`, or the last `depth` cut stages with time and space."""
    if depth < 1:
        raise ValueError(f"expected a depth of at least 1, got {depth}")
    order = list(context.shapes)
    grids = [name for name in order[1:] if len(context.shapes[name]) == 5]
    end = context.score_model.target.stage
    if stages is None:
        cut_stages = [name for name in find_cut_stages(context.score_model.model, context.video) if name in grids]
        if end is not None:
            cut_stages = [name for name in cut_stages if order.index(name) < order.index(end)]
            if not any(order.index(name) < order.index(end) for name in grids):
                raise ValueError(f"the target is at {end}, and no stage with time and space comes before it")
        if not cut_stages:
            raise ValueError(
                "no stage with time and space lies on every path from the video to the target; pass the levels as "
                f"stages, from {', '.join(grids)}"
            )
        return tuple((name,) for name in reversed(cut_stages[-depth:]))
    chain = [(level,) if isinstance(level, str) else tuple(level) for level in stages]
    stage_names = [name for level in chain for name in level]
    if unknown_names := [name for name in stage_names if name not in grids]:
        raise ValueError(unknown_name_message("stage with time and space", unknown_names, grids))
    if not stage_names or len(set(stage_names)) != len(stage_names):
        raise ValueError(f"expected at least one stage and no duplicates, got {stage_names}")
    context.require_reachable(stage_names)
    chain.sort(key=lambda level: -max(order.index(name) for name in level))
    for later, earlier in itertools.pairwise(chain):
        if max(map(order.index, earlier)) >= min(map(order.index, later)):
            raise ValueError(
                f"the levels {' + '.join(later)} and {' + '.join(earlier)} overlap; all stages of a level must come "
                "before those of the next"
            )
    return tuple(chain)
