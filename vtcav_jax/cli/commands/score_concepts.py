"""--task=score_concepts: which concepts are in a clip, and what they do to the class score."""

from dataclasses import dataclass

from vtcav_jax.cli.arguments import ModelArguments, OutArguments, RunArguments, VideoArguments
from vtcav_jax.cli.commands import load_network, open_nonempty
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit, info
from vtcav_jax.data import failure_table
from vtcav_jax.runs.tables import write_rows
from vtcav_jax.runs.tcav_rows import ConceptScoreRow, ProjectionRow
from vtcav_jax.settings import SettingError, concerning, required, setting
from vtcav_jax.tcav.features.encode import SCORE_FNS
from vtcav_jax.tcav.score_clips import score_clips
from vtcav_jax.tcav.vector_file import load_vectors

VECTORS_PER_PAIR, MAX_SCORED_PAIRS = 3, 40  # vectors of a clip and class, and such pairs, on the terminal


@dataclass(frozen=True, kw_only=True)
class ScoreConceptsArguments(ModelArguments, RunArguments, VideoArguments, OutArguments):
    targets: tuple[str, ...] = required("CLASS,...", "classes: CLASS or HEAD:CLASS, separated by commas")
    score_fn: str = setting("logit", "class score that is explained", choices=tuple(SCORE_FNS))


def score_concepts(args: ScoreConceptsArguments, context: CommandContext) -> None:
    """Score clips by the concept vectors of a run."""
    out = args.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingError(("out", f"{out} is there already and is not empty; choose another"))
    with concerning("run"):
        vectors = load_vectors(args.run)
    source, network = open_nonempty(args.videos), load_network(args.model)
    rows, moments, failed = score_clips(
        network, vectors, source, args.targets, score_fn=args.score_fn, num_workers=args.num_workers
    )
    out.mkdir(parents=True, exist_ok=True)
    write_rows(out / "projections.csv", ProjectionRow, moments)
    write_rows(out / "concept_scores.csv", ConceptScoreRow, rows)
    info(f"{'clip':28}{'target':18}{'stage':14}{'concept':32}{'derivative':>11}{'inside':>9}")
    ranked = sorted(rows, key=lambda row: (row.clip, row.target, -abs(row.derivative)))
    rows_per_pair: dict[tuple[str, str], int] = {}
    for row in ranked:
        rows_per_pair[row.clip, row.target] = rows_per_pair.get((row.clip, row.target), 0) + 1
        if rows_per_pair[row.clip, row.target] <= VECTORS_PER_PAIR and len(rows_per_pair) <= MAX_SCORED_PAIRS:
            info(
                f"{row.clip:28.28}{row.target:18.18}{row.stage:14.14}{row.concept_vector:32.32}{row.derivative:>11.3g}"
                f"{row.classifier_logit:>9.2f}"
            )
    emit(
        f"\n{len(source.items) - len(failed)} clips, all vectors: {out / 'concept_scores.csv'}; over time:"
        f" projections.csv"
    )
    if failed:
        info(failure_table(failed))
