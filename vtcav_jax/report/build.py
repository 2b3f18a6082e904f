"""Report page of a run: its settings, a section for each kind of result, the tables, and how to reproduce it.

A new kind of result needs one more function in `SECTION_BUILDERS`, which returns no sections for folders without it.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any

from vtcav_jax.atomic import write_text
from vtcav_jax.concepts.config import NEGATIVE_PREFIX
from vtcav_jax.console import progress
from vtcav_jax.names import abridged_list, count_noun
from vtcav_jax.report import glossary, html
from vtcav_jax.report.comparison import page as comparison_page
from vtcav_jax.report.figures import png as raster
from vtcav_jax.report.figures.svg import Figure
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, open_run_folder, unique_in_order
from vtcav_jax.report.sections import accuracy as accuracy_sections
from vtcav_jax.report.sections import discovery_benchmark as discovery_benchmark_sections
from vtcav_jax.report.sections import evaluation as evaluation_sections
from vtcav_jax.report.sections import maps as map_sections
from vtcav_jax.report.sections import motion as motion_sections
from vtcav_jax.report.sections import pyramid as pyramid_sections
from vtcav_jax.report.sections import tcav as tcav_sections
from vtcav_jax.report.sections import tcav_benchmark as tcav_benchmark_sections
from vtcav_jax.report.sections import time_sensitivity as time_sensitivity_sections
from vtcav_jax.report.text import tcav_limits
from vtcav_jax.report.text.names import join_names
from vtcav_jax.runs.accuracy_rows import describe_views
from vtcav_jax.worlds.render import WORLDS

REPORT_FOLDER, REPORT_PAGE = "report", "index.html"
TASK_PHRASES = {"attribute": "attribution maps", "motion": "motion test"}
MAX_TABLE_BYTES = 4_000_000  # of tables embedded in a page
MAX_NAMED_CLASSES = 3  # in the title, and with an accuracy each
SECTION_BUILDERS: tuple[Callable[[RunFolder], Sequence[Section]], ...] = (
    tcav_sections.tcav_sections,
    map_sections.map_sections,
    motion_sections.motion_sections,
    time_sensitivity_sections.time_sensitivity_sections,
    pyramid_sections.pyramid_sections,
    accuracy_sections.accuracy_sections,
    evaluation_sections.evaluation_sections,
    tcav_benchmark_sections.tcav_benchmark_sections,
    discovery_benchmark_sections.discovery_benchmark_sections,
)


def write_report(folder: str | Path) -> Path:
    """Write `report/index.html` and its figures into the run folder; return the path of the page."""
    run = open_run_folder(Path(folder))
    sections = [section for build in SECTION_BUILDERS for section in build(run)]
    if not sections:
        raise ValueError(
            f"{folder} has no results that a page can show, such as scores.csv; run its command again to finish the run"
        )
    terms = page_terms(run)
    sections += [tables_section(run), reproduction_section(run)]
    sections += [glossary.glossary_section(terms)] if terms else []
    return _write_page(
        run.folder / REPORT_FOLDER, html.document(report_title(run), run_header(run), sections), sections
    )


def write_comparison(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write a page that compares runs, by default into the folder of the last one; return its path."""
    runs = [open_run_folder(folder) for folder in folders]
    sections = comparison_page.comparison_sections(runs)
    terms = glossary.TCAV_TERMS if all(run.score_rows for run in runs) else glossary.MOTION_TERMS
    sections.append(glossary.glossary_section(terms))
    names = join_names(comparison_page.run_names(runs))
    page_folder = out or runs[-1].folder / REPORT_FOLDER / f"against_{'_'.join(run.name for run in runs[:-1])}"
    return _write_page(
        page_folder, html.document(f"Comparison of {names}", comparison_page.comparison_intro(runs), sections), sections
    )


def _write_page(folder: Path, text: str, sections: Sequence[Section]) -> Path:
    if len(text.encode()) > html.MAX_PAGE_BYTES:
        raise ValueError(
            f"the page would have {len(text.encode()) / 1e6:.0f} MB, too much for a browser; explain fewer classes,"
            " stages or concepts in one run"
        )
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    figures = unique_file_names([figure for section in sections for figure in section.figures])
    for figure in progress(figures, len(figures), "figures", size=lambda _: 1):
        figure.write_svg(folder / "figures")
        if raster.possible():
            raster.write_png(figure, folder / "figures")
    write_text(folder / REPORT_PAGE, text)
    return folder / REPORT_PAGE


def unique_file_names(figures: Sequence[Figure]) -> list[Figure]:
    """Return the figures, those with the name of an earlier one with a number: names can differ in signs only."""
    renamed: dict[str, Figure] = {}
    for figure in figures:
        candidates = chain([figure.name], (f"{figure.name}_{i}" for i in count(2)))
        name = next(name for name in candidates if name not in renamed)
        renamed[name] = replace(figure, name=name)
    return list(renamed.values())


def page_terms(run: RunFolder) -> dict[str, str]:
    """Return the glossary of the page: the terms of every kind of result that it shows."""
    terms: dict[str, str] = {}
    for rows, kind_terms in (
        (run.score_rows, glossary.TCAV_TERMS),
        (run.map_rows, glossary.MAP_TERMS),
        (run.class_motion_rows, glossary.MOTION_TERMS),
        (run.pyramid_facts, glossary.PYRAMID_TERMS),
    ):
        terms |= kind_terms if rows else {}
    return terms


def report_title(run: RunFolder) -> str:
    topics = []
    if classes := unique_in_order([row.target for row in run.score_rows]):
        names = join_names(classes) if len(classes) <= MAX_NAMED_CLASSES else f"{len(classes)} classes"
        topics.append(f"concepts that affect {names}")
    for task, topic, targets in (
        ("attribute", "attribution maps for", [row.target for row in run.map_rows]),
        ("motion", "contribution of motion to", [row.target for row in run.class_motion_rows]),
        ("pyramid", "channels that contribute to", [facts.target for facts in run.pyramid_facts]),
    ):
        if targets:
            names = join_names(unique_in_order(targets))
            topics.append(f"{topic} {names} in {_network_name(run, task)}")
    topics += [f"accuracy of {_network_name(run, 'evaluate')}"] if run.accuracies else []
    topics += ["attribution methods scored on clips with a known cause"] if run.method_score_rows else []
    return f"{run.name}: {'; '.join(topics)}"


def _network_name(run: RunFolder, task: str) -> str:
    record = run.task_record(task)
    return str(record.config.get("model", "the network")) if record else "the network"


def run_header(run: RunFolder) -> str:
    """Return the settings of the run for the head of the page."""
    config = run.config
    rows = run.score_rows
    weights = ", random weights" if any(run.has_random_weights(record.task) for record in run.records) else ""
    pairs = [("network", f"{config['model']}{weights}")] if "model" in config else []
    if networks := unique_in_order([row.network_name for row in run.method_score_rows]):
        pairs += [
            ("networks", ", ".join(networks)),
            ("clips per question", f"at most {max(row.n_clips for row in run.method_score_rows)}"),
        ]
    predictions_by_target = tcav_limits.predictions_by_target(run)
    if len(predictions_by_target) > MAX_NAMED_CLASSES:
        predictions = list(chain.from_iterable(predictions_by_target.values()))
        text = f"{tcav_limits.accuracy_text(predictions)} of {count_noun(len(predictions_by_target), 'class')}"
        pairs.append(("accuracy", text))
    else:
        for target, predictions in predictions_by_target.items():
            pairs.append((f"accuracy on {target}", f"{tcav_limits.accuracy_text(predictions)} of this class"))
    if rows:
        classes = {row.target: row.n_clips for row in rows}
        pairs.append(("classes", abridged_list([f"{name} ({n} target clips)" for name, n in classes.items()])))
        sizes = {(row.concept, row.clip_type): row.n_concept for row in rows}
        pairs.append(("concepts", _describe_concepts(sizes)))
        if pool := {
            row.clip_type: (row.n_negatives, row.n_random_sets) for row in rows if row.negatives == NEGATIVE_PREFIX
        }:
            negatives_text = ", ".join(
                f"{count_noun(n, f'{clip_type} clip')} in {count_noun(sets, 'random set')}"
                for clip_type, (n, sets) in pool.items()
            )
            pairs.append(("random clips", negatives_text))
        pairs.append(("stages (layers)", ", ".join(unique_in_order([row.stage for row in rows]))))
    pairs += [("concept folder", str(config["concepts"]))] if rows and "concepts" in config else []
    pairs += [("target videos", str(config["target_videos"]))] if "target_videos" in config else []
    sources = [str(record.config.get(name, "")) for record in run.records for name in ("target_videos", "videos")]
    worlds = unique_in_order([source.split(":")[1] for source in sources if source.startswith("worlds:")])
    pairs += [(f"clips of worlds:{name}", WORLDS[name].description) for name in worlds if name in WORLDS]
    for record in run.records:
        if record.task in TASK_PHRASES:
            pairs += [(TASK_PHRASES[record.task], _describe_map_run(record.config))]
        elif record.task == "evaluate":
            pairs += [("videos", str(record.config.get("videos", ""))), ("views", _describe_views(record.config))]
        elif record.task == "pyramid":
            pairs += [("class feature pyramid", _describe_pyramid_run(record.config))]
    return html.definition_list(pairs)


def _describe_concepts(sizes: dict[tuple[str, str], int]) -> str:
    """Return the number and names of the concepts with their numbers of clips, grouped by those numbers."""
    names_by_size: dict[str, list[str]] = {}
    for name in unique_in_order([name for name, _ in sizes]):
        size = " and ".join(f"{n} {clip_type}" for (other, clip_type), n in sizes.items() if other == name)
        noun = "clip" if size.startswith("1 ") and " and " not in size else "clips"
        names_by_size.setdefault(f"{size} {noun}", []).append(name)
    n_concepts = count_noun(sum(map(len, names_by_size.values())), "concept")
    if len(names_by_size) == 1:
        ((size, names),) = names_by_size.items()
        return f"{n_concepts}: {', '.join(names)}; {size}{' each' if len(names) > 1 else ''}"
    groups = (f"{join_names(names)} with {size}" for size, names in names_by_size.items())
    return f"{n_concepts}: {'; '.join(groups)}"


def _describe_map_run(config: dict[str, Any]) -> str:
    methods = config.get("methods") or [(config.get("method", ""), config.get("stage"))]
    method_text = ", ".join(f"{name} at {stage}" if stage else name for name, stage in methods)
    n_clips = config.get("clips_per_video", 1)
    clips_text = (
        "consecutive clips of every video"
        if config.get("slide_over_video")
        else f"{count_noun(n_clips, 'clip')} per video"
    )
    return f"{', '.join(config.get('targets', ()))}; {method_text}; videos {config.get('videos', '')}, {clips_text}"


def _describe_views(config: dict[str, Any]) -> str:
    clips, crops = config.get("views") or (1, 1)
    return describe_views(clips, crops, str(config.get("views_origin", "")))


def _describe_pyramid_run(config: dict[str, Any]) -> str:
    levels = (
        f"levels {', '.join(config['stages'])}"
        if config.get("stages")
        else f"{config.get('depth', '')} levels back from the class score"
    )
    return f"{', '.join(config.get('targets', ()))}; {levels}; videos {config.get('videos', '')}"


def tables_section(run: RunFolder) -> Section:
    links, bytes_left = [], MAX_TABLE_BYTES
    for path in sorted(run.table_paths, key=lambda path: path.stat().st_size):
        bytes_left -= path.stat().st_size
        links.append(html.table_link(path, embed=bytes_left >= 0))
    png = "SVG and PNG" if raster.possible() else "SVG (PNG as well after pip install resvg-py pillow)"
    text = f"All numbers in full precision, as CSV. The figures are next to this page in figures/, as {png}."
    return Section("tables", "Tables", html.paragraph(text, "soft") + f"<p>{' · '.join(links)}</p>")


def reproduction_section(run: RunFolder) -> Section:
    content = run.content
    pairs = [(name, str(version)) for name, version in content.get("versions", {}).items()]
    pairs += [("devices", ", ".join(content["devices"]))] if content.get("devices") else []
    hashes = content.get("hashes", {})
    pairs += [(f"SHA-256 of {name}", hashes[name]) for name in ("weights", "code") if name in hashes]
    pairs += [
        (f"{title} clips", f"{len(hashes[name])} (SHA-256 of each in run.json)")
        for name, title in (("concepts", "concept"), ("targets", "target"))
        if name in hashes
    ]
    if seconds := content.get("seconds"):
        pairs.append(
            ("seconds per phase, first run", ", ".join(f"{phase} {value:.1f}" for phase, value in seconds.items()))
        )
    parts = [html.paragraph("Command, flags, and versions of the software that made this run.", "soft")]
    for record in run.records:
        parts += [html.code_block(f"vtcav --flagfile={shlex.quote(str(record.flags_path))}")]
        parts += (
            [html.details_block(record.flags_path.name, html.code_block(record.flags_text))]
            if record.flags_text
            else []
        )
    return Section("again", "How to reproduce this page", "".join(parts) + html.definition_list(pairs))
