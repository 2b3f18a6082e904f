"""Command of the task evaluate: measure the accuracy of a network on labelled videos."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vtcav_jax.accuracy.confusions import class_accuracy_rows, confusion_rows, group_paths, video_prediction_rows
from vtcav_jax.accuracy.measures import head_accuracy, joint_accuracy
from vtcav_jax.accuracy.stored_predictions import (
    HeadVideos,
    common_videos,
    labelled_predictions,
    load_prediction,
    network_labels,
    save_prediction,
)
from vtcav_jax.accuracy.views import PAPER, ViewPlan, plan_views
from vtcav_jax.attribution.videos.stored_results import StoredResults, npz_content
from vtcav_jax.cli.accuracy_table import accuracy_table
from vtcav_jax.cli.arguments import (
    LabelTreeArguments,
    ModelArguments,
    RandomWeightsArguments,
    RunArguments,
    VideoArguments,
)
from vtcav_jax.cli.commands import all_failed_error, load_network, open_nonempty
from vtcav_jax.cli.commands.report import write_page
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit, info, progress
from vtcav_jax.data import ReadResult, Source, failure_table, write_failures
from vtcav_jax.models import Network
from vtcav_jax.names import abridged_list, count_noun
from vtcav_jax.runs import accuracy_rows as rows
from vtcav_jax.runs import directory
from vtcav_jax.runs.tables import write_rows
from vtcav_jax.settings import BATCH_HELP, MAX_BATCH_SIZE, MAX_SEED, SEED_HELP, concerning, setting
from vtcav_jax.training.evaluate import predict_source
from vtcav_jax.training.label_join import HeadJoin, match_heads, unmatched_classes

PREDICTIONS_FOLDER = "predictions"
MAX_NAMED_UNMATCHED = 8  # classes on the terminal


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments(ModelArguments, LabelTreeArguments, VideoArguments, RunArguments, RandomWeightsArguments):
    views: str = setting(
        PAPER,
        "views of each video, whose predictions are averaged: paper (those of the network's paper; one centred clip if"
        " it has none), centre, or CLIPSxCROPS such as 4x3, or allx1 (all consecutive clips)",
    )
    interval_seconds: float | None = setting(
        None, "seconds between frames [default: the network's interval in frames]", above=0
    )
    batch_size: int = setting(8, BATCH_HELP, minimum=1, maximum=MAX_BATCH_SIZE)
    seed: int = setting(0, SEED_HELP, minimum=0, maximum=MAX_SEED)


def evaluate(args: EvaluateArguments, context: CommandContext) -> None:
    """Predict every labelled video, and write accuracies, confusions and a report page; continue an interrupted run."""
    source = open_nonempty(args.videos)
    network = load_network(args, args.seed)
    with concerning("videos"):
        joins = match_heads(network.heads, source.heads)
        positions = [i for i, item in enumerate(source.items) if network_labels(item, joins)]
        if not positions:
            raise ValueError(f"no video of {source.spec} has a label that is a class of the network")
    with concerning("views"):
        views = plan_views(args.views, network)
    unmatched = unmatched_rows(network, source, joins)
    info(f"Views: {views}")
    for line in unmatched_lines(unmatched, len(source.items) - len(positions)):
        info(line)
    folder = directory.open_run(
        args.run, evaluate_request(args, source, views), context.flags_text, network=network.identity()
    )
    failed = predict_missing(args, network, source, views, positions, folder)
    write_failures(folder / rows.EVALUATE_FAILURES_CSV, failed)
    stored = stored_predictions(folder, source)
    probabilities = {
        position: load_prediction(stored.path(position)) for position in positions if stored.path(position).exists()
    }
    if not probabilities:
        raise all_failed_error(source, failed)
    heads = labelled_predictions(network, source, joins, probabilities)
    accuracies = write_accuracy_tables(folder, network, heads, unmatched, args.seed)
    emit(f"\n{accuracy_table(accuracies)}")
    if failed:
        info(f"\n{failure_table(failed)}")
    info(f"\nTables: {', '.join(str(folder / name) for name in WRITTEN_TABLES)}")
    write_page([folder])


WRITTEN_TABLES = (rows.ACCURACY_CSV, rows.CLASS_ACCURACY_CSV, rows.CONFUSIONS_CSV, rows.VIDEO_PREDICTIONS_CSV)


def evaluate_request(args: EvaluateArguments, source: Source, views: ViewPlan) -> dict[str, object]:
    """Return everything that the results depend on, except the network."""
    return {
        "task": "evaluate",
        "model": args.model,
        **({"labels": args.labels} if args.labels else {}),
        "random_weights": args.random_weights,
        "videos": source.spec,
        "clips": source.identity,
        "views": [views.clips, views.crops],
        "views_origin": views.origin,
        "interval_seconds": args.interval_seconds,
        "seed": args.seed,
    }


def stored_predictions(folder: Path, source: Source) -> StoredResults:
    return StoredResults(folder / PREDICTIONS_FOLDER, ".npz", source, npz_content)


def predict_missing(
    args: EvaluateArguments,
    network: Network,
    source: Source,
    views: ViewPlan,
    positions: Sequence[int],
    folder: Path,
) -> list[ReadResult]:
    """Predict the videos without a valid stored prediction and store each; return those that cannot be read."""
    (folder / PREDICTIONS_FOLDER).mkdir(exist_ok=True)
    stored = stored_predictions(folder, source)
    missing, _ = stored.drop_invalid()
    todo = sorted(set(missing) & set(positions))
    if not todo:
        return []
    results = predict_source(
        network,
        source,
        args.batch_size,
        views.sampling(args.interval_seconds),
        num_workers=args.num_workers,
        positions=todo,
    )
    failed = []
    for read, probabilities in progress(results, len(todo), "videos", size=lambda _: 1):
        if probabilities is None:
            failed.append(read)
        else:
            save_prediction(stored.path(read.index), read, probabilities)
    return failed


def write_accuracy_tables(
    folder: Path,
    network: Network,
    heads: Sequence[HeadVideos],
    unmatched: Sequence[rows.UnmatchedClassRow],
    seed: int,
) -> list[rows.AccuracyRow]:
    """Write the tables of the run; return the accuracies of each head, and of all heads together."""
    accuracies, class_rows, confusions, predictions = [], [], [], []
    for head in heads:
        accuracies += head_accuracy(head.predictions, seed=seed)
        class_rows += class_accuracy_rows(head.predictions, group_paths(network, head.predictions.head))
        confusions += confusion_rows(head.predictions)
        predictions += video_prediction_rows(head.predictions, list(head.names))
    if len(heads) > 1 and (common := common_videos(heads)) and len(common[0].labels):
        accuracies += joint_accuracy(common)
    write_rows(folder / rows.ACCURACY_CSV, rows.AccuracyRow, accuracies)
    write_rows(folder / rows.CLASS_ACCURACY_CSV, rows.ClassAccuracyRow, class_rows)
    write_rows(folder / rows.CONFUSIONS_CSV, rows.ConfusionRow, confusions)
    write_rows(folder / rows.VIDEO_PREDICTIONS_CSV, rows.VideoPredictionRow, predictions)
    write_rows(folder / rows.UNMATCHED_CLASSES_CSV, rows.UnmatchedClassRow, unmatched)
    return accuracies


def unmatched_rows(network: Network, source: Source, joins: Sequence[HeadJoin]) -> list[rows.UnmatchedClassRow]:
    """Return the classes without counterpart, with the number of videos that are left out for each."""
    unmatched = unmatched_classes(joins, network.heads, source.heads)
    counts: dict[tuple[str, str], int] = {}
    for item in source.items:
        for join in joins:
            if join.source_head in item.labels:
                key = join.head, source.heads[join.source_head][item.labels[join.source_head]]
                counts[key] = counts.get(key, 0) + 1
    return [
        rows.UnmatchedClassRow(
            u.head,
            "network" if u.of_network else "videos",
            u.name,
            ", ".join(u.nearest),
            0 if u.of_network else counts.get((u.head, u.name), 0),
        )
        for u in unmatched
    ]


def unmatched_lines(unmatched: Iterable[rows.UnmatchedClassRow], n_left_out: int) -> list[str]:
    """Return notes on the classes of the videos that the network lacks, and on those that no video has."""
    unmatched, lines = list(unmatched), []
    if of_videos := [row for row in unmatched if row.side == "videos" and row.n_clips]:
        names = [f"{row.class_name}{f' (near: {row.nearest})' if row.nearest else ''}" for row in of_videos]
        listed = abridged_list(names[:MAX_NAMED_UNMATCHED])
        more = f" and {len(names) - MAX_NAMED_UNMATCHED} more" if len(names) > MAX_NAMED_UNMATCHED else ""
        noun = count_noun(len(names), "class")
        lines.append(
            f"note: the network has no counterpart of {noun} of the videos: {listed}{more};"
            f" {count_noun(n_left_out, 'video')} left out (all classes: unmatched_classes.csv)"
        )
    elif n_left_out:
        lines.append(f"note: {count_noun(n_left_out, 'video')} without a label left out")
    if of_network := [row for row in unmatched if row.side == "network"]:
        noun = "1 class of the network is" if len(of_network) == 1 else f"{len(of_network)} classes of the network are"
        lines.append(f"note: {noun} not among those of the videos; predicting one counts as wrong")
    return lines
