"""--task=report: the page of a run, or of several side by side."""

from collections.abc import Sequence
from pathlib import Path

from vtcav_jax.console import emit
from vtcav_jax.report.build import write_comparison, write_report


def report(folders: Sequence[Path], out: Path | None = None) -> None:
    """Writes the page of one run into its folder, of several into `out` or the last one's, and says where."""
    if not folders:
        raise ValueError("--task=report needs --run=NAME, or --run=NAME,OTHER to compare runs")
    if len(folders) == 1 and out is not None:
        raise ValueError(f"--out={out}: the page of one run lies in its folder; --out is for the page of several")
    if len(folders) > 1 and len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError(f"--run={','.join(map(str, folders))}: the same run comes twice; name each once")
    path = write_report(folders[0]) if len(folders) == 1 else write_comparison(folders, out)
    emit(f"page: {path} ({path.stat().st_size / 1e6:.1f} MB)")
