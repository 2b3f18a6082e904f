"""--task=tcav and --task=explain_concepts: which concepts a class uses, and which are in a clip."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from vtcav_jax import models
from vtcav_jax.cli.commands import answer, say, videos
from vtcav_jax.cli.commands.predict import with_weights
from vtcav_jax.cli.commands.report import report
from vtcav_jax.concepts import read_sets
from vtcav_jax.data import failure_table
from vtcav_jax.report.random_weights_notice import RANDOM_WEIGHTS_NOTICE, RANDOM_WEIGHTS_PREFIX
from vtcav_jax.tcav.experiment import run as experiment_run
from vtcav_jax.tcav.experiment.config import Experiment
from vtcav_jax.tcav.experiment.plan import plan
from vtcav_jax.tcav.experiment.timed_batch import trial
from vtcav_jax.tcav.experiment.verdicts import sentences, terminal, write_rows
from vtcav_jax.tcav.features import distributed
from vtcav_jax.tcav.features.cache import Cache
from vtcav_jax.tcav.previews import render_previews
from vtcav_jax.tcav.score_clips import Explained, Moment, explain
from vtcav_jax.tcav.vector_file import stored

STRONGEST, SHOWN = 3, 40  # vectors of a clip and class, and such pairs, on the terminal


def tcav(
    model: str,
    targets: Sequence[str],
    target_videos: str | None,
    concepts: str | None,
    settings: Experiment,
    run: Path | None,
    *,
    cache: Path | None = None,
    dry_run: bool = False,
    workers: int = 2,
    random_seed: int | None = None,
    flags: str = "",
) -> None:
    """Runs an experiment into the folder `run`, prints its table and makes its page; `dry_run` only prints the plan,
    after one batch of each kind that tells how long it takes."""
    missing = {"--targets=CLASS,...": targets, "--target_videos=WHERE": target_videos, "--concepts=DIR": concepts}
    missing |= {"--run=NAME": run or dry_run}
    if lacking := [name for name, value in missing.items() if not value]:
        raise ValueError(f"--task=tcav needs {', '.join(lacking)} as well; see --help")
    assert target_videos is not None and concepts is not None
    source, sets = videos(target_videos), read_sets(concepts)
    loaded = with_weights(model, random_seed)
    if dry_run:
        store = Cache(cache or (run or Path("runs") / "tcav").parent / "cache")
        todo = plan(loaded, targets, source, sets, settings, store, models.PRESETS[loaded.preset].clip_spec)
        if distributed.first():
            mesh = Mesh(np.array(jax.local_devices()), ("b",))
            worth_it = todo.asked.questions and todo.attainable.possible
            absent = todo.forward_missing or todo.backward_missing
            answer(todo.told(trial(todo, mesh).encoding(todo) if worth_it and absent else None))
        return todo.require()
    assert run is not None
    found = experiment_run.run(
        loaded, targets, source, sets, settings, run, cache=cache, workers=workers, name=model, flags=flags
    )
    if distributed.first():
        render_previews(found.folder, loaded, source, sets, found.rows, found.clips)
        say(summary(found, settings, random=model in models.PRESETS))
        report([found.folder])


def explain_concepts(
    model: str,
    run: Path | None,
    spec: str | None,
    targets: Sequence[str],
    out: Path | None,
    *,
    target_fn: str = "logit",
    workers: int = 2,
) -> None:
    """Scores the clips of `spec` by the vectors of a run, into the folder `out`."""
    if run is None or spec is None or out is None:
        raise ValueError(
            "--task=explain_concepts needs --run=NAME (of a --task=tcav run), --videos=WHERE, --targets=CLASS,... and"
            " --out=DIR"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already and is not empty; choose another --out")
    vectors, source = stored(run), videos(spec)
    rows, moments, failed = explain(with_weights(model), vectors, source, targets, target_fn=target_fn, workers=workers)
    out.mkdir(parents=True, exist_ok=True)
    write_rows(out / "projections.csv", Moment, moments)
    write_rows(out / "explained.csv", Explained, rows)
    say(f"{'clip':28}{'target':18}{'stage':14}{'concept':32}{'derivative':>11}{'inside':>9}")
    ranked = sorted(rows, key=lambda row: (row.clip, row.target, -abs(row.derivative)))
    seen: dict[tuple[str, str], int] = {}
    for row in ranked:
        seen[row.clip, row.target] = seen.get((row.clip, row.target), 0) + 1
        if seen[row.clip, row.target] <= STRONGEST and len(seen) <= SHOWN:
            say(
                f"{row.clip:28.28}{row.target:18.18}{row.stage:14.14}{row.vector:32.32}{row.derivative:>11.3g}"
                f"{row.inside:>9.2f}"
            )
    answer(
        f"\n{len(source.items) - len(failed)} clips, all vectors: {out / 'explained.csv'}; over time: projections.csv"
    )
    if failed:
        say(failure_table(failed))


def summary(found: experiment_run.Results, settings: Experiment, *, random: bool = False) -> str:
    """The table, what was found in words, and what speaks against it."""
    lines = [terminal(found.rows), ""]
    lines.append(f"family: {found.family} tests, {settings.correction}, alpha {settings.alpha:g}")
    for one in found.self_check:
        what = "random sets" if one.sets == "sets" else "sets drawn out of the random clips"
        lines.append(
            f"self-check: of {one.trials} tests of {what} ({one.kind}) {one.found} had p at most {settings.alpha:g}:"
            f" {one.rate:.3f} ({one.low:.3f} to {one.high:.3f})"
        )
    work = found.work
    for one in found.steering:
        lines.append(
            f"steered: {one.target} at {one.stage} by {one.step:+g} {one.concept} ({one.kind}) against {one.against}:"
            f" {one.change:+.3g}, expected {one.expected:+.3g}, random {one.random_low:+.3g} to {one.random_high:+.3g},"
            f" p {one.p:.2g}"
        )
    lines.append(f"clips through the network: {work.forwards} forward, {work.backwards} backward")
    lines.append("seconds: " + ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in found.seconds.items()))
    if found.failures:
        lines.append(failure_table(found.failures))
    lines += [f"note: {note}" for note in found.notes]
    lines += ["", *([f"{RANDOM_WEIGHTS_NOTICE} {RANDOM_WEIGHTS_PREFIX}"] if random else ())]
    return "\n".join([*lines, *sentences(found.rows), "", f"all of it: {found.folder / 'scores.csv'}"])
