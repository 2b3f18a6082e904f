"""Command of the task score_concepts: score clips with the concept vectors of a tcav run."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from vtcav_jax.cli.arguments import ModelArguments, OutArguments, RunArguments, VideoArguments
from vtcav_jax.cli.commands import format_table, load_network, open_nonempty
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit, info
from vtcav_jax.data import failure_table
from vtcav_jax.names import count_noun
from vtcav_jax.runs.lock import is_lock, lock_folder
from vtcav_jax.runs.tables import read_rows, write_rows
from vtcav_jax.runs.tcav_rows import ConceptScoreRow, ProjectionRow, ScoreRow, degenerate_stages
from vtcav_jax.settings import SettingError, concerning, required, setting
from vtcav_jax.tcav.features.encode import SCORE_FNS
from vtcav_jax.tcav.score_clips import score_clips
from vtcav_jax.tcav.vector_file import load_vectors

VECTORS_PER_PAIR, MAX_PAIRS = 3, 40  # on the terminal: vectors per pair of clip and class, and pairs


@dataclass(frozen=True, kw_only=True)
class ScoreConceptsArguments(ModelArguments, RunArguments, VideoArguments, OutArguments):
    targets: tuple[str, ...] = required("CLASS,...", "classes: CLASS or HEAD:CLASS, separated by commas")
    score_fn: str = setting("logit", "class score whose derivative is computed", choices=tuple(SCORE_FNS))


def score_concepts(args: ScoreConceptsArguments, context: CommandContext) -> None:
    """Write the scores of clips for the concept vectors of a run, and print the strongest."""
    out = args.out
    lock_folder(out)
    if out.exists() and (not out.is_dir() or not all(map(is_lock, out.iterdir()))):
        raise SettingError(("out", f"{out} exists and is not empty; choose another folder"))
    with concerning("run"):
        vectors = load_vectors(args.run)
    source, network = open_nonempty(args.videos), load_network(args)
    rows, projections, failed = score_clips(
        network, vectors, source, args.targets, score_fn=args.score_fn, num_workers=args.num_workers
    )
    out.mkdir(parents=True, exist_ok=True)
    write_rows(out / "projections.csv", ProjectionRow, projections)
    write_rows(out / "concept_scores.csv", ConceptScoreRow, rows)
    info(concept_table(rows, degenerate_stages(read_rows(args.run / "scores.csv", ScoreRow))))
    n_scored = count_noun(len(source.items) - len(failed), "clip")
    emit(f"\nScores of {n_scored} and all concept vectors: {out / 'concept_scores.csv'}")
    emit(f"Projections over time: {out / 'projections.csv'}")
    if failed:
        info(failure_table(failed))


def concept_table(rows: Sequence[ConceptScoreRow], degenerate: Collection[str] = ()) -> str:
    """Format the concept vectors with the largest absolute derivatives of each clip and class.

    Those at `degenerate` stages come last, because their derivatives do not differ among clips but in size.
    """
    by_pair: dict[tuple[str, str], list[ConceptScoreRow]] = {}
    for row in sorted(rows, key=lambda r: (r.clip, r.target, r.stage in degenerate, -abs(r.derivative))):
        by_pair.setdefault((row.clip, row.target), []).append(row)
    header = ("clip", "class", "stage", "concept vector", "derivative", "concept logit")
    displayed = [r for pair_rows in list(by_pair.values())[:MAX_PAIRS] for r in pair_rows[:VECTORS_PER_PAIR]]
    cells = [
        (
            *(r.clip, r.target, f"{r.stage} (equal gradients)" if r.stage in degenerate else r.stage),
            *(r.concept_vector, f"{r.derivative:.3g}", f"{r.classifier_logit:.2f}"),
        )
        for r in displayed
    ]
    text = (
        f"{format_table(header, cells, left=4)}\n"
        f"Per clip and class: the {VECTORS_PER_PAIR} concept vectors with the largest absolute derivative.\n"
        "derivative: change of the class score per unit step along the vector; concept logit: above 0, the classifier\n"
        "of the vector detects the concept in the clip"
    )
    if left_out := sorted({row.stage for row in rows} & set(degenerate)):
        text += (
            f"\nequal gradients ({', '.join(left_out)}): the gradients of all clips are parallel there, so that these\n"
            "derivatives say nothing about a single clip; they come after those of other stages"
        )
    return text
