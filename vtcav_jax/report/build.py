"""The page of a run: what was asked, a section for each thing its folder holds, its tables, and how to repeat it.

Another kind of result gets its part of the page by one more function in `MAKERS`, from a run's folder to sections; it
returns none where the folder has nothing of its kind.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vtcav_jax.atomic import write_text
from vtcav_jax.concepts.config import NEGATIVE_PREFIX
from vtcav_jax.console import progress
from vtcav_jax.report import html
from vtcav_jax.report.comparison import page as comparison_page
from vtcav_jax.report.figures import png as raster
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, open_run_folder, unique_in_order
from vtcav_jax.report.sections import evaluation as evaluation_sections
from vtcav_jax.report.sections import maps as map_sections
from vtcav_jax.report.sections import motion as motion_sections
from vtcav_jax.report.sections import pyramid as pyramid_sections
from vtcav_jax.report.sections import tcav as tcav_sections
from vtcav_jax.report.sections import tcav_benchmark as tcav_benchmark_sections
from vtcav_jax.report.text import tcav as tcav_text
from vtcav_jax.worlds.render import WORLDS

REPORT_FOLDER, REPORT_PAGE = "report", "index.html"
TASK_PHRASES = {"attribute": "maps of", "motion": "motion in"}
MAX_TABLE_BYTES = 4_000_000  # bytes of tables inside a page
SECTION_BUILDERS: tuple[Callable[[RunFolder], Sequence[Section]], ...] = (
    tcav_sections.tcav_sections,
    map_sections.map_sections,
    motion_sections.motion_sections,
    pyramid_sections.pyramid_sections,
    evaluation_sections.evaluation_sections,
    tcav_benchmark_sections.tcav_benchmark_sections,
)


def write_report(folder: Path) -> Path:
    """Writes `report/index.html` and its figures into the run's folder; returns the page's path."""
    run = open_run_folder(folder)
    sections = [section for build in SECTION_BUILDERS for section in build(run)]
    if not sections:
        raise ValueError(
            f"{folder} has no results that a page can show, such as scores.csv; let the run end first: give its"
            " command again"
        )
    sections += [tables_section(run), reproduction_section(run)]
    return _write_page(
        run.folder / REPORT_FOLDER, html.document(report_title(run), run_header(run), sections), sections
    )


def write_comparison(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Writes a page with runs of the same concepts side by side, by default into the last one's folder."""
    runs = [open_run_folder(folder) for folder in folders]
    sections = comparison_page.comparison_sections(runs)
    names = tcav_text.join_names(comparison_page.run_names(runs))
    page_folder = out or runs[-1].folder / REPORT_FOLDER / f"against_{'_'.join(run.name for run in runs[:-1])}"
    return _write_page(
        page_folder, html.document(f"{names} compared", comparison_page.comparison_intro(runs), sections), sections
    )


def _write_page(folder: Path, text: str, sections: Sequence[Section]) -> Path:
    if len(text.encode()) > html.MAX_PAGE_BYTES:
        raise ValueError(
            f"the page would have {len(text.encode()) / 1e6:.0f} MB, more than a browser opens well; explain fewer"
            " classes, stages or concepts in one run"
        )
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    figures = [figure for section in sections for figure in section.figures]
    for figure in progress(figures, len(figures), "figures", size=lambda _: 1):
        figure.write_svg(folder / "figures")
        if raster.possible():
            raster.write_png(figure, folder / "figures")
    write_text(folder / REPORT_PAGE, text)
    return folder / REPORT_PAGE


def report_title(run: RunFolder) -> str:
    classes = unique_in_order([row.target for row in run.score_rows])
    does = "does" if len(classes) == 1 else "do"
    questions = [f"which concepts {does} {tcav_text.join_names(classes)} use?"] if classes else []
    if map_targets := unique_in_order([row.target for row in run.map_rows]):
        questions.append(
            f"where and when does {_network_name(run, 'attribute')} look for {tcav_text.join_names(map_targets)}?"
        )
    if motion_targets := unique_in_order([row.target for row in run.class_motion_rows]):
        questions.append(
            f"how much of {tcav_text.join_names(motion_targets)} is motion to {_network_name(run, 'motion')}?"
        )
    if pyramid_targets := [facts.target for facts in run.pyramid_facts]:
        does = "does" if len(pyramid_targets) == 1 else "do"
        questions.append(
            f"which kernels of {_network_name(run, 'pyramid')} {does} {tcav_text.join_names(pyramid_targets)} hang on?"
        )
    questions += ["which map of a video network tells the truth?"] if run.method_score_rows else []
    return f"{run.name}: {' '.join(q if i == 0 else q[0].upper() + q[1:] for i, q in enumerate(questions))}"


def _network_name(run: RunFolder, task: str) -> str:
    record = run.task_record(task)
    return str(record.config.get("model", "the network")) if record else "the network"


def run_header(run: RunFolder) -> str:
    """What was asked, for the head of the page."""
    config = run.config
    rows = run.score_rows
    weights = ", random weights" if any(run.has_random_weights(record.task) for record in run.records) else ""
    pairs = [("network", f"{config['model']}{weights}")] if "model" in config else []
    if networks := unique_in_order([row.network_name for row in run.method_score_rows]):
        pairs += [
            ("networks", ", ".join(networks)),
            ("clips of each", str(max(row.n_clips for row in run.method_score_rows))),
        ]
    for target, predictions in tcav_text.predictions_by_target(run.prediction_rows).items():
        pairs.append(
            (f"says {target}", f"on {tcav_text.accuracy_text(predictions)} of the class, those that are explained here")
        )
    if rows:
        classes = {row.target: row.n_clips for row in rows}
        pairs.append(("classes", ", ".join(f"{name} ({n} clips)" for name, n in classes.items())))
        sizes = {(row.concept, row.clip_type): row.n_concept for row in rows}
        pairs.append(("concepts", ", ".join(f"{name}, {clip_type} ({n})" for (name, clip_type), n in sizes.items())))
        if pool := {
            row.clip_type: (row.n_negatives, row.n_random_sets) for row in rows if row.negatives == NEGATIVE_PREFIX
        }:
            negatives_text = ", ".join(
                f"{n} {clip_type} clips in {sets} random sets" for clip_type, (n, sets) in pool.items()
            )
            pairs.append(("negatives", negatives_text))
        pairs.append(("stages", ", ".join(unique_in_order([row.stage for row in rows]))))
    pairs += [("concepts in", str(config["concepts"]))] if rows and "concepts" in config else []
    pairs += [("clips of", str(config["target_videos"]))] if "target_videos" in config else []
    sources = [str(record.config.get(name, "")) for record in run.records for name in ("target_videos", "videos")]
    worlds = unique_in_order([source.split(":")[1] for source in sources if source.startswith("worlds:")])
    pairs += [("they show", WORLDS[name].description) for name in worlds if name in WORLDS]
    for record in run.records:
        if record.task in TASK_PHRASES:
            pairs += [(TASK_PHRASES[record.task], _describe_map_run(record.config))]
        elif record.task == "pyramid":
            pairs += [("kernels of", _describe_pyramid_run(record.config))]
    return html.definition_list(pairs)


def _describe_map_run(config: dict[str, Any]) -> str:
    """What the tasks that go through videos were asked."""
    methods = config.get("methods") or [(config.get("method", ""), config.get("stage"))]
    method_text = ", ".join(f"{name} at {stage}" if stage else name for name, stage in methods)
    clips_text = (
        "clip after clip to their ends"
        if config.get("slide_over_video")
        else f"{config.get('clips_per_video', 1)} of each video"
    )
    return (
        f"{', '.join(config.get('targets', ()))}, by {method_text}; clips of {config.get('videos', '')}, {clips_text}"
    )


def _describe_pyramid_run(config: dict[str, Any]) -> str:
    levels = (
        f"levels {', '.join(config['stages'])}" if config.get("stages") else f"{config.get('depth', '')} levels back"
    )
    return f"{', '.join(config.get('targets', ()))}, {levels}; clips of {config.get('videos', '')}"


def tables_section(run: RunFolder) -> Section:
    links, bytes_left = [], MAX_TABLE_BYTES
    for path in sorted(run.table_paths, key=lambda path: path.stat().st_size):
        bytes_left -= path.stat().st_size
        links.append(html.table_link(path, embed=bytes_left >= 0))
    png = "SVG and PNG" if raster.possible() else "SVG (and as PNG after pip install resvg-py pillow)"
    text = f"All numbers in full precision; figures lie beside this page as {png}, in figures/."
    return Section("tables", "Tables", html.paragraph(text, "soft") + f"<p>{' · '.join(links)}</p>")


def reproduction_section(run: RunFolder) -> Section:
    content = run.content
    pairs = [(name, str(version)) for name, version in content.get("versions", {}).items()]
    pairs += [("devices", ", ".join(content["devices"]))] if content.get("devices") else []
    hashes = content.get("hashes", {})
    pairs += [(f"sha256 of {name}", hashes[name]) for name in ("weights", "code") if name in hashes]
    pairs += [
        (f"clips of {name}", f"{len(hashes[name])}, their hashes are in run.json")
        for name in ("concepts", "targets")
        if name in hashes
    ]
    if seconds := content.get("seconds"):
        pairs.append(("seconds", ", ".join(f"{phase} {value:.1f}" for phase, value in seconds.items())))
    parts = []
    for record in run.records:
        parts += [html.code_block(f"python main.py --flagfile={record.flags_path}")]
        parts += (
            [html.details_block(record.flags_path.name, html.code_block(record.flags_text))]
            if record.flags_text
            else []
        )
    return Section("again", "Versions, and the command that repeats it", "".join(parts) + html.definition_list(pairs))
