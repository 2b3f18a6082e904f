"""One module per task, with its argument dataclass and its command, and helpers that several commands share."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from vtcav_jax import models
from vtcav_jax.adapters.factory import is_adapted, load
from vtcav_jax.attribution.target_spec import TargetSpec
from vtcav_jax.cli.arguments import LabelTreeArguments, ModelArguments, RandomWeightsArguments
from vtcav_jax.cli.process_agreement import open_in_all_processes, require_same_network
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.console import info, warn
from vtcav_jax.data.loader import ReadResult
from vtcav_jax.data.open import open_source
from vtcav_jax.data.source import Source
from vtcav_jax.names import abridged_list
from vtcav_jax.settings import SettingError, concerning
from vtcav_jax.stats import intervals


def open_nonempty(spec: str, name: str = "videos") -> Source:
    """Open the video source of the setting `name`; raise a `SettingError` if it is empty.

    All processes of a run must call this in the same order; if their items differ, all raise the error.
    """

    def open_local() -> Source:
        source = open_source(spec)
        if not source.items:
            raise ValueError(f"{spec} has no videos")
        return source

    with concerning(name):
        source = open_in_all_processes(open_local)
    for note in getattr(source, "notes", ()):
        info(f"note: {note}")
    return source


def load_network(args: ModelArguments, seed: int = 0) -> models.Network:
    """Load the network that a task's arguments name, with their class names and groups of classes.

    A preset has random weights, drawn with `seed`, if the task and its arguments allow that.
    All processes of a run must call this; if their networks differ, all raise an error.
    """
    labels, label_tree = args.labels, args.label_tree if isinstance(args, LabelTreeArguments) else None
    random_weights = isinstance(args, RandomWeightsArguments) and args.random_weights
    network = _load_unlabelled(args.model, random_weights, seed)
    if labels is not None:
        with concerning("labels"):
            network = replace(network, heads=models.relabel(network.heads, labels))
    if label_tree is not None:
        with concerning("label_tree"):
            network = replace(network, groups=models.read_label_tree(label_tree, network))
        labels_by_head = [network.labels[part] for part in network.head_slices.values()]
        placed = set(network.group_labels(""))
        if missing := [name for names in labels_by_head if placed & set(names) for name in names if name not in placed]:
            info(
                f"note: {label_tree} lacks {abridged_list(missing)}; they have no siblings, and count among the other"
                " classes that a group is compared with"
            )
    require_same_network(network)
    return network


def network_outline(name: str) -> tuple[Any, ClipSpec, str]:
    """Return the model of a network, its clips and its citation, without weights where a preset suffices."""
    with concerning("model"):
        if is_adapted(name):
            network = load(name)
            return network.model, network.clip_spec, f"made by {name}"
        model, preset = models.abstract_model(name)
        return model, preset.clip_spec, preset.citation


def _load_unlabelled(name: str, random_weights: bool, seed: int) -> models.Network:
    if name not in models.PRESETS:
        with concerning("model"):
            return load(name)
    if not random_weights:
        raise SettingError(
            (
                "model",
                f"{name} is a network without weights; expected the output of weights_conversion or of the task train,"
                f" or a shipped network ({', '.join(models.shipped_networks())}); tasks with --random_weights can be"
                " tried without trained weights",
            )
        )
    warn(f"warning: {name} has random weights (it was not trained); its predictions and all results mean nothing")
    return models.random_network(name, seed=seed)


def source_request(task: str, args: Any, source: Source, targets: Sequence[TargetSpec]) -> dict[str, Any]:
    """Return the entries that the run records of attribute, motion and pyramid have in common."""
    groups = {spec.name: [[*spec.classes], [*(spec.contrast or ())]] for spec in targets if spec.compares_groups}
    return {
        "task": task,
        "model": args.model,
        **({"labels": args.labels} if args.labels else {}),
        "random_weights": args.random_weights,
        "videos": source.spec,
        "clips": source.identity,
        "targets": [target.name for target in targets],
        **({"groups": groups} if groups else {}),
        "clips_per_video": args.sampling.clips_per_video,
        "interval_seconds": args.sampling.interval_seconds,
    }


def single_value(values: Sequence[str], name: str) -> str | None:
    """Return the only value of a list setting, or None if it is empty; raise a `SettingError` for several."""
    if len(values) > 1:
        raise SettingError((name, f"expected one, got {','.join(values)}"))
    return next(iter(values), None)


def all_failed_error(source: Source, failed: Sequence[ReadResult]) -> SettingError:
    """Return the error for a source none of whose videos could be read."""
    n = len(failed)
    text = f"none of the {n} videos of {source.spec} could" if n > 1 else f"the only video of {source.spec} could not"
    return SettingError(("videos", f"{text} be read: {failed[0].failure}"))


def format_estimate(value: float, low: float, high: float) -> str:
    """Return a value with its interval, or without it where a single observation has none; NaN is undefined."""
    if math.isnan(value):
        return "undefined"
    return f"{value:.2f}" if math.isnan(low) else intervals.format_interval(value, low, high)


def format_table(header: Sequence[str], rows: Iterable[Sequence[object]], *, left: int) -> str:
    """Return rows as aligned columns; the first `left` columns are left-aligned, the others right-aligned."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(f"{cell:{'<' if i < left else '>'}{width}}" for i, (cell, width) in enumerate(zip(row, widths)))
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)
