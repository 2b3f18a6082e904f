"""Commands of the tasks report and serve: static pages of runs, and the interactive page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vtcav_jax.cli.arguments import run_folder
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit, info
from vtcav_jax.report.build import write_comparison, write_report
from vtcav_jax.report.displays.run_folder import read_run_table
from vtcav_jax.report.displays.table_files import write_latex
from vtcav_jax.report.run_reader import open_run_folder
from vtcav_jax.runs.lock import lock_folder
from vtcav_jax.settings import SettingError, concerning, required, setting

MAX_LATEX_ROWS = 200


@dataclass(frozen=True, kw_only=True)
class ReportArguments:
    run: tuple[Path, ...] = required(
        "NAME",
        "run folder, or several to compare, separated by commas; a name without a slash is a folder in runs/",
        convert=lambda names: tuple(map(run_folder, names)),
    )
    out: Path | None = setting(None, "folder of the page that compares several runs [default: in the last run folder]")
    figure: Literal["strip"] | None = setting(
        None,
        "also write a figure for a paper to the folder figures of the run: strip, frames of a clip with its maps (of a"
        " run of attribute), as SVG, PDF and PNG with caption and BibTeX",
    )
    latex: bool = setting(
        False,
        "also write the tables of each run as LaTeX (booktabs) to its folder tables; longer ones than"
        f" {MAX_LATEX_ROWS} rows only as CSV",
    )
    clip: str = setting("", "with --figure: name of the clip  [default: that with the highest score]")
    target: tuple[str, ...] = setting(
        (), "with --figure: target of the maps, or several to compare, separated by commas  [default: the first one]"
    )
    frames: int = setting(6, "with --figure=strip: number of frames", minimum=1, maximum=64)

    def __post_init__(self):
        if self.figure is None and (self.clip or self.target):
            raise SettingError(("figure", "--clip and --target select what a figure shows; add --figure=strip"))
        if self.figure is not None and len(self.run) > 1:
            raise SettingError(("figure", f"a figure is of one run, got {len(self.run)}; name one in --run"))
        if len(self.run) == 1 and self.out is not None:
            raise SettingError(
                ("out", "the page of a single run is always written to its run folder; --out applies to several runs")
            )
        if len({folder.resolve() for folder in self.run}) < len(self.run):
            raise SettingError(("run", f"{','.join(map(str, self.run))} names a run twice; name each run once"))


def report_runs(args: ReportArguments, context: CommandContext) -> None:
    with concerning("run"):
        if (written := args.out or args.run[-1]) == args.out or written.is_dir():
            lock_folder(written)
        if args.figure == "strip":
            from vtcav_jax.cli.strip_figure import write_strips  # imports the attribution methods

            for path in write_strips(args.run[0], args.clip, args.target, args.frames):
                emit(f"Figure: {path}")
        for folder in args.run if args.latex else ():
            write_latex_tables(folder)
        write_page(args.run, args.out)


def write_latex_tables(folder: Path) -> None:
    """Write the tables of a run as LaTeX, and print what was written and what is too long."""
    out, too_long = folder / "tables", []
    for path in open_run_folder(folder).table_paths:
        table = read_run_table(path)
        if len(table.lines) > MAX_LATEX_ROWS:
            too_long.append(f"{path.name} ({len(table.lines)} rows)")
            continue
        out.mkdir(exist_ok=True)
        write_latex(out / f"{path.stem}.tex", table)
        emit(f"Table: {out / path.stem}.tex")
    if too_long:
        info(f"note: too long for LaTeX: {', '.join(too_long)}")


def write_page(folders: Sequence[Path], out: Path | None = None) -> None:
    """Write the page of one run to its folder, or of several to `out` (default: the last folder); print its path."""
    path = write_report(folders[0]) if len(folders) == 1 else write_comparison(folders, out)
    emit(f"Report page: {path} ({path.stat().st_size / 1e6:.1f} MB)")


@dataclass(frozen=True, kw_only=True)
class ServeArguments:
    run: tuple[Path, ...] = required(
        "NAME",
        "run folder of tcav, attribute or motion, or a folder of concepts, or several, separated by commas; a name"
        " without a slash is a folder in runs/",
        convert=lambda names: tuple(map(run_folder, names)),
    )
    port: int = setting(8080, "port on this machine; 0: any free port", minimum=0, maximum=65535)

    def __post_init__(self):
        if len({folder.resolve() for folder in self.run}) < len(self.run):
            raise SettingError(("run", f"{','.join(map(str, self.run))} names a run twice; name each run once"))


def serve(args: ServeArguments, context: CommandContext) -> None:
    """Print the address of the page and serve it until the command is interrupted."""
    from vtcav_jax.serve.workspace import open_workspace  # imports the attribution methods

    try:
        from vtcav_jax.serve.server import run_server
    except ImportError as error:
        raise ValueError(f"serve needs {error.name}; pip install 'vtcav-jax[serve]'") from error
    with concerning("run"):
        workspace = open_workspace(args.run)
    info("Interactive page, on this machine only; Ctrl-C stops it.")
    with concerning("port"):
        run_server(workspace, args.port, emit)
