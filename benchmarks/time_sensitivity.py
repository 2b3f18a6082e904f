"""Measure how much each stage of the shipped networks depends on time, and of one with shuffled weights.

  python -m benchmarks.time_sensitivity

Writes benchmarks/results/time_sensitivity_BACKEND.jsonl and its table in docs/guides/motion.md.
"""

import sys
from dataclasses import replace

import numpy as np
from absl import app, flags

from benchmarks import timing, write_tables
from benchmarks.publish_evaluation import round_value
from vtcav_jax.adapters.factory import load
from vtcav_jax.attribution.motion.time_sensitivity import sensitivity_rows, time_sensitivity
from vtcav_jax.attribution.sanity_checks import shuffle_parameters
from vtcav_jax.worlds import make_clips

_CLIPS = flags.DEFINE_integer("clips", 64, "clips, each of a video of its own", lower_bound=2)

NETWORKS = ("worlds_swin", "worlds_cnn", "worlds_vit")
HEADS = ("direction", "shape")
SEED = 7


def main(argv: list[str]) -> None:
    del argv
    clips = make_clips("small", n=_CLIPS.value, seed=SEED).frames
    results = []
    for name in NETWORKS:
        trained = load(name)
        untrained = replace(trained, model=shuffle_parameters(trained.model, SEED))
        for weights, network in (("trained", trained), ("shuffled", untrained)):
            rows = sensitivity_rows(time_sensitivity(network, np.asarray(clips), HEADS), max_channels=1)
            stages = [row for row in rows if row.channel < 0 and not row.answer]
            results += [
                {"network": name, "weights": weights} | {key: round_value(value) for key, value in vars(row).items()}
                for row in stages
            ]
    path = timing.write_results("time_sensitivity", results)
    print(f"wrote {path} and the tables of {write_tables.update_pages()}", file=sys.stderr)


if __name__ == "__main__":
    app.run(main)
