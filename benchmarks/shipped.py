"""The page docs/shipped.md: what the networks that ship answer, by what, and how other seeds of the training fare.

  python -m benchmarks.shipped --runs=runs/seed_0,runs/seed_1,runs/seed_2

`--runs` are what flagfiles/train_worlds.flags wrote with other seeds.
"""

import csv
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from absl import app, flags

from benchmarks import tables
from vtcav_jax import models, worlds

_RUNS = flags.DEFINE_list("runs", [], "folders of trainings by flagfiles/train_worlds.flags with several seeds")
_CLIPS = flags.DEFINE_integer("gate_clips", 1000, "clips that the gates are measured on", lower_bound=2)

SEED = 2  # of clips that no training and no check of a training has seen
ABOUT = """# The networks that ship

Written by `python -m benchmarks.shipped`. `worlds_swin` is trained by `flagfiles/train_worlds.flags`, `worlds_cnn` by
`flagfiles/train_worlds_cnn.flags`; both answer four questions about the same clips, each by a head of its own. The
*gates* show that each head goes by what it was meant to go by: drawn again, a head's own factor must change its answer
(at most 3 % unchanged), and any other must not (at least 97 % unchanged).
"""


def main(argv: list[str]) -> None:
    del argv
    parts = [ABOUT]
    for name in ("worlds_swin", "worlds_cnn"):
        loaded = models.load(name)
        geometry = models.PRESETS[loaded.preset].geometry
        found = worlds.gates(
            loaded.model,
            n=_CLIPS.value,
            seed=SEED,
            prepare=lambda video, g=geometry: np.asarray(g.normalised(np.rint(255 * video).astype(np.uint8))),
        )
        found.check()
        parts.append(f"## {name}\n\n```\n{found.table()}\n```\n")
    if _RUNS.value:
        parts.append(f"## Seeds of the training\n\nAccuracy on clips of their own.\n\n{seeds(_RUNS.value)}\n")
    page = tables.ROOT / "docs" / "shipped.md"
    page.write_text("\n".join(parts), encoding="utf-8")
    print(f"wrote {page}")


def seeds(runs: list[str]) -> str:
    head, rows = ["seed"], []
    for run in map(Path, runs):
        asked = json.loads((run / "run.json").read_text())["asked"]
        with (run / "accuracy.csv").open(newline="") as file:
            found = list(csv.DictReader(file))
        head = ["seed", "clips", *(row["head"] for row in found)]
        cells = [f"{float(r['accuracy']):.4f} ({float(r['low']):.4f} to {float(r['high']):.4f})" for r in found]
        rows.append([asked["seed"], found[0]["n"], *cells])
    return tables.markdown(head, rows)


if __name__ == "__main__":
    app.run(main)
