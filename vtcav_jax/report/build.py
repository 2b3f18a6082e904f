"""The page of a run: what was asked, a section for each thing its folder holds, its tables, and how to repeat it.

Another kind of result gets its part of the page by one more function in `MAKERS`, from a run's folder to sections; it
returns none where the folder has nothing of its kind.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vtcav_jax.concepts.config import NEGATIVE
from vtcav_jax.progress import progress
from vtcav_jax.report import html
from vtcav_jax.report.comparison import page as comparison_page
from vtcav_jax.report.figures import png as raster
from vtcav_jax.report.html import Section
from vtcav_jax.report.run_reader import RunFolder, open_folder, unique
from vtcav_jax.report.sections import evaluation as evaluation_sections
from vtcav_jax.report.sections import maps as map_sections
from vtcav_jax.report.sections import motion as motion_sections
from vtcav_jax.report.sections import pyramid as pyramid_sections
from vtcav_jax.report.sections import tcav as tcav_sections
from vtcav_jax.report.sections import tcav_benchmark as tcav_benchmark_sections
from vtcav_jax.report.text import tcav as tcav_text
from vtcav_jax.runs.directory import write_text
from vtcav_jax.worlds.render import WORLDS

FOLDER, PAGE = "report", "index.html"
WHAT = {"explain": "maps of", "motion": "motion in"}
MOST_TABLES = 4_000_000  # bytes of tables inside a page
MAKERS: tuple[Callable[[RunFolder], Sequence[Section]], ...] = (
    tcav_sections.sections,
    map_sections.sections,
    motion_sections.sections,
    pyramid_sections.sections,
    evaluation_sections.sections,
    tcav_benchmark_sections.sections,
)


def write_report(folder: Path) -> Path:
    """Writes `report/index.html` and its figures into the run's folder; returns the page's path."""
    run = open_folder(folder)
    sections = [section for make in MAKERS for section in make(run)]
    if not sections:
        raise ValueError(
            f"--run={folder} has no results that a page can show, such as scores.csv; let the run end first: give its"
            " command again"
        )
    sections += [tables(run), again(run)]
    return _written(run.folder / FOLDER, html.document(title(run), asked(run), sections), sections)


def write_comparison(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Writes a page with runs of the same concepts side by side, by default into the last one's folder."""
    runs = [open_folder(folder) for folder in folders]
    sections = comparison_page.sections(runs)
    names = tcav_text.listed(comparison_page.names(runs))
    place = out or runs[-1].folder / FOLDER / f"against_{'_'.join(run.name for run in runs[:-1])}"
    return _written(place, html.document(f"{names} compared", comparison_page.intro(runs), sections), sections)


def _written(folder: Path, text: str, sections: Sequence[Section]) -> Path:
    if len(text.encode()) > html.MOST_BYTES:
        raise ValueError(
            f"the page would have {len(text.encode()) / 1e6:.0f} MB, more than a browser opens well; explain fewer"
            " classes, stages or concepts in one run"
        )
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    drawn = [figure for section in sections for figure in section.figures]
    for figure in progress(drawn, len(drawn), "figures", size=lambda _: 1):
        figure.write(folder / "figures")
        if raster.possible():
            raster.write_png(figure, folder / "figures")
    write_text(folder / PAGE, text)
    return folder / PAGE


def title(run: RunFolder) -> str:
    classes = unique([row.target for row in run.rows])
    does = "does" if len(classes) == 1 else "do"
    questions = [f"which concepts {does} {tcav_text.listed(classes)} use?"] if classes else []
    if looked := unique([row.target for row in run.maps]):
        questions.append(f"where and when does {_network(run, 'explain')} look for {tcav_text.listed(looked)}?")
    if moved := unique([row.target for row in run.motion_classes]):
        questions.append(f"how much of {tcav_text.listed(moved)} is motion to {_network(run, 'motion')}?")
    if hung := [facts.target for facts in run.pyramids]:
        does = "does" if len(hung) == 1 else "do"
        questions.append(f"which kernels of {_network(run, 'pyramid')} {does} {tcav_text.listed(hung)} hang on?")
    questions += ["which map of a video network tells the truth?"] if run.truths else []
    return f"{run.name}: {' '.join(q if i == 0 else q[0].upper() + q[1:] for i, q in enumerate(questions))}"


def _network(run: RunFolder, task: str) -> str:
    record = run.record(task)
    return str(record.asked.get("model", "the network")) if record else "the network"


def asked(run: RunFolder) -> str:
    """What was asked, for the head of the page."""
    a = run.asked
    rows = run.rows
    weights = ", random weights" if any(run.random_weights(one.task) for one in run.records) else ""
    pairs = [("network", f"{a['model']}{weights}")] if "model" in a else []
    if networks := unique([row.network for row in run.truths]):
        pairs += [("networks", ", ".join(networks)), ("clips of each", str(max(row.clips for row in run.truths)))]
    for target, some in tcav_text.by_target(run.predictions).items():
        pairs.append((f"says {target}", f"on {tcav_text.accuracy(some)} of the class, those that are explained here"))
    if rows:
        classes = {row.target: row.n_targets for row in rows}
        pairs.append(("classes", ", ".join(f"{name} ({n} clips)" for name, n in classes.items())))
        sizes = {(row.concept, row.kind): row.n_concept for row in rows}
        pairs.append(("concepts", ", ".join(f"{name}, {kind} ({n})" for (name, kind), n in sizes.items())))
        if pool := {row.kind: (row.n_against, row.sets) for row in rows if row.against == NEGATIVE}:
            told = ", ".join(f"{n} {kind} clips in {sets} random sets" for kind, (n, sets) in pool.items())
            pairs.append(("negatives", told))
        pairs.append(("stages", ", ".join(unique([row.stage for row in rows]))))
    pairs += [("concepts in", str(a["concepts"]))] if rows and "concepts" in a else []
    pairs += [("clips of", str(a["target_videos"]))] if "target_videos" in a else []
    sources = [str(one.asked.get(name, "")) for one in run.records for name in ("target_videos", "videos")]
    worlds = unique([source.split(":")[1] for source in sources if source.startswith("worlds:")])
    pairs += [("they show", WORLDS[name].shows) for name in worlds if name in WORLDS]
    for one in run.records:
        if one.task in WHAT:
            pairs += [(WHAT[one.task], _explained(one.asked))]
        elif one.task == "pyramid":
            pairs += [("kernels of", _followed(one.asked))]
    return html.definitions(pairs)


def _explained(a: dict[str, Any]) -> str:
    """What the tasks that go through videos were asked."""
    methods = a.get("methods") or [(a.get("method", ""), a.get("stage"))]
    made = ", ".join(f"{name} at {stage}" if stage else name for name, stage in methods)
    parts = "clip after clip to their ends" if a.get("whole") else f"{a.get('num_clips', 1)} of each video"
    return f"{', '.join(a.get('targets', ()))}, by {made}; clips of {a.get('videos', '')}, {parts}"


def _followed(a: dict[str, Any]) -> str:
    levels = f"levels {', '.join(a['stages'])}" if a.get("stages") else f"{a.get('depth', '')} levels back"
    return f"{', '.join(a.get('targets', ()))}, {levels}; clips of {a.get('videos', '')}"


def tables(run: RunFolder) -> Section:
    links, left = [], MOST_TABLES
    for path in sorted(run.tables, key=lambda path: path.stat().st_size):
        left -= path.stat().st_size
        links.append(html.download(path, inside=left >= 0))
    png = "SVG and PNG" if raster.possible() else "SVG (and as PNG after pip install 'vtcav-jax[png]')"
    text = f"All numbers in full precision; figures lie beside this page as {png}, in figures/."
    return Section("tables", "Tables", html.paragraph(text, "soft") + f"<p>{' · '.join(links)}</p>")


def again(run: RunFolder) -> Section:
    about = run.about
    pairs = [(name, str(version)) for name, version in about.get("versions", {}).items()]
    pairs += [("devices", ", ".join(about["devices"]))] if about.get("devices") else []
    hashes = about.get("hashes", {})
    pairs += [(f"sha256 of {name}", hashes[name]) for name in ("weights", "code") if name in hashes]
    pairs += [
        (f"clips of {name}", f"{len(hashes[name])}, their hashes are in run.json")
        for name in ("concepts", "targets")
        if name in hashes
    ]
    if seconds := about.get("seconds"):
        pairs.append(("seconds", ", ".join(f"{phase} {value:.1f}" for phase, value in seconds.items())))
    parts = []
    for one in run.records:
        parts += [html.code(f"python main.py --flagfile={one.flags}")]
        parts += [html.details(one.flags.name, html.code(one.told))] if one.told else []
    return Section("again", "Versions, and the command that repeats it", "".join(parts) + html.definitions(pairs))
