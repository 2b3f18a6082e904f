"""Asks a video network what it has learnt: `python main.py --task=TASK ...`; `--help` tells the tasks and their flags.

Here flags (options.py, asked.py) become calls of vtcav_jax/tasks, and what happens an exit code.
"""

import shlex
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, logging

import asked
import manual
import options
import refusals

A_NETWORK, TRAINED = "a preset, a network that ships, or a path", "a network that ships, or a path"


def quickstart() -> int:
    from vtcav_jax.tasks.quickstart import quickstart

    return quickstart(Path(__file__), asked.run_folder() or Path("runs") / "quickstart", asked.style())


def experiment() -> int:
    import jax

    from vtcav_jax.tasks import experiment

    jax.config.update("jax_platforms", "cpu")  # the steps are processes of their own, and accelerators are theirs
    if options.COORDINATOR.value:
        raise ValueError("--coordinator: several processes cannot mine together; --task=mine first, then --task=tcav")
    run = experiment.check(
        options.MODEL.value,
        options.VIDEOS.value,
        options.CONCEPTS.value,
        options.TARGETS.value,
        options.TARGET_VIDEOS.value,
        asked.testing(),
        asked.run_folder(),
        asked.random_seed(),
    )
    asked.mining()  # what is wrong with it is said before anything is done
    sets = asked.path(options.OUT) or run.with_name(f"{run.name}_concepts")
    mining = ["--task=mine", *asked.given("mine", but=(options.OUT,)), f"--out={sets}"]
    testing = asked.given("tcav", but=(options.VIDEOS, options.CONCEPTS, options.DRY_RUN))
    testing = ["--task=tcav", *testing, f"--concepts={sets}"]
    program, style = Path(__file__), asked.style()
    return experiment.experiment(program, mining, testing, sets, style, dry_run=options.DRY_RUN.value)


def stages() -> None:
    from vtcav_jax.tasks import answers

    answers.stages(asked.needed(options.MODEL, A_NETWORK))


def predict() -> None:
    from vtcav_jax.tasks import answers

    answers.predict(
        asked.needed(options.MODEL, A_NETWORK),
        spec=options.VIDEOS.value,
        clips=asked.path(options.CLIPS),
        how=asked.how(),
        batch_size=options.BATCH_SIZE.value or 4,
        top=options.TOP.value,
        workers=options.WORKERS.value,
        out=asked.path(options.OUT),
        random_seed=asked.random_seed(),
    )


def train() -> None:
    from vtcav_jax.tasks import train

    train.train(
        asked.needed(options.MODEL, "a preset, or a network to begin with"),
        options.VIDEOS.value,
        asked.run_folder(),
        asked.recipe(),
        held_out=options.HELD_OUT.value,
        gate_clips=options.GATES.value,
        bfloat16=options.BFLOAT16.value,
        workers=options.WORKERS.value,
        flags=asked.flags_text(),
    )


def prepare() -> None:
    from vtcav_jax.tasks import corpora

    model = asked.needed(options.MODEL, "whose clips are made")
    corpora.prepare(options.VIDEOS.value, model, asked.how(), asked.path(options.OUT), workers=options.WORKERS.value)


def worlds() -> None:
    from vtcav_jax.tasks import corpora

    corpora.world(options.VIDEOS.value, asked.path(options.OUT))


def mine() -> None:
    from vtcav_jax.tasks import corpora

    if options.LIST_LABELS.value:
        return corpora.labels(Path(asked.needed(options.DETECTOR, "whose labels are listed")))
    corpora.mine(
        options.VIDEOS.value,
        asked.mining(),
        asked.path(options.OUT),
        model=options.MODEL.value,
        targets=options.TARGET_VIDEOS.value,
        negatives=options.NEGATIVES.value,
        workers=options.WORKERS.value,
    )


def review() -> None:
    from vtcav_jax.tasks import corpora

    folder = asked.concepts_folder()
    if folder is None:
        raise ValueError("--concepts is missing: the folder of concept sets; see --help")
    corpora.review(folder)


def tcav() -> None:
    from vtcav_jax.tasks import tcav
    from vtcav_jax.tcav import hosts

    hosts.connect(options.COORDINATOR.value, options.NUM_PROCESSES.value, options.PROCESS_ID.value)
    tcav.tcav(
        asked.needed(options.MODEL, TRAINED),
        options.TARGETS.value,
        options.TARGET_VIDEOS.value,
        asked.concepts_folder(),
        asked.testing(),
        asked.run_folder(),
        cache=asked.path(options.CACHE),
        dry_run=options.DRY_RUN.value,
        workers=options.WORKERS.value,
        random_seed=asked.random_seed(),
        flags=asked.flags_text(),
    )


def explain_concepts() -> None:
    from vtcav_jax.tasks import tcav

    tcav.explain_concepts(
        asked.needed(options.MODEL, "the network that the vectors are of"),
        asked.run_folder(),
        options.VIDEOS.value,
        options.TARGETS.value,
        asked.path(options.OUT),
        target_fn=options.TARGET_FN.value,
        workers=options.WORKERS.value,
    )


def report() -> None:
    from vtcav_jax.tasks.report import report

    report(
        [folder for name in (options.RUN.value or "").split(",") if (folder := asked.run_folder(name))],
        asked.path(options.OUT),
    )


def explain() -> None:
    from vtcav_jax.tasks import explain

    through_videos(
        explain.explain,
        methods=options.METHODS.value,
        stages=options.STAGES.value,
        baselines=options.BASELINES.value,
        nodes=options.NODES.value,
        vectors=asked.path(options.VECTORS),
        whole=options.WHOLE_VIDEO.value,
        films=options.FILMS.value,
        limit_clips=options.LIMITS.value,
        metric_clips=options.METRICS.value,
        batch=options.BATCH_SIZE.value or 4,
        seed=options.SEED.value,
    )


def motion() -> None:
    from vtcav_jax.tasks import motion

    through_videos(
        motion.motion, asked.measuring(), whole=options.WHOLE_VIDEO.value, batch=options.BATCH_SIZE.value or 4
    )


def pyramid() -> None:
    from vtcav_jax.tasks import pyramid

    through_videos(pyramid.pyramid, asked.pyramid(), vectors=asked.path(options.VECTORS))


def through_videos(task: Callable[..., None], *own: Any, **more: Any) -> None:
    """What is asked alike of a network and videos: `own` and `more` are the task's own."""
    task(
        asked.needed(options.MODEL, TRAINED),
        options.VIDEOS.value,
        asked.run_folder(),
        asked.how(),
        *own,
        targets=options.TARGETS.value,
        workers=options.WORKERS.value,
        random_seed=asked.random_seed(),
        flags=asked.flags_text(),
        **more,
    )


def truth() -> None:
    from vtcav_jax.tasks import truth

    truth.truth(
        options.NETWORK.value,
        asked.run_folder(),
        methods=options.METHODS.value,
        own=options.METHOD.value,
        worlds=options.WORLDS.value,
        clips=options.TRUTH_CLIPS.value,
        seed=truth.SEED + options.SEED.value,
        flags=asked.flags_text(),
    )


FAULT, STOPPED = 70, 130  # exit codes; see options.CODES
TASKS: dict[str, Callable[[], int | None]] = {
    "quickstart": quickstart,
    "experiment": experiment,
    "stages": stages,
    "predict": predict,
    "train": train,
    "prepare": prepare,
    "worlds": worlds,
    "mine": mine,
    "review": review,
    "tcav": tcav,
    "explain_concepts": explain_concepts,
    "explain": explain,
    "motion": motion,
    "pyramid": pyramid,
    "truth": truth,
    "report": report,
}


def main(argv: list[str]) -> int:
    from vtcav_jax import telling

    logging.set_verbosity(logging.WARNING)
    telling.style.set("json" if options.LOG_JSON.value else "quiet" if options.QUIET.value else "plain")
    started = time.monotonic()
    try:
        code = done(argv[1:])
    except KeyboardInterrupt:
        kept = options.TASKS[options.TASK.value].kept if options.TASK.value in options.TASKS else "nothing"
        telling.warn(f"\nstopped; kept: {kept}\n  python main.py {shlex.join(sys.argv[1:])}")
        code = STOPPED
    telling.event("end", task=options.TASK.value, code=code, seconds=round(time.monotonic() - started, 3))
    return code


def done(unexpected: list[str]) -> int:
    """Does the task; what is refused is told in a sentence."""
    from vtcav_jax import runs, telling
    from vtcav_jax.names import unknown

    try:
        if unexpected:
            raise ValueError(f"unexpected {unexpected}; every argument is a flag, --name=value; see --help")
        if options.TASK.value is None:
            raise ValueError(f"--task is missing: one of {', '.join(TASKS)}; see --help")
        if options.TASK.value not in TASKS:
            raise ValueError("--task: " + unknown("task", [options.TASK.value], TASKS))
        with runs.alone():
            return TASKS[options.TASK.value]() or 0
    except (ValueError, OSError) as error:
        telling.warn(f"error: {refusals.with_flags(str(error))}")
        return refusals.CODE
    except Exception:
        telling.warn(f"{traceback.format_exc()}\nthis is a fault of the program; please report it with the lines above")
        return FAULT


def start() -> None:
    """`--help` before absl sees it, which knows of no groups."""
    if {"--help", "-h", "-help", "--helpfull"} & set(sys.argv[1:]):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # whoever reads only the beginning
        named = [word.partition("=")[2] for word in sys.argv if word.startswith("--task=")]
        print(manual.help_text(named[-1] if named else None))
        sys.exit(0)
    app.run(main, flags_parser=refusals.parsed)


if __name__ == "__main__":
    start()
