"""Asks a video network what it has learnt: `python main.py --task=TASK ...`; `--help` tells the tasks and their flags.

Here flags (options.py) become calls of vtcav_jax/tasks, and what happens an exit code.
"""

import shlex
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging

import options
import refusals


def quickstart() -> int:
    from vtcav_jax.tasks.quickstart import quickstart

    style = [flag.serialize() for flag in (flags.FLAGS["quiet"], flags.FLAGS["log_json"])]
    return quickstart(Path(__file__), run_folder() or Path("runs") / "quickstart", style)


def stages() -> None:
    from vtcav_jax.tasks import answers

    answers.stages(needed(options.MODEL, "a preset, a network that ships, or a path"))


def predict() -> None:
    from vtcav_jax.tasks import answers

    answers.predict(
        needed(options.MODEL, "a preset, a network that ships, or a path"),
        spec=options.VIDEOS.value,
        clips=path(options.CLIPS),
        how=how(),
        batch_size=options.BATCH_SIZE.value or 4,
        top=options.TOP.value,
        workers=options.WORKERS.value,
        out=path(options.OUT),
        random_seed=options.SEED.value if options.RANDOM_WEIGHTS.value else None,
    )


def train() -> None:
    from vtcav_jax.tasks import train
    from vtcav_jax.training import Recipe

    recipe = Recipe(
        steps=options.STEPS.value,
        batch_size=options.BATCH_SIZE.value or 64,
        learning_rate=options.LEARNING_RATE.value,
        warmup=min(100, options.STEPS.value // 10) if options.WARMUP.value is None else options.WARMUP.value,
        weight_decay=options.WEIGHT_DECAY.value,
        clip_norm=options.CLIP_NORM.value,
        augment=options.AUGMENT.value,  # type: ignore[arg-type]
        timeless=options.TIMELESS.value,
        timeless_from=options.TIMELESS_FROM.value,
        timeless_heads=tuple(options.TIMELESS_HEADS.value),
        random_start=options.RANDOM_START.value,
        checkpoint_every=options.CHECKPOINT_EVERY.value,
        seed=options.SEED.value,
    )
    train.train(
        needed(options.MODEL, "a preset, or a network to begin with"),
        options.VIDEOS.value,
        run_folder(),
        recipe,
        held_out=options.HELD_OUT.value,
        gate_clips=options.GATES.value,
        bfloat16=options.BFLOAT16.value,
        workers=options.WORKERS.value,
        flags=flags_text(),
    )


def prepare() -> None:
    from vtcav_jax.tasks import corpora

    model = needed(options.MODEL, "whose clips are made")
    corpora.prepare(options.VIDEOS.value, model, how(), path(options.OUT), workers=options.WORKERS.value)


def worlds() -> None:
    from vtcav_jax.tasks import corpora

    corpora.world(options.VIDEOS.value, path(options.OUT))


def mine() -> None:
    from vtcav_jax.concepts import Mining, concepts
    from vtcav_jax.tasks import corpora

    if options.LIST_LABELS.value:
        return corpora.labels(Path(needed(options.DETECTOR, "whose labels are listed")))
    settings = Mining(
        concepts(options.CONCEPTS.value),
        frames=options.FRAMES.value,
        controls=options.CONTROLS.value,
        detector=path(options.DETECTOR),
        boxes=path(options.BOXES),
        tracker=options.TRACKER.value,
        image_size=options.IMAGE_SIZE.value,
        least_confidence=options.LEAST_CONFIDENCE.value,
        least_area=options.LEAST_AREA.value,
        least_length=options.LEAST_LENGTH.value,
        greatest_overlap=options.GREATEST_OVERLAP.value,
        most_per_video=options.MOST_PER_VIDEO.value,
        most=options.MOST.value,
        random_sets=options.RANDOM_SETS.value,
        seed=options.SEED.value,
    )
    corpora.mine(
        options.VIDEOS.value,
        settings,
        path(options.OUT),
        model=options.MODEL.value,
        targets=options.TARGET_VIDEOS.value,
        negatives=options.NEGATIVES.value,
        workers=options.WORKERS.value,
    )


def review() -> None:
    from vtcav_jax.tasks import corpora

    folder = concepts_folder()
    if folder is None:
        raise ValueError("--concepts is missing: the folder of concept sets; see --help")
    corpora.review(folder)


def tcav() -> None:
    from vtcav_jax.tasks import tcav
    from vtcav_jax.tcav import hosts
    from vtcav_jax.tcav.settings import Experiment

    hosts.connect(options.COORDINATOR.value, options.NUM_PROCESSES.value, options.PROCESS_ID.value)
    settings = Experiment(
        stages=tuple(options.STAGES.value),
        tests=tuple(options.TESTS.value),
        null=options.NULL.value,
        statistic=options.STATISTIC.value,
        pool=options.POOL.value,
        target_fn=options.TARGET_FN.value,
        sensitivity=options.SENSITIVITY.value,
        estimator=options.ESTIMATOR.value,
        lam=options.LAM.value,
        solver=options.SOLVER.value,
        permutations=options.PERMUTATIONS.value,
        alpha=options.ALPHA.value,
        correction=options.CORRECTION.value,
        n_targets=options.N_TARGETS.value,
        self_check=options.SELF_CHECK.value,
        steering=options.STEERING.value,
        protocol=options.PROTOCOL.value,
        export=options.EXPORT.value,
        seed=options.SEED.value,
        batch=options.BATCH_SIZE.value or 8,
    )
    tcav.tcav(
        needed(options.MODEL, "a network that ships, or a path"),
        options.TARGETS.value,
        options.TARGET_VIDEOS.value,
        concepts_folder(),
        settings,
        run_folder(),
        cache=path(options.CACHE),
        dry_run=options.DRY_RUN.value,
        workers=options.WORKERS.value,
        random_seed=options.SEED.value if options.RANDOM_WEIGHTS.value else None,
        flags=flags_text(),
    )


def explain_concepts() -> None:
    from vtcav_jax.tasks import tcav

    tcav.explain_concepts(
        needed(options.MODEL, "the network that the vectors are of"),
        run_folder(),
        options.VIDEOS.value,
        options.TARGETS.value,
        path(options.OUT),
        target_fn=options.TARGET_FN.value,
        workers=options.WORKERS.value,
    )


def report() -> None:
    from vtcav_jax.tasks.report import report

    report([folder for name in (options.RUN.value or "").split(",") if (folder := run_folder(name))], path(options.OUT))


def explain() -> None:
    from vtcav_jax.tasks import explain

    explain.explain(
        needed(options.MODEL, "a network that ships, or a path"),
        options.VIDEOS.value,
        run_folder(),
        how(),
        targets=options.TARGETS.value,
        methods=options.METHODS.value,
        stages=options.STAGES.value,
        baselines=options.BASELINES.value,
        nodes=options.NODES.value,
        vectors=path(options.VECTORS),
        whole=options.WHOLE_VIDEO.value,
        films=options.FILMS.value,
        limit_clips=options.LIMITS.value,
        batch=options.BATCH_SIZE.value or 4,
        workers=options.WORKERS.value,
        seed=options.SEED.value,
        random_weights=options.RANDOM_WEIGHTS.value,
        flags=flags_text(),
    )


def motion() -> None:
    from vtcav_jax.attribution.decisions import Measuring
    from vtcav_jax.tasks import motion

    measuring = Measuring(
        method=one(options.METHODS) or "gradient_x_input",
        stage=one(options.STAGES),
        n=options.SIGMAS.value,
        seed=options.SEED.value,
        flow=options.FLOW.value,
    )
    motion.motion(
        needed(options.MODEL, "a network that ships, or a path"),
        options.VIDEOS.value,
        run_folder(),
        how(),
        measuring,
        targets=options.TARGETS.value,
        whole=options.WHOLE_VIDEO.value,
        batch=options.BATCH_SIZE.value or 4,
        workers=options.WORKERS.value,
        random_seed=options.SEED.value if options.RANDOM_WEIGHTS.value else None,
        flags=flags_text(),
    )


def pyramid() -> None:
    from vtcav_jax.tasks import pyramid

    asking = pyramid.Asking(
        stages=tuple(options.STAGES.value),
        depth=options.DEPTH.value,
        select=options.SELECT.value,
        most=options.KERNELS.value,
        edges=options.EDGES.value,
        most_clips=options.PYRAMID_CLIPS.value,
        seed=options.SEED.value,
    )
    pyramid.pyramid(
        needed(options.MODEL, "a network that ships, or a path"),
        options.VIDEOS.value,
        run_folder(),
        how(),
        asking,
        targets=options.TARGETS.value,
        vectors=path(options.VECTORS),
        workers=options.WORKERS.value,
        random_weights=options.RANDOM_WEIGHTS.value,
        flags=flags_text(),
    )


def truth() -> None:
    from vtcav_jax.tasks import truth

    truth.truth(
        options.NETWORK.value,
        run_folder(),
        methods=options.METHODS.value,
        own=options.METHOD.value,
        worlds=options.WORLDS.value,
        clips=options.TRUTH_CLIPS.value,
        flags=flags_text(),
    )


def one(flag: flags.FlagHolder) -> str | None:
    if len(flag.value) > 1:
        raise ValueError(f"--{flag.name}={','.join(flag.value)}: --task={options.TASK.value} takes one")
    return next(iter(flag.value), None)


def needed(flag: flags.FlagHolder, what: str) -> str:
    if flag.value is None:
        raise ValueError(f"--{flag.name} is missing: {what}; see --help")
    return flag.value


def concepts_folder() -> str | None:
    if len(options.CONCEPTS.value) > 1:
        given = ",".join(options.CONCEPTS.value)
        raise ValueError(f"--concepts={given}: --task={options.TASK.value} takes one folder of concept sets")
    return next(iter(options.CONCEPTS.value), None)


def path(flag: flags.FlagHolder) -> Path | None:
    return None if flag.value is None else Path(flag.value)


def how():
    from vtcav_jax.video import How

    return How(options.NUM_CLIPS.value, options.VIEWS.value, normalise=False, interval_seconds=options.INTERVAL.value)  # type: ignore[arg-type]


def run_folder(name: str | None = None) -> Path | None:
    name = options.RUN.value if name is None else name
    return None if not name else Path(name) if "/" in name else Path("runs") / name


def flags_text() -> str:
    """Every flag that the task takes, as it was resolved, as a flagfile."""
    mine = [flag for flag in options.ours() if options.TASK.value in (options.tasks_of(flag) or [options.TASK.value])]
    told = [flag for flag in mine if flag.value is not None and flag.name != options.PROCESS_ID.name]
    return "".join(f"{flag.serialize()}\n" for flag in told if flag.serialize())


FAULT, STOPPED = 70, 130  # exit codes; see options.CODES
TASKS: dict[str, Callable[[], int | None]] = {
    "quickstart": quickstart,
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
    from vtcav_jax import telling
    from vtcav_jax.names import unknown

    try:
        if unexpected:
            raise ValueError(f"unexpected {unexpected}; every argument is a flag, --name=value; see --help")
        if options.TASK.value is None:
            raise ValueError(f"--task is missing: one of {', '.join(TASKS)}; see --help")
        if options.TASK.value not in TASKS:
            raise ValueError("--task: " + unknown("task", [options.TASK.value], TASKS))
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
        print(options.help_text(named[-1] if named else None))
        sys.exit(0)
    app.run(main, flags_parser=refusals.parsed)


if __name__ == "__main__":
    start()
