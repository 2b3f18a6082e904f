"""`vtcav report --figure=strip`: frame strips of the maps of an attribution run, with caption and BibTeX."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import vtcav_jax
from vtcav_jax import models
from vtcav_jax.attribution.target_spec import CHANNEL_SEPARATOR
from vtcav_jax.attribution.videos.map_store import MAP_KEY_SEPARATOR
from vtcav_jax.names import unknown_name_message
from vtcav_jax.report.animation.maps import panel_groups
from vtcav_jax.report.animation.overlay import Panel
from vtcav_jax.report.figures.strip import draw_strip, write_strip
from vtcav_jax.report.random_weights_notice import RANDOM_WEIGHTS_NOTICE
from vtcav_jax.runs.attribution_rows import MAPS_CSV, MapRow
from vtcav_jax.runs.tables import read_rows
from vtcav_jax.serve.films import FilmClip, FilmLibrary
from vtcav_jax.serve.maps.clip_maps import load_clip_map, step_positions
from vtcav_jax.serve.run_network import NetworkReference, NetworkShelf
from vtcav_jax.serve.served_run import open_served_run
from vtcav_jax.settings import SettingError

FIGURES_FOLDER = "figures"
MAX_MAPS = 60  # rows of a strip
MAX_NAME_CHARS = 120  # of a file, without its suffix


def write_strips(folder: Path, clip: str, targets: Sequence[str], n_frames: int) -> list[Path]:
    """Write the strip of a clip (default: that with the highest score) into the run folder; return all files.

    With several targets, the rows of each method are together, one per target, and have one scale as in animations.
    """
    if not (folder / MAPS_CSV).is_file():
        raise SettingError(("figure", f"{folder} has no maps; a strip needs a run of vtcav attribute"))
    rows = [row for row in read_rows(folder / MAPS_CSV, MapRow) if row.clip_index == 0]
    by_target = _select_rows(rows, clip, targets)
    first = next(iter(by_target.values()))[0]
    run, task = open_served_run(folder, folder.name), "attribute"
    reference = run.network(task)
    film = FilmLibrary().clip(run.source(task), first.clip, 0, NetworkShelf().clip_spec(reference), run.sampling(task))
    panels = {target: _load_panels(folder, group, len(film.frames)) for target, group in by_target.items()}
    predictions = {target: _class_prediction(group[0]) for target, group in by_target.items()}
    groups = panel_groups(panels, predictions, {target: group[0].score for target, group in by_target.items()})
    drawn = [
        replace(panel, title="\n".join(filter(None, (panel.title, group.heading))))
        for group in groups
        for panel in group.panels
    ]
    if len(drawn) > MAX_MAPS:
        raise SettingError(("target", f"expected at most {MAX_MAPS} maps in a strip, got {len(drawn)}; name fewer"))
    figure = draw_strip(film.frames, film.times, drawn, n_frames=n_frames)
    caption = strip_caption(list(by_target.values()), film, min(n_frames, len(film.frames)), reference)
    name = "_".join(("strip", first.clip, *by_target))[:MAX_NAME_CHARS]
    return write_strip(figure, folder / FIGURES_FOLDER, name, caption, bibtex(reference.model))


def _select_rows(rows: Sequence[MapRow], clip: str, targets: Sequence[str]) -> dict[str, list[MapRow]]:
    """Return the rows of one clip by target, by default of the first target and its clip with the highest score."""
    problems = []
    for setting, values, known in (
        ("target", targets, {row.target for row in rows}),
        ("clip", [clip] if clip else [], {row.clip for row in rows}),
    ):
        if unknown := [value for value in values if value not in known]:
            problems.append((setting, unknown_name_message(setting, unknown, sorted(known))))
    if problems:
        raise SettingError(*problems)
    targets = list(dict.fromkeys(targets)) or [rows[0].target]
    candidates = [row for row in rows if row.clip == (clip or row.clip) and row.target == targets[0]]
    if not candidates:
        raise SettingError(("clip", f"{clip} has no map of {targets[0]}; choose another --target"))
    best = max(candidates, key=lambda row: row.score).clip
    return {target: [row for row in rows if (row.clip, row.target) == (best, target)] for target in targets}


def _load_panels(folder: Path, rows: Sequence[MapRow], n_frames: int) -> list[Panel]:
    """Return the panels of the maps of one clip and target."""
    panels = []
    for row in rows:
        clip_map = load_clip_map(folder / "maps" / row.map_file, row.target, row.method, row.stage, 0)
        if clip_map is None:
            raise SettingError(("figure", f"{row.map_file} lacks a map that {MAPS_CSV} has; repeat the run"))
        positions = step_positions(len(clip_map.map), n_frames)
        panels.append(Panel(f"{row.method} @{row.stage}", clip_map.map, positions, row.signed))
    return panels


def _class_prediction(row: MapRow) -> str:
    """Return the predicted class, or "" if the target is a channel or concept vector, which have none."""
    is_other = row.answer == row.target and (CHANNEL_SEPARATOR in row.target or MAP_KEY_SEPARATOR in row.target)
    return "" if is_other else row.answer


def strip_caption(
    by_target: Sequence[Sequence[MapRow]], film: FilmClip, n_frames: int, reference: NetworkReference
) -> str:
    """Return what the strip shows, and how to read its colours."""
    rows = [row for group in by_target for row in group]
    methods = ", ".join(dict.fromkeys(f"{row.method} at {row.stage}" for row in rows))
    colours = [
        *(["red raises the score, blue lowers it"] if any(row.signed for row in rows) else []),
        *(["yellow has the largest values"] if not all(row.signed for row in rows) else []),
    ]
    answers = [
        f"{row.answer if row.answer.startswith(row.target) else f'{row.target} (predicted: {row.answer})'}, score"
        f" {row.score:.3g}"
        for row in (group[0] for group in by_target)
    ]
    scale = "one colour scale for all frames"
    if len(by_target) > 1:
        scale += ", and those of classes by the same method have the same one"
    random = f" {RANDOM_WEIGHTS_NOTICE}" if reference.random_weights else ""
    return (
        f"Maps of {reference.model} for {'; '.join(answers)}, in {rows[0].clip}: {n_frames} of the"
        f" {len(film.frames)} frames that the network reads ({film.times[0]:.2f} s to {film.times[-1]:.2f} s). Rows:"
        f" the clip; {methods}{', each for every target' if len(by_target) > 1 else ''}. Each map has {scale};"
        f" {', '.join(colours)}. Where a map is close to 0 it is transparent.{random}"
    )


def bibtex(model: str) -> str:
    """Return entries for the package and, if it is known, for the paper of the network."""
    entries = [
        "@software{vtcav_jax,\n  title = {vtcav\\_jax: explaining video classifiers in JAX},\n"
        "  author = {{The vtcav\\_jax authors}},\n"
        f"  version = {{{vtcav_jax.__version__}}},\n  url = {{https://github.com/vtcav-jax/vtcav_jax}}\n}}"
    ]
    if (preset := models.PRESETS.get(model)) is not None:
        entries.append(f"@misc{{{model},\n  note = {{{preset.citation}}}\n}}")
    return "\n\n".join(entries)
