"""Relevance of direction and shape through the concepts of direction and shape, on a synthetic world.

A concept vector is the difference between the mean activations of clips with and without a value of a factor. Of each
clip, the vectors of its own direction and shape are used. The glyph that has both covers 5 % of the pixels.

python -m benchmarks.conditional_relevance

Writes benchmarks/results/conditional_relevance_BACKEND.jsonl and its table in docs/guides/channels-and-concepts.md.
"""

import sys

import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jaxtyping import Float

import vtcav_jax as vtcav
from benchmarks import timing, write_tables
from benchmarks.publish_evaluation import round_value
from vtcav_jax import tap
from vtcav_jax.attribution.conditional.relevance import propagate, rules_of, stage_relevance
from vtcav_jax.attribution.score_model import prepare_explanation
from vtcav_jax.attribution.target_spec import parse_targets
from vtcav_jax.stats.intervals import mean_ci, ratio_ci

CLIPS = flags.DEFINE_integer("clips", 100, "clips that are explained", lower_bound=2)
STAGES = {"worlds_cnn": ("convs.1", "convs.2"), "worlds_swin": ("layers.0", "layers.1")}
FACTORS, METHOD, FIT_CLIPS, BATCH = ("direction", "shape"), "attn_lrp", 400, 20
FIT_SEED, SEED = 111, 112


def concept_vectors(network: vtcav.Network, stage: str) -> dict[str, Float[np.ndarray, "values c"]]:
    """Return a vector of length 1 for each value of each factor."""
    clips = vtcav.worlds.make_clips("small", n=FIT_CLIPS, seed=FIT_SEED)
    frames = (clips.frames[i : i + BATCH] for i in range(0, FIT_CLIPS, BATCH))
    values = (
        tap.activations(network.model, network.clip_spec.normalise(jnp.asarray(x)), stage)[1][stage] for x in frames
    )
    means = np.concatenate([np.asarray(value.mean((1, 2, 3))) for value in values])
    out = {}
    for factor in FACTORS:
        has = [clips.factors[factor] == i for i in range(4)]
        vectors = np.stack([means[where].mean(0) - means[~where].mean(0) for where in has])
        out[factor] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return out


def measure_shares(name: str, stage: str) -> list[dict]:
    """Return one row for each pair of a target and a concept."""
    network = vtcav.load(name)
    vectors = concept_vectors(network, stage)
    clips = vtcav.worlds.make_clips("small", n=CLIPS.value, seed=SEED)
    units = [str(i) for i in clips.index]
    rows = []
    for spec in parse_targets(network, FACTORS):
        totals, parts, on_glyph = [], {factor: [] for factor in FACTORS}, {factor: [] for factor in FACTORS}
        for i in range(0, len(clips), BATCH):
            batch = clips[i : i + BATCH]
            video = network.clip_spec.normalise(jnp.asarray(batch.frames))
            target = spec.target(np.asarray(tap.compute_logits(network.model, video)))
            score_model = prepare_explanation(network.model, video, target).score_model
            _, value, coefficient = stage_relevance(score_model, video, stage, rules_of(METHOD))
            totals.append(np.asarray((value * coefficient).sum((1, 2, 3, 4))))
            for factor in FACTORS:
                results = [
                    propagate(score_model, video, jnp.asarray(v), stage, "video", rules_of(METHOD))
                    for v in vectors[factor]
                ]
                index = batch.factors[factor], np.arange(len(batch))
                maps = np.abs(np.stack([np.asarray(values) for values, _ in results])[index])
                parts[factor].append(np.stack([np.asarray(at_stage).sum((1, 2, 3)) for _, at_stage in results])[index])
                on_glyph[factor].append((maps * batch.masks["key_box"]).sum((1, 2, 3)) / maps.sum((1, 2, 3)))
        for factor in FACTORS:
            share = ratio_ci(np.concatenate(parts[factor]), np.concatenate(totals), units=units)
            place = mean_ci(np.concatenate(on_glyph[factor]), units=units)
            row: dict[str, object] = {"network": name, "stage": stage, "target": spec.name, "concept": factor}
            for measure, interval in (("share", share), ("on_glyph", place)):
                row |= dict(zip((measure, f"{measure}_low", f"{measure}_high"), map(round_value, interval)))
            rows.append(row)
    return rows


def main(_: list[str]) -> None:
    results = [row for name, stages in STAGES.items() for stage in stages for row in measure_shares(name, stage)]
    path = timing.write_results("conditional_relevance", results)
    print(f"wrote {path} and the tables of {write_tables.update_pages()}", file=sys.stderr)


if __name__ == "__main__":
    app.run(main)
