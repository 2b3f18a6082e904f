"""Whole runs on synthetic videos: concepts mined from boxes, tested for a class of direction and one of shape."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.statistics.results import Row, at_least, at_most, share_row
from benchmarks.statistics.size import Size
from vtcav_jax.runs.tables import read_rows
from vtcav_jax.runs.tcav_rows import SCORES_CSV, ScoreRow

NETWORK, STAGE = "worlds_swin", "layers.1"
CONCEPTS = "left=key@direction:left,right=key@direction:right,ring=key@shape:ring,bars=key@shape:bars"
TARGETS = "direction:left,shape:ring"
# Target, concept, clip type, and negatives or control of the findings that the known causes imply
PLANTED = (
    ("direction:left", "left", "dynamic", "random"),
    ("direction:left", "left", "dynamic", "frozen"),
    ("direction:left", "left", "dynamic", "shuffled"),
    ("direction:left", "left", "dynamic", "reversed"),
    ("shape:ring", "ring", "dynamic", "random"),
    ("shape:ring", "ring", "static", "random"),
)


def mined_concepts(size: Size) -> list[Row]:
    """Mine concepts with each seed, test them, and compare the findings with the known causes.

    False are findings about the motion of shapes for direction:left, and about the motion of directions for shape:ring;
    and about static clips of any concept for direction:left.
    """
    if not size.seeds:
        return []
    found, false, missed = [], [], []
    for seed in size.seeds:
        with tempfile.TemporaryDirectory() as folder:
            rows = [row for row in _run(Path(folder), seed) if row.stage == STAGE]
        supported = {_name(row) for row in rows if row.p_adjusted <= 0.05 and row.step_effect > 0}
        found.append([name in supported for name in PLANTED])
        missed += [" ".join(name) for name in PLANTED if name not in supported]
        false += [[row.p_adjusted <= 0.05] for row in rows if _is_false(row)]
    where, scenario = f"{NETWORK}, {STAGE}", f"concepts mined from boxes, {len(size.seeds)} seeds"
    note = f"missed: {', '.join(missed)}" if missed else ""
    return [
        share_row(scenario, "planted effects found, adjusted p ≤ .05", where, found, at_least(1), size.exact, note),
        share_row(scenario, "effects of other concepts, adjusted p ≤ .05", where, false, at_most(0), size.exact),
    ]


def _name(row: ScoreRow) -> tuple[str, str, str, str]:
    return row.target, row.concept, row.clip_type, row.negatives


def _is_false(row: ScoreRow) -> bool:
    if row.target == "direction:left":
        return row.concept in ("ring", "bars") or row.clip_type == "static"
    return row.concept in ("left", "right")


def _run(folder: Path, seed: int) -> Sequence[ScoreRow]:
    """Render, mine and test as a user would, and return the rows of the tests."""
    videos, concepts, run = (folder / name for name in ("videos", "concepts", "run"))
    _command("render_world", f"--videos=worlds:small:600:{seed}", f"--out={videos}")
    _command(
        "mine_concepts",
        f"--videos={videos / 'manifest.csv'}",
        f"--boxes={videos / 'boxes.csv'}",
        f"--model={NETWORK}",
        f"--concepts={CONCEPTS}",
        "--max_clips=25",
        "--max_clips_per_video=1",
        "--num_random_sets=5",
        f"--out={concepts}",
    )
    _command(
        "tcav",
        f"--model={NETWORK}",
        f"--targets={TARGETS}",
        f"--target_videos=worlds:small:160:{seed + 1000}",
        "--max_target_clips=30",
        f"--concept_dir={concepts}",
        "--stages=layers.0,layers.1",
        "--comparisons=absolute,motion",
        f"--run={run}",
    )
    return read_rows(run / SCORES_CSV, ScoreRow)


def _command(task: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "vtcav_jax", f"--task={task}", *arguments, "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
