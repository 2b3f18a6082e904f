"""Every number about one stage, out of its products alone: only finite steps need clips and the network again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from vtcav_jax.console import progress
from vtcav_jax.tcav.experiment.comparisons import Question
from vtcav_jax.tcav.experiment.config import CHECKED
from vtcav_jax.tcav.experiment.plan import Plan
from vtcav_jax.tcav.experiment.stage_comparison import REACHED, AtStage, chosen, narrowed, reduced, used_by, widened
from vtcav_jax.tcav.experiment.verdicts import NAN, Clip, Row, VectorRow
from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.stats.bootstrap import Intervals, Source
from vtcav_jax.tcav.stats.permutation_test import Along, Test, label_tests
from vtcav_jax.tcav.stats.scores import Stage, scores_of, stage
from vtcav_jax.tcav.stats.vector_validation import Quality, quality
from vtcav_jax.tcav.stats.vectors import Training, Vectors, cosines, fit, labels

SHUFFLED = 99  # labels, to see what area under the curve comes by chance


@dataclass(frozen=True)
class Measured:
    """Of one stage. `checked` are the self-check's p-values by kind: of the random sets, and of sets drawn."""

    rows: list[Row]
    vectors: list[VectorRow]
    clips: list[Clip]
    checked: dict[str, dict[str, list[float]]]


def split(whole: Gram, plan: Plan) -> list[Gram]:
    """A Gram for each class, out of one whose gradients are those of all classes, one after the other."""
    parts, start = [], 0
    for target in plan.looked.classes:
        rows = slice(start, start + len(target.rows))
        parts.append(Gram(whole.kernel, whole.products[:, rows], whole.gradients[:, rows, rows]))
        start = rows.stop
    return parts


def measure(
    plan: Plan, name: str, whole: Gram, class_scores: Sequence[np.ndarray], along: Along | None = None
) -> Measured:
    """`class_scores` are those of each class's targets; `along` gives derivatives where they are not gradients'."""
    grams, s = split(whole, plan), plan.settings
    kernel, count = whole.kernel, len(whole.kernel)
    states = [stage(gram) for gram in grams]
    questions, videos = plan.asked.questions, plan.looked.videos
    vectors = fit(kernel, np.stack([q.signed(count) for q in questions]), s.training)
    rows, details, clips = [], [], []
    for i, question in enumerate(progress(questions, len(questions), f"tests at {name}", size=lambda _: 1)):
        used = list(used_by(question))
        own, (parts, question) = pick(vectors, i), narrowed(grams, question)
        own = replace(own, a=own.a[:, used])
        asked = AtStage(question, parts, own, s, None if along is None else widened(along, used, count))
        found, apart = _quality(asked, videos[used])
        tests, here = asked.tests(), asked.derivatives(own.unit, asked.signed[None])
        details.append(_vector_row(name, asked, found, apart, tests))
        for target, gram, state, test, slopes, interval, single, logits in zip(
            plan.looked.classes, grams, states, tests, here, asked.intervals(here), asked.single_sets(), class_scores
        ):
            lengths = gram.lengths
            rows.append(_row(target.name, name, asked, lengths, state, test, found, slopes, interval, single))
            names = [plan.looked.targets.names[row] for row in target.rows]
            clips += [
                Clip(target.name, name, question.concept, question.kind, question.against, *values)
                for values in zip(names, map(float, logits), map(float, slopes[0, :, 0]), map(float, lengths[0]))
            ]
    return Measured(rows, _entangled(details, questions, vectors, kernel), clips, self_checked(grams, plan, along))


def pick(vectors: Vectors, i: int) -> Vectors:
    rows = slice(i, i + 1)
    parts = {
        name: getattr(vectors, name)[rows]
        for name in ("a", "intercept", "norm", "lam", "residual", "iterations", "converged")
    }
    return replace(vectors, **parts)


def _quality(asked: AtStage, videos: np.ndarray) -> tuple[Quality, int]:
    """And out of how many videos the clips of the side with fewer are: with one, folds cannot hold videos apart."""
    s, signed = asked.settings, asked.signed
    apart = min(len(np.unique(videos[sign * signed > 0])) for sign in (1, -1))
    found = quality(
        asked.grams[0].kernel,
        signed,
        replace(s.training, tolerance=1e-3),
        permutations=SHUFFLED,
        seed=[s.seed, asked.question.seed],
        blocks=asked.blocks,
        groups=videos if apart > 1 else None,
    )
    return found, apart


def _row(
    target: str,
    name: str,
    asked: AtStage,
    lengths: np.ndarray,
    state: Stage,
    test: Test,
    found: Quality,
    slopes: np.ndarray,
    intervals: dict[Source, Intervals],
    single: tuple[float, float, float],
) -> Row:
    question, s = asked.question, asked.settings
    score = scores_of(slopes, lengths)

    def interval(source: Source, what: str) -> tuple[float, float]:
        if source not in intervals:
            return NAN, NAN
        part = getattr(intervals[source], what)
        return float(part.low[0]), float(part.high[0])

    sets_low, sets_high, p_sets = single
    return Row(
        target=target,
        stage=name,
        concept=question.concept,
        kind=question.kind,
        against=question.against,
        n_targets=score.n_targets,
        score=float(score.sign_count[0, 0]),
        **dict(zip(("score_low", "score_high"), interval("all", "sign_count"))),
        derivative=float(score.derivative[0, 0]),
        **dict(zip(("derivative_low", "derivative_high"), interval("all", "derivative"))),
        p=chosen(test, s),
        p_adjusted=NAN,
        verdict="",
        test=question.test,
        n_concept=len(question.positive),
        n_against=len(question.negative),
        share=float(score.share[0, 0]),
        **dict(zip(("share_low", "share_high"), interval("all", "share"))),
        step=float(test.step[0]),
        p_step=float(test.step_p[0]),
        p_unit=float(test.p[0]),
        p_smallest=test.smallest,
        p_sign=float(test.sign_p[0]),
        p_sets=p_sets,
        sets=len(question.sets),
        sets_low=sets_low,
        sets_high=sets_high,
        **dict(zip(("low_of_concept", "high_of_concept"), interval("concept", "derivative"))),
        **dict(zip(("low_of_negatives", "high_of_negatives"), interval("negatives", "derivative"))),
        **dict(zip(("low_of_targets", "high_of_targets"), interval("targets", "derivative"))),
        auc=found.auc,
        auc_p=found.p,
        ties=int(score.ties[0, 0]),
        turning=float(state.turning[0]),
        degenerate=bool(state.degenerate[0]),
        still=bool(state.still[0]),
        target_fn=s.target_fn,
        sensitivity=s.sensitivity,
        **dict(zip(("null_low", "null_high"), _middle(test.step_null if s.statistic == "step" else test.null))),
    )


def _middle(null: Float[np.ndarray, "b 1"]) -> tuple[float, float]:
    """Of the values under exchange, the ends of their middle 95 %."""
    known = null[~np.isnan(null)]
    return (float(np.quantile(known, 0.025)), float(np.quantile(known, 0.975))) if len(known) else (NAN, NAN)


def _vector_row(name: str, asked: AtStage, found: Quality, videos: int, tests: Sequence[Test]) -> VectorRow:
    question, own, kernel = asked.question, asked.vector, asked.grams[0].kernel
    pattern = fit(kernel, asked.signed[None], Training("mean_difference"))
    return VectorRow(
        stage=name,
        test=question.test,
        concept=question.concept,
        kind=question.kind,
        against=question.against,
        n_concept=len(question.positive),
        n_against=len(question.negative),
        auc=found.auc,
        auc_p=found.p,
        auc_p_smallest=found.smallest,
        folds=found.folds,
        videos=videos,
        split_half=found.split_half,
        split_half_low=found.split_low,
        split_half_high=found.split_high,
        nearest="",
        nearest_cosine=NAN,
        pattern_cosine=float(cosines(kernel, own, pattern)[0, 0]),
        estimator=own.estimator,
        lam=float(own.lam[0]),
        norm=float(own.norm[0]),
        intercept=float(own.intercept[0]),
        iterations=int(own.iterations[0]),
        residual=float(own.residual[0]),
        converged=bool(own.converged[0]),
        not_converged=tests[0].not_converged,
    )


def _entangled(
    rows: Sequence[VectorRow], questions: Sequence[Question], vectors: Vectors, kernel: np.ndarray
) -> list[VectorRow]:
    cosine = np.nan_to_num(cosines(kernel, vectors))
    out = []
    for i, (row, question) in enumerate(zip(rows, questions)):
        others = [
            j for j, other in enumerate(questions) if other.test == question.test and other.concept != question.concept
        ]
        if others:
            j = max(others, key=lambda j: abs(cosine[i, j]))
            row = replace(row, nearest=questions[j].name, nearest_cosine=float(cosine[i, j]))
        out.append(row)
    return out


def self_checked(grams: Sequence[Gram], plan: Plan, along: Along | None = None) -> dict[str, dict[str, list[float]]]:
    """p-values of what is no concept, by the test of concepts: too many small ones, and that test promises too much.

    First each random set against the others; what is asked for beyond that is drawn out of all their clips, with as
    many as the concepts have.
    """
    s, count = plan.settings, len(grams[0].kernel)
    out: dict[str, dict[str, list[float]]] = {}
    for kind, sets in plan.asked.random.items() if s.self_check else ():
        pool = np.array(sorted({i for rows in sets.values() for i in rows}))
        sizes = [len(q.positive) for q in plan.asked.questions if q.test == "absolute" and q.kind == kind]
        found: dict[str, list[float]] = {"sets": [], "drawn": []}
        for trial in range(s.self_check):
            if trial < len(sets) and len(sets) > 1:
                posing, how = np.array(list(sets.values())[trial]), "sets"
            else:
                size = min(int(np.median(sizes)) if sizes else len(pool) // 2, len(pool) // 2)
                posing, how = np.random.default_rng([s.seed, trial]).choice(pool, size, replace=False), "drawn"
            if min(len(posing), len(pool) - len(posing)) < 2:
                continue
            signed = labels(posing, np.setdiff1d(pool, posing), count)
            used = np.flatnonzero(signed).tolist()
            tests = label_tests(
                [reduced(gram, used) for gram in grams],
                signed[used],
                s.training,
                permutations=CHECKED,
                seed=[s.seed, trial, 1],
                enough=REACHED,
                along=None if along is None else widened(along, used, count),
            )
            found[how] += [chosen(test, s) for test in tests]
        out[kind] = found
    return out
