"""What every result can do: render itself for a notebook, become a data frame or a plot, and be saved."""

from importlib import import_module
from pathlib import Path
from typing import Any

from vtcav_jax import atomic
from vtcav_jax.names import unknown_name_message
from vtcav_jax.report.displays import notebook_html, table_files
from vtcav_jax.report.displays.result_view import ResultTable, ResultView
from vtcav_jax.report.figures.matplotlib_figure import draw_with_matplotlib
from vtcav_jax.report.figures.svg import Figure

# Functions from a result to its `ResultView`, by the name of the result's class
VIEW_MAKERS = {
    "Attribution": "attribution:view_attribution",
    "SelectiveRelevance": "map_parts:view_selective_relevance",
    "StaticDynamicAttribution": "map_parts:view_static_dynamic",
    "MiningReport": "mining:view_mining",
    "ExperimentResults": "explanations:view_experiment",
    "MotionResults": "explanations:view_motion",
    "Pyramid": "explanations:view_pyramid",
    "DiscoveryReport": "explanations:view_discovery",
    "Movements": "movements:view_movements",
    "MethodScores": "evaluation:view_method_scores",
    "Accuracy": "evaluation:view_accuracy",
    "RunFolder": "run_folder:view_run_folder",
}
FIGURE_SUFFIXES = (".png", ".svg", ".pdf")
FIGURE_DPI = 200


def view_result(result: object) -> ResultView:
    """Return the view of a result, by its class or the nearest base class that has one."""
    for cls in type(result).__mro__:
        if cls.__name__ in VIEW_MAKERS:
            module, _, function = VIEW_MAKERS[cls.__name__].partition(":")
            return getattr(import_module(f"vtcav_jax.report.displays.{module}"), function)(result)
    raise TypeError(f"expected a result, one of {', '.join(VIEW_MAKERS)}; got {type(result).__name__}")


def render_notebook_html(result: object) -> str:
    return notebook_html.render_view(view_result(result))


def make_data_frame(result: object, table: str = "") -> Any:
    """Return a table of the result as a pandas DataFrame."""
    try:
        pandas = import_module("pandas")
    except ImportError as error:
        raise ValueError("data frames need pandas; pip install 'vtcav-jax[notebook]'") from error
    selected = select_table(view_result(result), table)
    return pandas.DataFrame(list(selected.lines), columns=list(selected.columns))


def make_plot(result: object, figure: str | int = 0) -> Any:
    """Return a figure of the result as a matplotlib Figure."""
    view = view_result(result)
    selected = select_figure(view, figure)
    return draw_with_matplotlib(selected) if isinstance(selected, Figure) else selected()


def save_result(result: object, path: Path, name: str | int = "") -> Path:
    """Write the result in the format of the suffix; return the path."""
    view, suffix = view_result(result), path.suffix.lower()
    known = [*view.writers, *table_files.TABLE_WRITERS, *FIGURE_SUFFIXES, ".html"]
    if suffix not in known:
        raise ValueError(f"expected a file name that ends in {', '.join(known)}; got {path.name}")
    if suffix in view.writers:
        view.writers[suffix](path)
    elif suffix in table_files.TABLE_WRITERS:
        table_files.TABLE_WRITERS[suffix](path, select_table(view, str(name)))
    elif suffix == ".html":
        atomic.write_text(path, notebook_html.stand_alone_html(view))
    else:
        selected = select_figure(view, name or 0)
        if suffix == ".svg" and isinstance(selected, Figure):
            atomic.write_text(path, selected.styled_svg + "\n")
        else:
            drawn = draw_with_matplotlib(selected) if isinstance(selected, Figure) else selected()
            with atomic.replacing(path) as temporary:
                drawn.savefig(temporary, format=suffix[1:], dpi=FIGURE_DPI)
    return path


def select_table(view: ResultView, name: str = "") -> ResultTable:
    """Return a table by name, by default the first one."""
    if name and name not in view.tables:
        raise ValueError(unknown_name_message("table", [name], list(view.tables)))
    if not view.tables:
        raise ValueError(f"{view.heading} has no table")
    return view.tables[name or next(iter(view.tables))]()


def select_figure(view: ResultView, figure: str | int = 0) -> Any:
    """Return an SVG figure, or a function that draws with matplotlib, by name or number."""
    by_name = dict(view.plots) | {drawn.name: drawn for drawn in view.figures()}
    if not by_name:
        raise ValueError(f"{view.heading} has nothing to draw; its tables are {', '.join(view.tables)}")
    if isinstance(figure, int):
        if not 0 <= figure < len(by_name):
            raise ValueError(f"expected a figure from 0 to {len(by_name) - 1} ({', '.join(by_name)}); got {figure}")
        return list(by_name.values())[figure]
    if figure not in by_name:
        raise ValueError(unknown_name_message("figure", [figure], list(by_name)))
    return by_name[figure]
