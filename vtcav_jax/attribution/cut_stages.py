"""Cut stages: stages (layers) on every path from the video to the logits, which no connection bypasses."""

from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Literal


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
