"""Asks a video network what it has learnt: `python main.py --task=TASK ...`; `--help` tells the tasks and their flags.

Here flags (flags.py, config.py) become calls of cli/commands, and what happens an exit code.
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

from vtcav_jax.cli import config, errors, flags, help

PROGRAM = Path("main.py")  # what steps of a pipeline are started as
A_NETWORK, TRAINED = "a preset, a network that ships, or a path", "a network that ships, or a path"


def quickstart() -> int:
    from vtcav_jax.cli.commands.quickstart import quickstart

    return quickstart(PROGRAM, config.run_folder() or Path("runs") / "quickstart", config.style())


def experiment() -> int:
    import jax

    from vtcav_jax.cli.commands import experiment

    jax.config.update("jax_platforms", "cpu")  # the steps are processes of their own, and accelerators are theirs
    if flags.COORDINATOR.value:
        raise ValueError("--coordinator: several processes cannot mine together; --task=mine first, then --task=tcav")
    run = experiment.preflight(
        flags.MODEL.value,
        flags.VIDEOS.value,
        flags.CONCEPTS.value,
        flags.TARGETS.value,
        flags.TARGET_VIDEOS.value,
        config.testing(),
        config.run_folder(),
        config.random_seed(),
    )
    config.mining()  # what is wrong with it is said before anything is done
    sets = config.path(flags.OUT) or run.with_name(f"{run.name}_concepts")
    mining = ["--task=mine", *config.given("mine", but=(flags.OUT,)), f"--out={sets}"]
    testing = config.given("tcav", but=(flags.VIDEOS, flags.CONCEPTS, flags.DRY_RUN))
    testing = ["--task=tcav", *testing, f"--concepts={sets}"]
    program, style = PROGRAM, config.style()
    return experiment.experiment(program, mining, testing, sets, style, dry_run=flags.DRY_RUN.value)


def stages() -> None:
    from vtcav_jax.cli.commands import predict as answers

    answers.inspect_network(config.needed(flags.MODEL, A_NETWORK))


def predict() -> None:
    from vtcav_jax.cli.commands import predict as answers

    answers.predict(
        config.needed(flags.MODEL, A_NETWORK),
        videos=flags.VIDEOS.value,
        clips_file=config.path(flags.CLIPS),
        sampling=config.how(),
        batch_size=flags.BATCH_SIZE.value or 4,
        top_k=flags.TOP.value,
        num_workers=flags.WORKERS.value,
        out=config.path(flags.OUT),
        random_weights_seed=config.random_seed(),
    )


def train() -> None:
    from vtcav_jax.cli.commands import train

    train.train(
        config.needed(flags.MODEL, "a preset, or a network to begin with"),
        flags.VIDEOS.value,
        config.run_folder(),
        config.recipe(),
        eval_videos=flags.HELD_OUT.value,
        gate_clips=flags.GATES.value,
        bfloat16=flags.BFLOAT16.value,
        num_workers=flags.WORKERS.value,
        flags=config.flags_text(),
    )


def prepare() -> None:
    from vtcav_jax.cli.commands import prepare_videos

    model = config.needed(flags.MODEL, "whose clips are made")
    prepare_videos.preprocess(
        flags.VIDEOS.value, model, config.how(), config.path(flags.OUT), num_workers=flags.WORKERS.value
    )


def worlds() -> None:
    from vtcav_jax.cli.commands import prepare_videos

    prepare_videos.render_world(flags.VIDEOS.value, config.path(flags.OUT))


def mine() -> None:
    from vtcav_jax.cli.commands import prepare_videos

    if flags.LIST_LABELS.value:
        return prepare_videos.list_detector_labels(Path(config.needed(flags.DETECTOR, "whose labels are listed")))
    prepare_videos.mine_concepts(
        flags.VIDEOS.value,
        config.mining(),
        config.path(flags.OUT),
        model=flags.MODEL.value,
        target_videos=flags.TARGET_VIDEOS.value,
        negative_videos=flags.NEGATIVES.value,
        num_workers=flags.WORKERS.value,
    )


def review() -> None:
    from vtcav_jax.cli.commands import prepare_videos

    folder = config.concepts_folder()
    if folder is None:
        raise ValueError("--concepts is missing: the folder of concept sets; see --help")
    prepare_videos.review_concepts(folder)


def tcav() -> None:
    from vtcav_jax.cli.commands import tcav
    from vtcav_jax.tcav.features import distributed

    distributed.connect(flags.COORDINATOR.value, flags.NUM_PROCESSES.value, flags.PROCESS_ID.value)
    tcav.tcav(
        config.needed(flags.MODEL, TRAINED),
        flags.TARGETS.value,
        flags.TARGET_VIDEOS.value,
        config.concepts_folder(),
        config.testing(),
        config.run_folder(),
        cache_dir=config.path(flags.CACHE),
        dry_run=flags.DRY_RUN.value,
        num_workers=flags.WORKERS.value,
        random_weights_seed=config.random_seed(),
        flags=config.flags_text(),
    )


def explain_concepts() -> None:
    from vtcav_jax.cli.commands import tcav

    tcav.score_concepts(
        config.needed(flags.MODEL, "the network that the vectors are of"),
        config.run_folder(),
        flags.VIDEOS.value,
        flags.TARGETS.value,
        config.path(flags.OUT),
        score_fn=flags.TARGET_FN.value,
        num_workers=flags.WORKERS.value,
    )


def report() -> None:
    from vtcav_jax.cli.commands.report import report

    report(
        [folder for name in (flags.RUN.value or "").split(",") if (folder := config.run_folder(name))],
        config.path(flags.OUT),
    )


def explain() -> None:
    from vtcav_jax.cli.commands import attribute

    through_videos(
        attribute.attribute,
        methods=flags.METHODS.value,
        stages=flags.STAGES.value,
        baselines=flags.BASELINES.value,
        nodes=flags.NODES.value,
        vectors=config.path(flags.VECTORS),
        whole=flags.WHOLE_VIDEO.value,
        films=flags.FILMS.value,
        limit_clips=flags.LIMITS.value,
        metric_clips=flags.METRICS.value,
        batch=flags.BATCH_SIZE.value or 4,
        seed=flags.SEED.value,
    )


def motion() -> None:
    from vtcav_jax.cli.commands import motion

    through_videos(
        motion.measure_motion_reliance,
        config.measuring(),
        whole=flags.WHOLE_VIDEO.value,
        batch=flags.BATCH_SIZE.value or 4,
    )


def pyramid() -> None:
    from vtcav_jax.cli.commands import pyramid

    through_videos(pyramid.pyramid, config.pyramid(), vectors=config.path(flags.VECTORS))


def through_videos(task: Callable[..., None], *own: Any, **more: Any) -> None:
    """What is asked alike of a network and videos: `own` and `more` are the task's own."""
    task(
        config.needed(flags.MODEL, TRAINED),
        flags.VIDEOS.value,
        config.run_folder(),
        config.how(),
        *own,
        targets=flags.TARGETS.value,
        workers=flags.WORKERS.value,
        random_seed=config.random_seed(),
        flags=config.flags_text(),
        **more,
    )


def truth() -> None:
    from vtcav_jax.cli.commands import evaluate_methods

    evaluate_methods.evaluate_methods(
        flags.NETWORK.value,
        config.run_folder(),
        methods=flags.METHODS.value,
        custom_method=flags.METHOD.value,
        questions=flags.WORLDS.value,
        max_clips=flags.TRUTH_CLIPS.value,
        seed=evaluate_methods.EVAL_SEED + flags.SEED.value,
        flags=config.flags_text(),
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
    from vtcav_jax import console

    logging.set_verbosity(logging.WARNING)
    console.verbosity.set("json" if flags.LOG_JSON.value else "quiet" if flags.QUIET.value else "plain")
    started = time.monotonic()
    try:
        code = done(argv[1:])
    except KeyboardInterrupt:
        kept = flags.TASKS[flags.TASK.value].kept if flags.TASK.value in flags.TASKS else "nothing"
        console.warn(f"\nstopped; kept: {kept}\n  python main.py {shlex.join(sys.argv[1:])}")
        code = STOPPED
    console.json_event("end", task=flags.TASK.value, code=code, seconds=round(time.monotonic() - started, 3))
    return code


def done(unexpected: list[str]) -> int:
    """Does the task; what is refused is told in a sentence."""
    from vtcav_jax import console
    from vtcav_jax.names import unknown_name_message
    from vtcav_jax.runs import directory

    try:
        if unexpected:
            raise ValueError(f"unexpected {unexpected}; every argument is a flag, --name=value; see --help")
        if flags.TASK.value is None:
            raise ValueError(f"--task is missing: one of {', '.join(TASKS)}; see --help")
        if flags.TASK.value not in TASKS:
            raise ValueError("--task: " + unknown_name_message("task", [flags.TASK.value], TASKS))
        with directory.exclusive_runs():
            return TASKS[flags.TASK.value]() or 0
    except (ValueError, OSError) as error:
        console.warn(f"error: {errors.with_flags(str(error))}")
        return errors.CODE
    except Exception:
        console.warn(f"{traceback.format_exc()}\nthis is a fault of the program; please report it with the lines above")
        return FAULT


def start() -> None:
    """`--help` before absl sees it, which knows of no groups."""
    if {"--help", "-h", "-help", "--helpfull"} & set(sys.argv[1:]):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # whoever reads only the beginning
        named = [word.partition("=")[2] for word in sys.argv if word.startswith("--task=")]
        print(help.help_text(named[-1] if named else None))
        sys.exit(0)
    app.run(main, flags_parser=errors.parsed)


if __name__ == "__main__":
    start()
