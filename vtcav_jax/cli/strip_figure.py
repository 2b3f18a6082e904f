"""`vtcav report --figure=strip`: frame strips of the maps of an attribution run, with caption and BibTeX."""

from collections.abc import Sequence
from pathlib import Path

import vtcav_jax
from vtcav_jax import models
from vtcav_jax.names import unknown_name_message
from vtcav_jax.report.animation.overlay import Panel
from vtcav_jax.report.figures.strip import draw_strip, write_strip
from vtcav_jax.report.random_weights_notice import RANDOM_WEIGHTS_NOTICE
from vtcav_jax.runs.attribution_rows import MAPS_CSV, MapRow
from vtcav_jax.runs.tables import read_rows
from vtcav_jax.serve.clip_maps import ClipMap, load_clip_map, step_positions
from vtcav_jax.serve.films import FilmClip, FilmLibrary
from vtcav_jax.serve.run_network import NetworkReference, NetworkShelf
from vtcav_jax.serve.served_run import open_served_run
from vtcav_jax.settings import SettingError

FIGURES_FOLDER = "figures"
MAX_MAPS = 6


def write_strips(folder: Path, clip: str, target: str, n_frames: int) -> list[Path]:
    """Write the strip of a clip (default: that with the highest score) into the run folder; return all files."""
    if not (folder / MAPS_CSV).is_file():
        raise SettingError(("figure", f"{folder} has no maps; a strip needs a run of vtcav attribute"))
    rows = [row for row in read_rows(folder / MAPS_CSV, MapRow) if row.clip_index == 0]
    row = _select_row(rows, clip, target)
    run, task = open_served_run(folder, folder.name), "attribute"
    reference = run.network(task)
    film = FilmLibrary().clip(run.source(task), row.clip, 0, NetworkShelf().clip_spec(reference), run.sampling(task))
    maps = [
        loaded
        for other in rows
        if (other.clip, other.target) == (row.clip, row.target)
        and (loaded := load_clip_map(folder / "maps" / other.map_file, row.target, other.method, other.stage, 0))
    ][:MAX_MAPS]
    panels = [
        Panel(f"{m.method} @{m.stage}", m.map, step_positions(len(m.map), len(film.frames)), m.signed) for m in maps
    ]
    figure = draw_strip(film.frames, film.times, panels, n_frames=n_frames)
    caption = strip_caption(row, maps, film, min(n_frames, len(film.frames)), reference)
    name = f"strip_{row.clip}_{row.target}"
    return write_strip(figure, folder / FIGURES_FOLDER, name, caption, bibtex(reference.model))


def _select_row(rows: Sequence[MapRow], clip: str, target: str) -> MapRow:
    problems = []
    for setting, value, known in (
        ("target", target, {row.target for row in rows}),
        ("clip", clip, {row.clip for row in rows}),
    ):
        if value and value not in known:
            problems.append((setting, unknown_name_message(setting, [value], sorted(known))))
    if problems:
        raise SettingError(*problems)
    candidates = [row for row in rows if row.clip == (clip or row.clip) and row.target == (target or rows[0].target)]
    if not candidates:
        raise SettingError(("clip", f"{clip} has no map of {target or rows[0].target}; choose another --target"))
    return max(candidates, key=lambda row: row.score)


def strip_caption(
    row: MapRow, maps: Sequence[ClipMap], film: FilmClip, n_frames: int, reference: NetworkReference
) -> str:
    """Return what the strip shows, and how to read its colours."""
    methods = ", ".join(f"{m.method} at {m.stage}" for m in maps)
    signed, unsigned = any(m.signed for m in maps), any(not m.signed for m in maps)
    colours = [
        *(["red raises the score, blue lowers it"] if signed else []),
        *(["yellow has the largest values"] if unsigned else []),
    ]
    answer = row.answer if row.answer.startswith(row.target) else f"{row.target} (predicted: {row.answer})"
    random = f" {RANDOM_WEIGHTS_NOTICE}" if reference.random_weights else ""
    return (
        f"Maps of {reference.model} for {answer}, score {row.score:.3g}, in {row.clip}: {n_frames} of the"
        f" {len(film.frames)} frames that the network reads ({film.times[0]:.2f} s to {film.times[-1]:.2f} s). Rows:"
        f" the clip; {methods}. Each map has one colour scale for all frames; {', '.join(colours)}. Where a map is"
        f" close to 0 it is transparent.{random}"
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
