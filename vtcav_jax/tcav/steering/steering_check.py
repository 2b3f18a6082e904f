"""Steering check of findings: target clips are moved along the vectors of findings and along random directions."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from vtcav_jax.console import progress
from vtcav_jax.runs.tcav_rows import ScoreRow, SteeringRow
from vtcav_jax.tcav.experiment.comparisons import Comparison, fit_comparisons
from vtcav_jax.tcav.experiment.stage_grams import StageGrams
from vtcav_jax.tcav.experiment.verdicts import is_finding
from vtcav_jax.tcav.features import distributed
from vtcav_jax.tcav.features.cache import content_key
from vtcav_jax.tcav.steering.steer import steer

STEERING_STEPS = (-1.0, 1.0)  # in units of the distance from the negatives to the concept


def check_steering(stage_grams: StageGrams, rows: Sequence[ScoreRow]) -> list[SteeringRow]:
    """Return a row for each finding among `rows` and each of `STEERING_STEPS`.

    Results are cached; several processes divide the vectors among them.
    """
    comparisons = {comparison.name: comparison for comparison in stage_grams.plan.comparisons.entries}
    findings: dict[tuple[str, str], list[ScoreRow]] = {}
    for row in filter(is_finding, rows):
        findings.setdefault((row.stage, f"{row.concept}/{row.clip_type}/{row.negatives}"), []).append(row)
    local_findings = distributed.local_share(list(findings))
    for stage, name in progress(local_findings, len(local_findings), "vectors to steer along", size=lambda _: 1):
        _mean_changes(stage_grams, stage, comparisons[name])
    distributed.all_gather(None)
    out = []
    for (stage, name), finding_rows in findings.items():
        changes = _mean_changes(stage_grams, stage, comparisons[name])
        classes = [target.name for target in stage_grams.plan.clips.classes]
        for row in finding_rows:
            c = classes.index(row.target)
            unit_length = float(changes["units"][0])
            for e, step in enumerate(STEERING_STEPS):
                change, random = changes["change"][e, c], changes["controls"][:, e, c]
                low, high = np.quantile(random, [0.025, 0.975])
                p = (1 + int((np.abs(random) >= abs(change)).sum())) / (1 + len(random))
                out.append(
                    SteeringRow(
                        *(
                            row.target,
                            stage,
                            row.concept,
                            row.clip_type,
                            row.negatives,
                            step,
                            step * unit_length,
                            row.n_clips,
                        ),
                        *(float(change), row.derivative * step * unit_length, float(low), float(high), p),
                    )
                )
    return out


def _mean_changes(stage_grams: StageGrams, stage: str, comparison: Comparison) -> dict[str, np.ndarray]:
    """Return mean score changes over the target clips: `change` (step, class), `controls` (control, step, class)."""
    plan = stage_grams.plan
    s, seed = plan.config, [plan.config.seed, comparison.seed]
    rows = [target.rows for target in plan.clips.classes]
    classes = [asdict(target) for target in plan.clips.classes]
    vectors = [s.steering_controls, STEERING_STEPS, seed, s.score_fn, asdict(s.fit_config), asdict(comparison)]
    key = content_key("steering", stage_grams.gram_key(stage), classes, vectors)
    if not plan.store.has(key, ".npz"):
        clips, order = stage_grams.targets
        stage_gram = stage_grams.cached_gram(stage)
        count = len(stage_gram.kernel)
        used = np.isin(np.arange(count), comparison.examples).astype(float)[None]
        vectors = fit_comparisons(stage_gram.kernel, [comparison], s)
        result = steer(
            plan.network.model,
            clips,
            np.array([target.index for target in plan.clips.classes]),
            stage,
            stage_grams.examples(stage),
            stage_gram,
            used,
            vectors,
            STEERING_STEPS,
            n_controls=s.steering_controls,
            config=s.encode_config,
            seed=seed,
            runtime=stage_grams.runtime,
            unit_lengths=comparison.mean_difference(count)[None] @ stage_gram.kernel @ vectors.unit[0],
        )
        row_index = {row: i for i, row in enumerate(order)}
        target_positions = [[row_index[row] for row in class_rows] for class_rows in rows]
        change, controls = (
            np.stack([changes[..., c, positions].mean(-1) for c, positions in enumerate(target_positions)], -1)
            for changes in (result.score_change[0], result.control_changes[0])
        )
        plan.store.put_arrays(key, {"units": result.unit_lengths, "change": change, "controls": controls})
    return plan.store.get_arrays(key)
