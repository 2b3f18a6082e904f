"""Test whether motion parts of maps are more on moving pixels than the maps themselves, where the motion is known."""

from collections.abc import Sequence
from dataclasses import dataclass

from vtcav_jax.attribution.motion.map_split import SplitVariant
from vtcav_jax.attribution.motion.optical_flow import moving_objects, with_adjacent_frames
from vtcav_jax.attribution.motion.part_rows import part_means, part_values
from vtcav_jax.attribution.motion.reliance import MotionConfig, explain_motion, resolve_motion_methods
from vtcav_jax.attribution.target_spec import parse_targets
from vtcav_jax.console import progress
from vtcav_jax.evaluation.world_benchmark.eval_set import EvalSet
from vtcav_jax.evaluation.world_benchmark.questions import EVAL_QUESTIONS
from vtcav_jax.evaluation.world_benchmark.scoring import batch_slices
from vtcav_jax.runs.attribution_rows import MotionMapMeanRow, MotionMapRow

MOVING_FRAMES = ("same", "adjacent")  # an object covers the pixel in the same frame; or in it or an adjacent one
MOTION_HEAD, APPEARANCE_HEAD = "motion", "appearance"


@dataclass(frozen=True)
class SelectivityRow:
    """A mean of `MotionMapRow` over clips of a world, with the kind of its head and the variant of the motion part."""

    network_name: str
    kind: str
    variant: str
    frames: str  # MOVING_FRAMES in which an object covers a moving pixel
    row: MotionMapMeanRow

    def to_record(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "row"} | vars(self.row)


def head_kind(eval_set: EvalSet, head: str) -> str:
    """Return what the decision of a head needs: motion or appearance."""
    question = next(EVAL_QUESTIONS[i] for i in eval_set.question_ids if EVAL_QUESTIONS[i].head == head)
    return MOTION_HEAD if question.needs_motion else APPEARANCE_HEAD


def motion_selectivity(
    eval_set: EvalSet,
    network_name: str,
    methods: Sequence[str],
    variant: SplitVariant = "absolute",
    threshold_sd: float = 1.0,
) -> list[SelectivityRow]:
    """Return shares and precisions of the maps of the correct class of each head, means over clips with intervals.

    Heads about a brief event need neither motion nor appearance alone, and are left out.
    """
    questions = [EVAL_QUESTIONS[i] for i in eval_set.question_ids]
    network, heads = eval_set.padded_network, [q.head for q in questions if not q.event_mask]
    config = MotionConfig(
        methods=tuple(methods),
        motion_variant=variant,
        motion_threshold_sd=threshold_sd,
        motion_thresholds=(threshold_sd,),
    )
    method_stages = resolve_motion_methods(eval_set.network, config, parse_targets(eval_set.network, heads))
    now = moving_objects(eval_set.clips)
    moving_masks = dict(zip(MOVING_FRAMES, (now, with_adjacent_frames(now))))
    rows: dict[str, list[MotionMapRow]] = {frames: [] for frames in MOVING_FRAMES}
    n = len(eval_set)
    for batch in progress(batch_slices(n), n, f"clips of {network_name}", size=lambda rows: rows.stop - rows.start):
        targets = [eval_set.target(head, batch) for head in heads]
        relevance = explain_motion(network, eval_set.video[batch], targets, method_stages, config)
        for head, parts_by_method in zip(heads, relevance):
            for parts in parts_by_method:
                names = head, head, parts.attribution.method, parts.attribution.stage, threshold_sd
                for frames, masks in moving_masks.items():
                    video = eval_set.clips.video[batch]
                    ((_, values),) = part_values(parts, (threshold_sd,), masks[batch], video)
                    rows[frames] += [
                        MotionMapRow(str(i), 0, str(i), *names, **{name: float(x[j]) for name, x in values.items()})
                        for j, i in enumerate(range(batch.start, batch.stop))
                    ]
    return [
        SelectivityRow(network_name, head_kind(eval_set, mean.target), variant, frames, mean)
        for frames in MOVING_FRAMES
        for mean in part_means(rows[frames], threshold_sd)
    ]
