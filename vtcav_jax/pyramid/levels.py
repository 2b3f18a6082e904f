"""Levels of a pyramid: by default cut stages, which no connection bypasses."""

import itertools
from collections.abc import Sequence

from vtcav_jax.attribution.cut_stages import find_cut_stages
from vtcav_jax.attribution.score_model import ExplainContext
from vtcav_jax.names import unknown_name_message

PyramidLevel = tuple[str, ...]  # stages of equal depth, such as the branches of a block


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
