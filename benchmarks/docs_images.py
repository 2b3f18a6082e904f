"""Write the pictures of README and docs into docs/images: `python -m benchmarks.docs_images`.

The figures of Video-TCAV and the picture of the interactive page (with playwright and Chromium) come from a run of
`vtcav quickstart`, the maps from the shipped network, and the chart of speed from benchmarks/results.
"""

import io
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import vtcav_jax as vtcav
from benchmarks.write_tables import RESULTS, ROOT
from tests.serve.serve_process import ServeProcess
from tests.support.planted_movements import SPAN, planted_videos
from vtcav_jax.concepts.config import OptionalMiningConfig
from vtcav_jax.discovery.movements.config import MovementConfig
from vtcav_jax.discovery.movements.movement_clusters import find_movements
from vtcav_jax.discovery.movements.pose_windows import find_windows

IMAGES = ROOT / "docs" / "images"
QUICKSTART_FIGURES = {
    "depth_direction_left_left.svg": "left.svg",
    "depth_direction_left_right.svg": "right.svg",
    "depth_shape_ring_left.svg": "shape.svg",
}
MAP_SEED = 46  # of two clips whose key glyph stays within the frame


def write_maps() -> None:
    """Write two clips with the maps of two methods, as the tutorial makes them."""
    network = vtcav.load("worlds_swin")
    clips = vtcav.worlds.make_clips("small", n=2, seed=MAP_SEED)
    lrp = vtcav.attribute(network, clips.frames, target="direction", method="attn_lrp")
    cam = vtcav.attribute(network, clips.frames, target="direction", method="hirescam", stage="layers.0")
    vtcav.save_animation(IMAGES / "maps.webp", clips.frames, lrp, cam)


def write_tcav_figures() -> None:
    """Copy figures from the report page of a quickstart run."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "vtcav_jax", "quickstart", f"--run={folder}/quickstart"], check=True)
        figures = Path(folder) / "quickstart" / "tcav" / "report" / "figures"
        for source, name in QUICKSTART_FIGURES.items():
            shutil.copy(figures / source, IMAGES / name)
        run = Path(folder) / "quickstart" / "tcav"
        maps = ["--videos=worlds:small:160:5", "--targets=direction:left,shape:ring", "--methods=attn_lrp,gradcam"]
        command = ["attribute", "--model=worlds_swin", *maps, "--animations=none", f"--run={run}"]
        subprocess.run([sys.executable, "-m", "vtcav_jax", *command], check=True)
        write_serve_screenshot(run)


def write_movement_figure() -> None:
    """Draw the mean skeletons of a planted movement, as the review page of mined movements has them."""
    scans, _ = planted_videos(8, 0)
    config, movement_config = OptionalMiningConfig(clip_frames=SPAN), MovementConfig(num_movements=7)
    windows, counts = find_windows(scans, config, movement_config)
    movements = find_movements(scans, windows, counts, config, movement_config)
    movements.save(IMAGES / "movement_right_wrist_up.svg", "right wrist up")


def write_serve_screenshot(run: Path) -> None:
    """Write a picture of the interactive page of a run, with maps and after a step along the concept."""
    from PIL import Image
    from playwright.sync_api import sync_playwright  # pyright: ignore[reportMissingImports] (not in the test environment)

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with ServeProcess(f"--run={run}", "--port=0") as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 980})
        page.goto(server.address)
        page.wait_for_selector("body[data-map-ms], body[data-curves]")
        page.fill("#step", "-2")
        page.click("#steer-all")
        page.fill("#frame", "3")
        page.wait_for_selector("#answers-bars .number:has-text('→')")
        page.wait_for_selector("#steering:not([aria-busy])")
        page.wait_for_timeout(1000)
        picture = Image.open(io.BytesIO(page.screenshot()))
        browser.close()
    picture.convert("RGB").save(IMAGES / "serve.webp", quality=80, method=6)


def speed_ratios() -> list[tuple[str, float]]:
    """Return what was compared, and how many times faster ours was in the same run."""

    def row(benchmark: str, **fields: Any) -> dict[str, Any]:
        lines = (RESULTS / f"{benchmark}_cpu.jsonl").read_text(encoding="utf-8").splitlines()
        (match,) = (
            entry for entry in map(json.loads, lines) if all(entry.get(key) == value for key, value in fields.items())
        )
        return match

    swin = {"preset": "video_swin_t_k400"}
    tcav = {"part": "experiment", "what": "1 concept, 20 random sets, 3 stages", "who": "captum 0.9.0"}
    return [
        ("465 concept vectors / scikit-learn", row("tcav", what="scikit-learn, lbfgs")["times_ours"]),
        ("decoding 720p video / decoding all frames", _decode_ratio(row)),
        ("TCAV, 352 clips, Swin-T / captum", row("tcav", **tcav)["times_ours"]),
        ("Grad-CAM, CNN / pytorch-grad-cam", row("attribution", what="Grad-CAM")["ratio"]),
        ("LRP epsilon, CNN / zennit", row("attribution", what="LRP, epsilon")["ratio"]),
        ("forward pass, Swin-T / torchvision", row("forward", **swin, clip=[32, 224, 224])["torch_ratio"]),
        ("gradients at every stage, Swin-T / torch", row("gradients", **swin, what="every stage")["torch_ratio"]),
        ("forward pass, MViT v2-S / torchvision", row("forward", preset="mvit_v2_s")["torch_ratio"]),
        ("forward pass, R3D-18 / torchvision", row("forward", preset="r3d_18")["torch_ratio"]),
        ("forward pass, tiny Swin / torchvision", row("forward", preset="video_swin_tiny")["torch_ratio"]),
        ("integrated gradients, CNN / captum", row("attribution", what="integrated gradients, 16 nodes")["ratio"]),
    ]


def _decode_ratio(row: Any) -> float:
    return row("decode", video="1280 x 720", reader="ours, 2 workers")["times_all_frames"]


def write_speed_chart() -> None:
    """Draw the ratios as bars on a logarithmic scale."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams |= {"svg.hashsalt": "vtcav", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 11}
    names, ratios = zip(*sorted(speed_ratios(), key=lambda pair: pair[1]))
    figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
    bars = axes.barh(names, [ratio - 1 for ratio in ratios], left=1, height=0.65)
    for bar, ratio in zip(bars, ratios):
        bar.set_color("#3b7dd8" if ratio >= 1 else "#c65102")
        place = (max(ratio, 1), bar.get_y() + bar.get_height() / 2)
        axes.annotate(f"{ratio:.3g}×", place, (5, 0), textcoords="offset points", va="center")
    axes.set_xscale("log")
    axes.set_xlim(0.7, 300)
    axes.set_xticks([1, 2, 5, 10, 100], ["1×", "2×", "5×", "10×", "100×"])
    axes.minorticks_off()
    axes.axvline(1, color="0.4", linewidth=1)
    axes.set_xlabel("speed relative to the other implementation, in the same run on 2 CPU cores", loc="right")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    figure.savefig(IMAGES / "speed.svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    write_speed_chart()
    write_maps()
    write_movement_figure()
    write_tcav_figures()
