"""Write docs/shipped.md: the gates of the shipped networks, and the accuracy of trainings with other seeds.

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

_RUNS = flags.DEFINE_list("runs", [], "run folders of flagfiles/recipes/train_worlds.flags with several seeds")
_NETWORKS = flags.DEFINE_list("networks", [], "networks whose gates are measured; empty: all shipped networks")
_CLIPS = flags.DEFINE_integer("gate_clips", 1000, "number of clips for measuring gates", lower_bound=2)

SEED = 3  # differs from the seeds of clips in training and validation
SEEDS = "Training seeds"
ABOUT = """# Shipped networks

`python -m benchmarks.shipped_page` writes this page. All shipped networks are trained on clips of *synthetic worlds*,
in which labelled *factors* (shape, direction, ...) are drawn independently, except in the shortcut world below. A
network has one classification head for each *question*: a factor, or a combination of factors, that it classifies.

- `worlds_swin`, `worlds_cnn` and `worlds_vit` answer four questions about the same clips. Recipes:
  `train_worlds.flags`, `train_worlds_cnn.flags` and `train_worlds_vit.flags`, in `flagfiles/recipes/` like those below.
- `worlds_shortcut_swin` and `worlds_shortcut_cnn` (`train_worlds_shortcut.flags`, `train_worlds_shortcut_cnn.flags`)
  classify the direction, but rely on the colour of a corner that is correlated with it. Where it is not, they are
  right in one clip of four, which is chance.
- `worlds_events_swin` and `worlds_events_cnn` classify the order of two flashes, and answer questions with two causes.
  They are trained in three steps: `train_worlds_events.flags` or `train_worlds_events_cnn.flags`, then the recipes of
  the same name that end in `_further` and `_last`.
- `worlds_dots_swin` and `worlds_dots_cnn` classify a form that is visible only through the motion of dots. They are
  trained in two steps: `train_worlds_dots.flags` or `train_worlds_dots_cnn.flags`, then the recipe that ends in
  `_further`.

The comments in each flagfile list the resources that training needs.

The *gates* below verify that each head relies on its cause. A factor is redrawn in each clip, and the tables list the
share of clips whose prediction stays the same: at most 3 % where the correct answer changes, and at least 97 % where it
does not. *Stable clips* are those whose prediction changes in none of the latter tests. The other rows list the share
of unchanged predictions when frames are reversed, shuffled or frozen, and the loss of margin when an object is removed.
The *margin* is the logit of the correct class minus the largest other logit of the head.
"""


def main(argv: list[str]) -> None:
    del argv
    page = write_tables.ROOT / "docs" / "shipped.md"
    parts = parse_sections(page.read_text(encoding="utf-8"))  # sections that are not measured now are kept
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
            f"Accuracy of `worlds_swin` on held-out clips, trained with different seeds. 95 % CI over clips of one"
            " trained network, each a source video.\n\n"
            f"{seed_table(_RUNS.value)}\n"
        )
    order = [*sorted(bundles, key=lambda name: (name.count("_"), name)), SEEDS]
    chapters = [f"## {title}\n\n{parts[title]}" for title in order if title in parts]
    page.write_text("\n".join([ABOUT, *chapters]), encoding="utf-8")
    print(f"wrote {page}")


def parse_sections(page: str) -> dict[str, str]:
    """Return the sections of the page by title."""
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
