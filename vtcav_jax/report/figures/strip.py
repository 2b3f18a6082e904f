"""Frame strips for papers: frames of a clip in the first row, and each map over the same frames below."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from vtcav_jax import atomic
from vtcav_jax.names import safe_filename
from vtcav_jax.report.animation.lettering import FONT_SIZE, wrap
from vtcav_jax.report.animation.overlay import Panel, blend_map
from vtcav_jax.report.colormaps import color_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STRIP_FORMATS = ("svg", "pdf", "png")
FRAME_INCHES, LABEL_INCHES, SCALE_INCHES = 1.1, 1.2, 0.75
LABEL_POINTS = 7  # size of letters
LABEL_PIXELS = int(LABEL_INCHES * 72 * FONT_SIZE / LABEL_POINTS)  # of the letters that `wrap` measures
DPI = 300
ENLARGED_SIDE = 256  # pixels of a frame whose map is blended, so that maps are smooth


def draw_strip(
    frames: UInt8[np.ndarray, "t h w 3"],
    times: Float[np.ndarray, " t"],
    panels: Sequence[Panel],
    *,
    n_frames: int = 6,
) -> "Figure":
    """Return evenly spaced frames with their times, and below them each map with its colour scale."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    numbers = np.unique(np.linspace(0, len(frames) - 1, min(n_frames, len(frames))).round().astype(int))
    enlargement = max(1, -(-ENLARGED_SIDE // frames.shape[2]))
    large = frames.repeat(enlargement, 1).repeat(enlargement, 2)
    grey = large.astype(np.float32).mean(-1, keepdims=True)
    rows = [frames[numbers], *(blend_map(grey, panel)[numbers] for panel in panels)]
    widths = [LABEL_INCHES, *[FRAME_INCHES] * len(numbers), SCALE_INCHES]
    aspect = frames.shape[1] / frames.shape[2]
    figure = Figure((sum(widths), 0.25 + FRAME_INCHES * aspect * len(rows)), dpi=DPI)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0))
    axes = figure.subplots(len(rows), len(widths), squeeze=False, width_ratios=widths)
    for i, row in enumerate(rows):
        title = "clip" if i == 0 else "\n".join(wrap(panels[i - 1].title.replace(" @", "\nat "), LABEL_PIXELS))
        axes[i, 0].text(1.0, 0.5, title, ha="right", va="center", fontsize=LABEL_POINTS, parse_math=False)
        for j, picture in enumerate(row):
            axes[i, j + 1].imshow(picture, interpolation="nearest" if i == 0 else "antialiased")
            if i == 0:
                axes[i, j + 1].set_title(f"{times[numbers[j]]:.2f} s", fontsize=7, pad=2)
        for axis in axes[i]:
            axis.set_axis_off()
        if i:
            panel = panels[i - 1]
            limit = panel.scale_limit or 1.0
            norm = Normalize(-limit if panel.signed else 0.0, limit)
            colours = ListedColormap(color_table(signed=panel.signed) / 255)
            place = axes[i, -1].inset_axes((0.08, 0.08, 0.14, 0.84))
            bar = figure.colorbar(ScalarMappable(norm, colours), cax=place)
            bar.ax.tick_params(labelsize=6, length=2)
            bar.set_ticks([norm.vmin or 0.0, norm.vmax or 1.0], labels=[f"{norm.vmin:.2g}", f"{norm.vmax:.2g}"])
    return figure


def write_strip(figure: "Figure", folder: Path, name: str, caption: str, bibtex: str) -> list[Path]:
    """Write the strip in all formats, with a caption and the entries to cite; return the paths."""
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    stem = safe_filename(name)
    paths = []
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
    with mpl.rc_context({"svg.hashsalt": "vtcav", "svg.fonttype": "none", "pdf.fonttype": 42}):
        for suffix in STRIP_FORMATS:
            path = folder / f"{stem}.{suffix}"
            with atomic.replacing(path) as temporary:
                figure.savefig(temporary, format=suffix, metadata=metadata[suffix])
            paths.append(path)
    for suffix, text in (("txt", caption), ("bib", bibtex)):
        path = folder / f"{stem}.{suffix}"
        atomic.write_text(path, text.rstrip() + "\n")
        paths.append(path)
    return paths
