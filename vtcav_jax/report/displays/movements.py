"""View of movements of people: their table, and the mean skeletons of each over time."""

from vtcav_jax.discovery.movements.movement_clusters import Movements
from vtcav_jax.names import count_noun
from vtcav_jax.report.displays.result_view import ResultTable, ResultView
from vtcav_jax.report.figures.skeletons import skeleton_figure
from vtcav_jax.report.figures.svg import Figure
from vtcav_jax.runs.movement_rows import MovementRow, MovementWindowRow

MOVEMENT_COLUMNS = ("movement", "concept_windows", "source_videos", "silhouette", "stability")


def view_movements(result: Movements) -> ResultView:
    return ResultView(
        heading=repr(result),
        notes=result.notes,
        tables={
            "movements": lambda: ResultTable.of_rows(MovementRow, result.rows),
            "movement_windows": lambda: ResultTable.of_rows(MovementWindowRow, result.windows),
        },
        columns=MOVEMENT_COLUMNS,
        figures=lambda: [movement_figure(row, result) for row in result.rows],
    )


def movement_figure(row: MovementRow, result: Movements) -> Figure:
    """Draw the mean skeletons of a movement; its name is that of the figure."""
    n = row.concept_windows or row.windows
    caption = f"mean of {count_noun(n, 'clip')} over time, relative to the hips"
    return skeleton_figure(row.movement, result.mean_paths[row.cluster], caption, mirrored=result.mirrored)
