"""`DisplayedResult`: results that display themselves in a notebook, and become data frames, plots and files.

Results are made below the pages, whose figures they display. This module is below both: it imports the pages when a
result is displayed, so that computing one needs neither pages nor plotting.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

DISPLAYS_MODULE = "vtcav_jax.report.displays.actions"


class DisplayedResult:
    """Base class of results: an HTML display, `to_dataframe`, `plot` and `save`."""

    def _repr_html_(self) -> str:
        return _displays().render_notebook_html(self)

    def to_dataframe(self, table: str = "") -> Any:
        """Return a table as a pandas DataFrame, by default the first one.

        Its columns are those of the CSV file that the command writes, and `table` is the name of that file without
        `.csv`. Needs pandas (`pip install 'vtcav-jax[notebook]'`).
        """
        return _displays().make_data_frame(self, table)

    def plot(self, figure: str | int = 0) -> Any:
        """Return a figure of the result as a matplotlib Figure, in the style of the pages.

        `figure` is a number from 0 or a name; an unknown one raises ValueError with all names.
        """
        return _displays().make_plot(self, figure)

    def save(self, path: str | Path, name: str | int = "") -> Path:
        """Write the result in the format of the suffix, atomically; return the path.

        Tables are written as .csv, .md or .tex, figures as .png, .svg or .pdf, everything that the notebook displays as
        .html; maps also as .npz, .webp or .mp4. `name` selects a table or figure, by default the first one.
        """
        return _displays().save_result(self, Path(path), name)


def _displays() -> Any:
    return import_module(DISPLAYS_MODULE)
