"""Is what was found true of the network? Targets are moved along the vectors of findings, and along random ones."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from vtcav_jax.console import progress
from vtcav_jax.tcav.experiment.comparisons import Question
from vtcav_jax.tcav.experiment.stage_grams import Products
from vtcav_jax.tcav.experiment.verdicts import Row, found
from vtcav_jax.tcav.features import distributed
from vtcav_jax.tcav.features.cache import key_of
from vtcav_jax.tcav.stats.vectors import fit
from vtcav_jax.tcav.steering.steer import steer

STEPS = (-1.0, 1.0)  # in the way from the negatives to the concept


@dataclass(frozen=True)
class Steered:
    """Where a class score goes on average when its targets are moved at the stage by `step` times the way from the mean
    of the negatives to that of the concept, `length` in all. `expected` is that by the derivative; `random_low` to
    `random_high` is where the middle 95 % of moves of the same length in random directions lead, and `p` says how often
    one of those leads as far from 0, or further.
    """

    target: str
    stage: str
    concept: str
    kind: str
    against: str
    step: float
    length: float
    n_targets: int
    change: float
    expected: float
    random_low: float
    random_high: float
    p: float


def steered_rows(products: Products, rows: Sequence[Row]) -> list[Steered]:
    """For each finding among `rows`, a row for each of `STEPS`; a table without rows says that nothing was found.

    What was moved once is kept. Processes share the vectors.
    """
    asked = {question.name: question for question in products.plan.asked.questions}
    findings: dict[tuple[str, str], list[Row]] = {}
    for row in filter(found, rows):
        findings.setdefault((row.stage, f"{row.concept}/{row.kind}/{row.against}"), []).append(row)
    own = distributed.share(list(findings))
    for stage, name in progress(own, len(own), "vectors to steer along", size=lambda _: 1):
        _moved(products, stage, asked[name])
    distributed.gathered(None)
    out = []
    for (stage, name), some in findings.items():
        at = _moved(products, stage, asked[name])
        classes = [target.name for target in products.plan.looked.classes]
        for row in some:
            c = classes.index(row.target)
            length = float(at["units"][0])
            for e, step in enumerate(STEPS):
                change, random = at["change"][e, c], at["controls"][:, e, c]
                low, high = np.quantile(random, [0.025, 0.975])
                p = (1 + int((np.abs(random) >= abs(change)).sum())) / (1 + len(random))
                out.append(
                    Steered(
                        *(row.target, stage, row.concept, row.kind, row.against, step, step * length, row.n_targets),
                        *(float(change), row.derivative * step * length, float(low), float(high), p),
                    )
                )
    return out


def _moved(products: Products, stage: str, question: Question) -> dict[str, np.ndarray]:
    """Mean changes of classes' scores over their targets: `change` (step, class), `controls` (control, step, class)."""
    plan = products.plan
    s, seed = plan.settings, [plan.settings.seed, question.seed]
    rows = [target.rows for target in plan.looked.classes]
    classes = [asdict(target) for target in plan.looked.classes]
    vectors = [s.steering, STEPS, seed, s.target_fn, asdict(s.training), asdict(question)]
    key = key_of("steering", products.key(stage), classes, vectors)
    if not plan.store.has(key, ".npz"):
        clips, order = products.targets
        whole = products.there(stage)
        signed = question.signed(len(whole.kernel))[None]
        done = steer(
            plan.loaded.model,
            clips,
            np.array([target.index for target in plan.looked.classes]),
            stage,
            products.examples(stage),
            whole,
            signed,
            fit(whole.kernel, signed, s.training),
            STEPS,
            controls=s.steering,
            reading=s.reading,
            seed=seed,
            mesh=products.mesh,
            work=products.work,
        )
        place = {row: i for i, row in enumerate(order)}
        at = [[place[row] for row in some] for some in rows]
        change, controls = (
            np.stack([each[..., c, some].mean(-1) for c, some in enumerate(at)], -1)
            for each in (done.change[0], done.controls[0])
        )
        plan.store.put_arrays(key, {"units": done.units, "change": change, "controls": controls})
    return plan.store.get_arrays(key)
