"""What the flags ask for, in the library's own terms: settings, folders, and the commands of other tasks."""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

import options


def recipe():
    from vtcav_jax.training import Recipe

    return Recipe(
        steps=options.STEPS.value,
        batch_size=options.BATCH_SIZE.value or 64,
        learning_rate=options.LEARNING_RATE.value,
        warmup=min(100, options.STEPS.value // 10) if options.WARMUP.value is None else options.WARMUP.value,
        weight_decay=options.WEIGHT_DECAY.value,
        clip_norm=options.CLIP_NORM.value,
        label_smoothing=options.LABEL_SMOOTHING.value,
        augment=options.AUGMENT.value,  # type: ignore[arg-type]
        timeless=options.TIMELESS.value,
        timeless_from=options.TIMELESS_FROM.value,
        timeless_heads=tuple(options.TIMELESS_HEADS.value),
        random_start=options.RANDOM_START.value,
        checkpoint_every=options.CHECKPOINT_EVERY.value,
        seed=options.SEED.value,
    )


def mining():
    from vtcav_jax.concepts import Mining, concepts

    return Mining(
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


def testing():
    from vtcav_jax.tcav.settings import Experiment

    return Experiment(
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


def measuring():
    from vtcav_jax.attribution.decisions import Measuring

    return Measuring(
        method=one(options.METHODS) or "gradient_x_input",
        stage=one(options.STAGES),
        n=options.SIGMAS.value,
        seed=options.SEED.value,
        flow=options.FLOW.value,
    )


def pyramid():
    from vtcav_jax.tasks.pyramid import Asking

    return Asking(
        stages=tuple(options.STAGES.value),
        depth=options.DEPTH.value,
        select=options.SELECT.value,
        most=options.KERNELS.value,
        edges=options.EDGES.value,
        most_clips=options.PYRAMID_CLIPS.value,
        seed=options.SEED.value,
    )


def how():
    from vtcav_jax.video import How

    return How(options.NUM_CLIPS.value, options.VIEWS.value, normalise=False, interval_seconds=options.INTERVAL.value)  # type: ignore[arg-type]


def run_folder(name: str | None = None) -> Path | None:
    name = options.RUN.value if name is None else name
    return None if not name else Path(name) if "/" in name else Path("runs") / name


def path(flag: flags.FlagHolder) -> Path | None:
    return None if flag.value is None else Path(flag.value)


def concepts_folder() -> str | None:
    if len(options.CONCEPTS.value) > 1:
        given = ",".join(options.CONCEPTS.value)
        raise ValueError(f"--concepts={given}: --task={options.TASK.value} takes one folder of concept sets")
    return next(iter(options.CONCEPTS.value), None)


def needed(flag: flags.FlagHolder, what: str) -> str:
    if flag.value is None:
        raise ValueError(f"--{flag.name} is missing: {what}; see --help")
    return flag.value


def one(flag: flags.FlagHolder) -> str | None:
    if len(flag.value) > 1:
        raise ValueError(f"--{flag.name}={','.join(flag.value)}: --task={options.TASK.value} takes one")
    return next(iter(flag.value), None)


def random_seed() -> int | None:
    return options.SEED.value if options.RANDOM_WEIGHTS.value else None


def flags_text() -> str:
    """Every flag that the task takes, as it was resolved, as a flagfile."""
    mine = [flag for flag in options.ours() if options.TASK.value in (options.tasks_of(flag) or [options.TASK.value])]
    told = [flag for flag in mine if flag.value is not None and flag.name != options.PROCESS_ID.name]
    return "".join(f"{flag.serialize()}\n" for flag in told if flag.serialize())


def given(task: str, but: Sequence[flags.FlagHolder] = ()) -> list[str]:
    """What was given of the flags that a task takes, to be given to it."""
    names = {*(flag.name for flag in but), "task", "quiet", "log_json"}
    some = [flag for flag in options.ours() if task in (options.tasks_of(flag) or [task]) and flag.name not in names]
    return [flag.serialize() for flag in some if not flag.using_default_value]


def style() -> list[str]:
    """The flags of how things are told, for another process."""
    return [flag.serialize() for flag in (flags.FLAGS["quiet"], flags.FLAGS["log_json"])]
