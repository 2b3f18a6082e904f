"""`compare_methods`: several attribution methods scored on the same clips of a network whose cause is known."""

from collections.abc import Sequence
from dataclasses import dataclass

from vtcav_jax.adapters.factory import load
from vtcav_jax.displayed_result import DisplayedResult
from vtcav_jax.evaluation.world_benchmark.entries import build_entries
from vtcav_jax.evaluation.world_benchmark.eval_set import build_eval_set
from vtcav_jax.evaluation.world_benchmark.score_rows import MethodResult, result_rows
from vtcav_jax.evaluation.world_benchmark.scoring import (
    DEFAULT_EVAL_CLIPS,
    EVAL_SEED,
    group_entries,
    measure_entries,
    resolve_questions,
)
from vtcav_jax.models import Network
from vtcav_jax.runs.evaluation_rows import MethodScoreRow, NotApplicable


@dataclass(frozen=True)
class MethodScores(DisplayedResult):
    """Scores of methods, and of maps that use no network or the known cause, with intervals over clips."""

    rows: tuple[MethodScoreRow, ...]
    not_applicable: tuple[NotApplicable, ...] = ()

    def __repr__(self) -> str:
        methods = {row.method for row in self.rows if not row.is_trivial and not row.is_reference}
        n_clips = max((row.n_clips for row in self.rows), default=0)
        noun = "method" if len(methods) == 1 else "methods"
        return f"MethodScores({len(methods)} {noun} on {', '.join(self.network_names)}, at most {n_clips} clips)"

    @property
    def network_names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.network_name for row in self.rows))


def compare_methods(
    network: str | Network,
    methods: Sequence[str],
    questions: Sequence[str] = (),
    *,
    n_clips: int = DEFAULT_EVAL_CLIPS,
    seed: int = EVAL_SEED,
) -> MethodScores:
    """Score attribution methods on synthetic clips whose cause is known, at each stage where they apply.

        scores = vtcav.compare_methods("worlds_swin", ["attn_lrp", "gradcam", "occlusion"], ["W2"], n_clips=64)
        scores.to_dataframe()
        scores.plot()

    The score is 0 for chance and 1 for a perfect map; its interval resamples the clips of this network, so it says
    nothing about other networks. Maps that use no network and maps made from the known cause are always included.
    `vtcav evaluate_methods` does this for several networks and stores the results.

    Args:
        network: a network that answers all heads of a synthetic world, such as the shipped ones.
        methods: names of attribution methods.
        questions: questions such as `W2`; by default all that the network answers.
        n_clips: clips of each world.
    """
    loaded = load(network) if isinstance(network, str) else network
    name = network if isinstance(network, str) else network.name
    groups = group_entries(build_entries(loaded, methods))
    results: list[MethodResult] = []
    refusals: list[NotApplicable] = []
    for world, ids in resolve_questions(loaded, questions, name).items():
        eval_set = build_eval_set(loaded, world, ids, n_clips, seed)
        for entries in groups.values():
            try:
                results += measure_entries(eval_set, entries)
            except ValueError as error:
                refusals.append(NotApplicable(entries[0].method, name, str(error).splitlines()[0]))
    return MethodScores(tuple(result_rows(results, name)), tuple(dict.fromkeys(refusals)))
