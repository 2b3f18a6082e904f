"""Score class synthesis where the cause is known: do clips that maximise a direction move in it?

  python -m benchmarks.synthesis

For each shipped network, clips are made for every direction. A clip contains the cause if the next frame resembles the
clip moved by one pixel in the direction more than moved against it; other networks are asked for the direction, too.
Writes benchmarks/results/synthesis_BACKEND.jsonl and its table in docs/evaluation.md.
"""

import sys

import numpy as np
from absl import app, flags

from benchmarks import timing, write_tables
from vtcav_jax import tap
from vtcav_jax.adapters.factory import load
from vtcav_jax.attribution.synthesis import synthesise_clips
from vtcav_jax.stats.intervals import wilson_ci

_NETWORKS = flags.DEFINE_list("networks", ["worlds_swin", "worlds_cnn", "worlds_vit"], "networks of the world small")
_CLIPS = flags.DEFINE_integer("clips", 16, "clips per direction", lower_bound=2)

HEAD = "direction"
SHIFTS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}


def moves_along(frames: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """Return which clips `(n, t, h, w, 3)` resemble their next frames more if moved by `shift` than against it."""
    grey = frames.astype(float).mean(-1)

    def error(rows: int, columns: int) -> np.ndarray:
        return ((np.roll(grey[:, :-1], (rows, columns), (2, 3)) - grey[:, 1:]) ** 2).sum((1, 2, 3))

    return error(*shift) < error(-shift[0], -shift[1])


def main(argv: list[str]) -> None:
    del argv
    networks, results = {name: load(name) for name in _NETWORKS.value}, []
    for name, network in networks.items():
        hits: dict[str, list[np.ndarray]] = {"motion": []} | {other: [] for other in networks}
        frames = {
            label: synthesise_clips(network, f"{HEAD}:{label}", _CLIPS.value, seed=i).frames
            for i, label in enumerate(network.heads[HEAD])
        }
        for i, (label, clips) in enumerate(frames.items()):
            hits["motion"].append(moves_along(clips, SHIFTS[label]))
            for other, judge in networks.items():
                logits = np.asarray(tap.compute_logits(judge.model, judge.clip_spec.normalise(clips)))
                hits[other].append(logits[:, judge.head_slices[HEAD]].argmax(1) == i)
        for judge, parts in hits.items():
            low, high = wilson_ci(int(np.sum(parts)), np.size(parts))
            chance = 0.5 if judge == "motion" else 1 / len(frames)
            by_class = {label: round(float(part.mean()), 3) for label, part in zip(frames, parts)}
            share = round(float(np.mean(parts)), 3)
            results.append(
                {"network": name, "judge": judge, "share": share, "low": round(low, 3), "high": round(high, 3)}
                | {"chance": chance, "clips": int(np.size(parts)), "by_class": by_class}
            )
            print(results[-1], flush=True)
    path = timing.write_results("synthesis", results)
    print(f"wrote {path} and the tables of {write_tables.update_pages()}", file=sys.stderr)


if __name__ == "__main__":
    app.run(main)
