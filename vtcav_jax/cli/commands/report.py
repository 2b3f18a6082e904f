"""Command of the task report: write the page of a run, or a page that compares several."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vtcav_jax.cli.arguments import run_folder
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit
from vtcav_jax.report.build import write_comparison, write_report
from vtcav_jax.runs.lock import lock_folder
from vtcav_jax.settings import SettingError, concerning, required, setting


@dataclass(frozen=True, kw_only=True)
class ReportArguments:
    run: tuple[Path, ...] = required(
        "NAME",
        "run folder, or several to compare, separated by commas; a name without a slash is a folder in runs/",
        convert=lambda names: tuple(map(run_folder, names)),
    )
    out: Path | None = setting(None, "folder of the page that compares several runs [default: in the last run folder]")

    def __post_init__(self):
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
        write_page(args.run, args.out)


def write_page(folders: Sequence[Path], out: Path | None = None) -> None:
    """Write the page of one run to its folder, or of several to `out` (default: the last folder); print its path."""
    path = write_report(folders[0]) if len(folders) == 1 else write_comparison(folders, out)
    emit(f"Report page: {path} ({path.stat().st_size / 1e6:.1f} MB)")
