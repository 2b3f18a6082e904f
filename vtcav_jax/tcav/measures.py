"""Every number about one stage, out of its products alone: no clip and no network is needed any more."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from vtcav_jax.progress import progress
from vtcav_jax.tcav.bootstrap import Intervals, bootstrap
from vtcav_jax.tcav.gram import Gram
from vtcav_jax.tcav.plan import Plan
from vtcav_jax.tcav.quality import Quality, quality
from vtcav_jax.tcav.questions import Question
from vtcav_jax.tcav.scores import Stage, derivatives, scores, stage
from vtcav_jax.tcav.significance import Test, label_tests, set_test
from vtcav_jax.tcav.table import NAN, Clip, Row, VectorRow
from vtcav_jax.tcav.vectors import Training, Vectors, cosines, fit, labels

SHUFFLED = 99  # labels, to see what area under the curve comes by chance
CHECKED = 199  # permutations of a pseudo-concept; with them exactly 5 % of p-values are at most .05


@dataclass(frozen=True)
class Measured:
    """Of one stage. `checked` are the self-check's p-values by kind: of the random sets, and of sets drawn."""

    rows: list[Row]
    vectors: list[VectorRow]
    clips: list[Clip]
    checked: dict[str, dict[str, list[float]]]
    seconds: float = 0.0


def split(whole: Gram, plan: Plan) -> list[Gram]:
    """A Gram for each class, out of one whose gradients are those of all classes, one after the other."""
    parts, start = [], 0
    for target in plan.looked.classes:
        rows = slice(start, start + len(target.rows))
        parts.append(Gram(whole.kernel, whole.products[:, rows], whole.gradients[:, rows, rows]))
        start = rows.stop
    return parts


def measure(plan: Plan, name: str, whole: Gram, class_scores: Sequence[np.ndarray]) -> Measured:
    """`class_scores` are those of each class's targets."""
    grams, s = split(whole, plan), plan.settings
    kernel, count = whole.kernel, len(whole.kernel)
    states = [stage(gram) for gram in grams]
    questions = plan.asked.questions
    vectors = fit(kernel, np.stack([q.signed(count) for q in questions]), s.training)
    rows, details, clips = [], [], []
    for i, question in enumerate(progress(questions, len(questions), f"tests at {name}", size=lambda _: 1)):
        own, (parts, question) = pick(vectors, i), narrowed(grams, question)
        own = replace(own, a=own.a[:, list(used_by(questions[i]))])
        found = _quality(parts[0].kernel, question, s.training, s.seed)
        tests = _tests(parts, question, plan)
        details.append(_vector_row(name, question, found, own, tests, parts[0].kernel))
        for target, gram, state, test, logits in zip(plan.looked.classes, parts, states, tests, class_scores):
            rows.append(_row(target.name, name, question, gram, state, test, found, own, plan))
            along = derivatives(gram, own.unit)[0, :, 0]
            names = [plan.looked.targets.names[row] for row in target.rows]
            clips += [
                Clip(target.name, name, question.concept, question.kind, question.against, *values)
                for values in zip(names, map(float, logits), map(float, along), map(float, gram.lengths[0]))
            ]
    return Measured(rows, _entangled(details, questions, vectors, kernel), clips, self_checked(grams, plan))


def used_by(question: Question) -> tuple[int, ...]:
    return tuple(sorted((*question.positive, *question.negative)))


def narrowed(grams: Sequence[Gram], question: Question) -> tuple[list[Gram], Question]:
    """The same question about a K of its own clips only: what has no part in it costs nothing."""
    rows = used_by(question)
    at = {row: i for i, row in enumerate(rows)}

    def places(some: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(at[row] for row in some)

    kernel = grams[0].kernel[np.ix_(rows, rows)]
    same = replace(
        question,
        positive=places(question.positive),
        negative=places(question.negative),
        pairs=tuple((at[left], at[right]) for left, right in question.pairs),
        sets=tuple((name, places(some)) for name, some in question.sets),
    )
    return [Gram(kernel, gram.products[:, :, rows], gram.gradients) for gram in grams], same


def pick(vectors: Vectors, i: int) -> Vectors:
    rows = slice(i, i + 1)
    parts = {
        name: getattr(vectors, name)[rows]
        for name in ("a", "intercept", "norm", "lam", "residual", "iterations", "converged")
    }
    return replace(vectors, **parts)


def _quality(kernel: np.ndarray, question: Question, training: Training, seed: int) -> Quality:
    signed, blocks = question.signed(len(kernel)), question.blocks(len(kernel))
    loose = replace(training, tolerance=1e-5)
    return quality(kernel, signed, loose, permutations=SHUFFLED, seed=[seed, question.seed], blocks=blocks)


def _tests(grams: Sequence[Gram], question: Question, plan: Plan) -> list[Test]:
    """By exchanging labels, or sets if those are asked for and there are any."""
    s, count = plan.settings, len(grams[0].kernel)
    if s.null == "sets" and question.sets:
        return [_set_test(gram, question, s.training) for gram in grams]
    return label_tests(
        grams,
        question.signed(count),
        s.training,
        permutations=s.enough(1),
        seed=[s.seed, question.seed],
        blocks=question.blocks(count),
    )


def _set_test(gram: Gram, question: Question, training: Training) -> Test:
    return set_test(
        gram, [np.array(rows) for rows in (question.positive, *(rows for _, rows in question.sets))], training
    )


def _row(
    target: str,
    name: str,
    question: Question,
    gram: Gram,
    state: Stage,
    test: Test,
    found: Quality,
    own: Vectors,
    plan: Plan,
) -> Row:
    s, count = plan.settings, len(gram.kernel)
    score = scores(gram, own)
    real = own.norm[0] > 0
    intervals = (
        bootstrap(gram, question.signed(count), s.training, draws=s.draws, seed=[s.seed, question.seed]) if real else {}
    )

    def interval(source: str, what: str) -> tuple[float, float]:
        if source not in intervals:
            return NAN, NAN
        given: Intervals = intervals[source]
        part = getattr(given, what)
        return float(part.low[0]), float(part.high[0])

    single = [NAN]
    p_sets = NAN
    if question.sets:
        signed = np.stack([labels(question.positive, rows, count) for _, rows in question.sets])
        single = scores(gram, fit(gram.kernel, signed, s.training)).derivative[0].tolist()
        among = _set_test(gram, question, s.training)
        p_sets = float((among.step_p if s.statistic == "step" else among.p)[0])
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
        p=float((test.step_p if s.statistic == "step" else test.p)[0]),
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
        sets_low=float(np.min(single)),
        sets_high=float(np.max(single)),
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
        **dict(zip(("null_low", "null_high"), _middle(test.step_null if s.statistic == "step" else test.null))),
    )


def _middle(null: Float[np.ndarray, "b 1"]) -> tuple[float, float]:
    """Of the values under exchange, the ends of their middle 95 %."""
    known = null[~np.isnan(null)]
    return (float(np.quantile(known, 0.025)), float(np.quantile(known, 0.975))) if len(known) else (NAN, NAN)


def _vector_row(
    name: str, question: Question, found: Quality, own: Vectors, tests: Sequence[Test], kernel: np.ndarray
) -> VectorRow:
    pattern = fit(kernel, question.signed(len(kernel))[None], Training("mean_difference"))
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


def self_checked(grams: Sequence[Gram], plan: Plan) -> dict[str, dict[str, list[float]]]:
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
            tests = label_tests(grams, signed, s.training, permutations=CHECKED, seed=[s.seed, trial, 1])
            found[how] += [float((t.step_p if s.statistic == "step" else t.p)[0]) for t in tests]
        out[kind] = found
    return out
