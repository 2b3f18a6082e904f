"""Writes docs/shipped.md: the gates of the networks that ship, and the accuracy of trainings with other seeds.

  python -m benchmarks.shipped_page --runs=runs/seed_0,runs/seed_1,runs/seed_2

`--runs` are runs of flagfiles/recipes/train_worlds.flags with different seeds.
"""

import csv
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from absl import app, flags

from benchmarks import tables, write_tables
from vtcav_jax import models, worlds

_RUNS = flags.DEFINE_list("runs", [], "folders of trainings by flagfiles/recipes/train_worlds.flags with several seeds")
_NETWORKS = flags.DEFINE_list("networks", [], "those whose gates are measured; all that ship if there is none")
_CLIPS = flags.DEFINE_integer("gate_clips", 1000, "clips that the gates are measured on", lower_bound=2)

SEED = 3  # of clips that no training and no check of a training has seen
SEEDS = "Seeds of the training"
ABOUT = """# The networks that ship

`python -m benchmarks.shipped_page` writes this page. `worlds_swin` is trained by
`flagfiles/recipes/train_worlds.flags`, and `worlds_cnn` by `flagfiles/recipes/train_worlds_cnn.flags`; both answer four
questions about the same clips, each with a classification head of its own. The other recipes are in the same folder:

- `worlds_shortcut_swin` and `worlds_shortcut_cnn` (`train_worlds_shortcut.flags`, `train_worlds_shortcut_cnn.flags`)
  are asked for the direction, but rely on the colour of a corner that is correlated with it. Where it is not, they are
  right in one clip of four.
- `worlds_events_swin` and `worlds_events_cnn` (the order of two flashes, and questions with two causes each) are
  trained in three steps: `train_worlds_events.flags` or `train_worlds_events_cnn.flags`, then the recipes of the same
  name that end in `_further` and `_last`.
- `worlds_dots_swin` and `worlds_dots_cnn` (a form that only moving dots show) are trained in two steps:
  `train_worlds_dots.flags` or `train_worlds_dots_cnn.flags`, then the recipe that ends in `_further`.

The comments in each flagfile say what the training needs. The *gates* below show that each head relies on its cause:
when a factor is drawn again, the head's answer must change where the answer of the cause changes (at most 3 %
unchanged), and must stay where that stays (at least 97 % unchanged).
"""


def main(argv: list[str]) -> None:
    del argv
    page = write_tables.ROOT / "docs" / "shipped.md"
    parts = parse_sections(page.read_text(encoding="utf-8"))  # what is not measured now stays as it was measured
    bundles = models.shipped_networks()
    for name in _NETWORKS.value or bundles:
        network, trained_on = models.load(name), models.read_metadata(bundles[name])["source"]["videos"]
        clip_spec = network.clip_spec
        measured_gates = worlds.measure_gates(
            network.model,
            trained_on.split(":")[1],
            n_clips=_CLIPS.value,
            seed=SEED,
            prepare=lambda video, g=clip_spec: np.asarray(g.normalise(np.rint(255 * video).astype(np.uint8))),
        )
        measured_gates.check()
        parts[name] = f"```\n{measured_gates.table()}\n```\n"
    if _RUNS.value:
        parts[SEEDS] = (
            f"Accuracy of `worlds_swin`, trained with several seeds, on held-out clips.\n\n{seed_table(_RUNS.value)}\n"
        )
    order = [*sorted(bundles, key=lambda name: (name.count("_"), name)), SEEDS]
    chapters = [f"## {title}\n\n{parts[title]}" for title in order if title in parts]
    page.write_text("\n".join([ABOUT, *chapters]), encoding="utf-8")
    print(f"wrote {page}")


def parse_sections(page: str) -> dict[str, str]:
    """By title."""
    chapters = (part.split("\n\n", 1) for part in page.split("\n## ")[1:])
    return {title: text.rstrip("\n") + "\n" for title, text in chapters}


def seed_table(runs: list[str]) -> str:
    head, rows = ["seed"], []
    for run in map(Path, runs):
        config = json.loads((run / "run.json").read_text())["request"]
        with (run / "accuracy.csv").open(newline="") as file:
            accuracy_rows = list(csv.DictReader(file))
        head = ["seed", "clips", *(row["head"] for row in accuracy_rows)]
        cells = [f"{float(r['accuracy']):.4f} ({float(r['low']):.4f} to {float(r['high']):.4f})" for r in accuracy_rows]
        rows.append([config["seed"], accuracy_rows[0]["n_clips"], *cells])
    return tables.markdown(head, rows)


if __name__ == "__main__":
    app.run(main)
