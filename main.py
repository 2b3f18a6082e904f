"""Asks a video network what it has learnt. One task a run:

  python main.py --task=stages --model=video_swin_b_k400
      every stage one can look into: its shape, features, and memory per 100 clips
  python main.py --task=predict --model=worlds_swin --videos=FOLDER
      the likeliest classes of each clip, and which files could not be read
  python main.py --task=train --model=video_swin_tiny --videos=FOLDER --held_out=OTHER --run=NAME
      a network of one's own, trained or fine-tuned; the same command continues what was interrupted
  python main.py --task=prepare --videos=FOLDER --model=video_swin_t_k400 --out=DIR
      decodes a corpus once; --videos=DIR reads it back

Videos are a folder (of class folders), one file, a manifest (.csv: path, label or label:HEAD, start, end), a dataset
(tfds:NAME:SPLIT), what --task=prepare wrote, or synthetic clips (worlds:small:COUNT:SEED).

Flags can be kept in a file: --flagfile=FILE, one --name=value a line; put it first, what follows it wins.
"""

import sys
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from absl import app, flags, logging

_TASK = flags.DEFINE_string("task", None, "what to do: stages, predict, train or prepare")
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "a preset (video_swin_t_k400, ...), a trained network that ships (worlds_swin, worlds_cnn), or a path",
)
_VIDEOS = flags.DEFINE_string("videos", None, "where clips come from: folder, file, .csv, tfds:..., worlds:...")
_CLIPS = flags.DEFINE_string(
    "clips",
    None,
    "predict, instead of --videos: .npy file of clips (b, t, h, w, 3); uint8 is 0..255, float32 is normalised already",
)
_NUM_CLIPS = flags.DEFINE_integer("num_clips", 1, "predict: clips per video, spread over it", lower_bound=1)
_VIEWS = flags.DEFINE_enum("views", "centre", ["centre", "three"], "predict: crops per clip")
_INTERVAL = flags.DEFINE_float("interval_seconds", None, "between frames, in place of the preset's in frames")
_WORKERS = flags.DEFINE_integer("workers", 2, "processes that decode videos; 0: none but this one", lower_bound=0)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "clips at once (predict: 4, train: 64)", lower_bound=1)
_TOP = flags.DEFINE_integer("top", 5, "predict: classes shown per clip and head", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "predict: also write the table to this .csv; prepare: the folder to write")
_RANDOM_WEIGHTS = flags.DEFINE_boolean(
    "random_weights", False, "predict: let a preset answer without weights, to try it out"
)
_SEED = flags.DEFINE_integer("seed", 0, "for whatever is random", lower_bound=0, upper_bound=2**32 - 1)
_RUN = flags.DEFINE_string("run", None, "train: the folder of the run; without a slash, in runs/")
_HELD_OUT = flags.DEFINE_string("held_out", None, "train: videos on which the trained network is tested, as --videos")
_STEPS = flags.DEFINE_integer("steps", 1000, "train: batches", lower_bound=1)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 1e-3, "train: after the warm-up, from where it falls to 0")
_WARMUP = flags.DEFINE_integer(
    "warmup", None, "train: steps until the full learning rate; by default a tenth of all, at most 100", lower_bound=0
)
_WEIGHT_DECAY = flags.DEFINE_float("weight_decay", 0.05, "train: of AdamW")
_CLIP_NORM = flags.DEFINE_float("clip_norm", 1.0, "train: greatest norm of a gradient")
_AUGMENT = flags.DEFINE_enum(
    "augment",
    "none",
    ["none", "flip", "torus"],
    "train: flip mirrors half of the clips (not where left and right are classes); torus shifts worlds:... clips",
)
_RANDOM_START = flags.DEFINE_boolean("random_start", False, "train: another part of the video each time")
_CHECKPOINT_EVERY = flags.DEFINE_integer("checkpoint_every", 200, "train: steps", lower_bound=1)
_BFLOAT16 = flags.DEFINE_boolean("bfloat16", False, "train: compute in bfloat16; parameters stay float32")
_GATES = flags.DEFINE_integer("gates", 0, "train, on a world: clips on which its causes are checked", lower_bound=0)

SHOWN = 40  # rows of a table on the terminal


def stages() -> None:
    """Prints every stage of a network by shape inference: nothing is computed."""
    import jax
    import jax.numpy as jnp

    from vtcav_jax import models, tap, weights

    name = model_name()
    model, preset = models.abstract(name)
    video = jax.ShapeDtypeStruct((1, *preset.geometry.shape), jnp.float32)
    logits, seen = jax.eval_shape(lambda m, v: tap.activations(m, v, tap.stages_of(m)), model, video)
    count = sum(a.size for a in weights.parameters(model).values())
    print(f"{name}: {count:,} parameters, {logits.shape[-1]} classes; {preset.citation}")
    print(f"one clip is {' x '.join(map(str, preset.geometry.shape))}, {preset.geometry.spacing}\n")
    rows = [(stage, seen[stage]) for stage in tap.stages_of(model)]
    print(f"{'stage':24}{'shape of one clip':>22}{'features':>12}{'100 clips':>12}")
    for stage, a in rows:
        shape = " x ".join(map(str, a.shape[1:]))
        print(f"{stage:24}{shape:>22}{a.size:>12,}{readable(100 * a.size * a.dtype.itemsize):>12}")


def predict() -> None:
    """Prints the likeliest classes of each clip, and what could not be read."""
    import numpy as np

    from vtcav_jax import runs

    if (_CLIPS.value is None) == (_VIDEOS.value is None):
        raise ValueError("--task=predict needs --videos=WHERE, or --clips=FILE.npy, and not both")
    if _OUT.value is not None and Path(_OUT.value).suffix != ".csv":
        raise ValueError(f"--out={_OUT.value} must end in .csv")
    if _OUT.value is not None and not Path(_OUT.value).absolute().parent.is_dir():
        raise ValueError(f"--out={_OUT.value}: there is no folder {Path(_OUT.value).parent}; make it first")
    given = read_clips(Path(_CLIPS.value)) if _CLIPS.value is not None else videos(_VIDEOS.value)
    answers = clips_answers if _CLIPS.value is not None else video_answers
    loaded = trained_model(_RANDOM_WEIGHTS.value)
    columns = ("clip", "head", "rank", "class", "label", "probability")
    rows: list[tuple] = []
    print("{:32} {:10} {:>4} {:>6}  {:32} {}".format(*columns))
    for name, probability in answers(loaded, given):
        for head, part in loaded.slices.items():
            found = probability[part]
            for rank, k in enumerate(np.argsort(-found, kind="stable")[: _TOP.value], start=1):
                rows.append((name, head, rank, int(k), loaded.heads[head][k], f"{found[k]:.4f}"))
                print(printed("{:32} {:10} {:>4} {:>6}  {:32} {}".format(*rows[-1])))
    if _OUT.value is not None:
        runs.write_table(Path(_OUT.value), columns, rows)


def clips_answers(loaded, clips) -> Iterable[tuple]:
    from vtcav_jax import models
    from vtcav_jax.prediction import probabilities
    from vtcav_jax.progress import progress

    geometry = models.PRESETS[loaded.preset].geometry
    if clips.shape[1:] != geometry.shape:
        print(f"note: clips are {clips.shape[1:]}, {loaded.preset} was made for {geometry.shape}", file=sys.stderr)
    found = probabilities(loaded, (clip[None] for clip in clips), min(_BATCH_SIZE.value or 4, len(clips)))
    return enumerate(progress(found, len(clips), "clips", size=lambda _: 1))


def video_answers(loaded, source) -> Iterable[tuple]:
    from vtcav_jax.prediction import predicted
    from vtcav_jax.progress import progress
    from vtcav_jax.video import How, failure_table

    how = How(_NUM_CLIPS.value, _VIEWS.value, normalise=False, interval_seconds=_INTERVAL.value)
    found = predicted(loaded, source, _BATCH_SIZE.value or 4, how, workers=_WORKERS.value)
    failed, lines = [], []
    for read, probability in progress(found, len(source.items), "videos", size=lambda _: 1):
        item = source.items[read.index]
        if read.clip is None:
            failed.append(read)
            continue
        first, last = read.clip.frames.min(), read.clip.frames.max()
        seconds = f"{read.clip.times.min():.2f} to {read.clip.times.max():.2f}"
        note = "  shorter than the network's clip: frames come twice" if read.clip.padded else ""
        lines.append(f"{item.name:32} {f'{first} to {last}':>14} {seconds:>18}{note}")
        yield item.name, probability
    print(f"\nread {len(source.items) - len(failed)} of {len(source.items)} videos of {printed(source.spec)}")
    print(f"{'video':32} {'frames':>14} {'seconds':>18}")
    print(printed("\n".join(lines[:SHOWN])))
    if len(lines) > SHOWN:
        print(f"and {len(lines) - SHOWN} more")
    if failed:
        print(printed(failure_table(failed)))


def train() -> None:
    """Trains a network on labelled videos into a run's folder, and says how good it is."""
    import jax.numpy as jnp

    from vtcav_jax import models, runs, training, weights
    from vtcav_jax.prediction import accuracy
    from vtcav_jax.report.curves import training_curves
    from vtcav_jax.video import failure_table, write_failures
    from vtcav_jax.worlds import gates

    name = model_name()
    if _RUN.value is None:
        raise ValueError("--task=train needs --run=NAME, the folder of the run")
    if _VIDEOS.value is None:
        raise ValueError("--task=train needs --videos=WHERE, labelled clips")
    recipe = training.Recipe(
        steps=_STEPS.value,
        batch_size=_BATCH_SIZE.value or 64,
        learning_rate=_LEARNING_RATE.value,
        warmup=min(100, _STEPS.value // 10) if _WARMUP.value is None else _WARMUP.value,
        weight_decay=_WEIGHT_DECAY.value,
        clip_norm=_CLIP_NORM.value,
        augment=_AUGMENT.value,
        random_start=_RANDOM_START.value,
        checkpoint_every=_CHECKPOINT_EVERY.value,
        seed=_SEED.value,
    )
    source = videos(_VIDEOS.value)
    heads = training.checked_heads(source)
    held_out = None if _HELD_OUT.value is None else videos(_HELD_OUT.value)
    world = source.spec.split(":")[1] if source.spec.startswith("worlds:") else None
    if _AUGMENT.value == "torus" and world is None:
        raise ValueError(f"--augment=torus is for worlds:..., whose borders meet; {source.spec} is not one")
    if _GATES.value and world is None:
        raise ValueError(f"--gates checks a world's causes; --videos={source.spec} is not worlds:...")
    start = models.load(name) if name not in models.PRESETS else None
    preset = name if start is None else start.preset
    geometry = models.PRESETS[preset].geometry
    classes = sum(map(len, heads.values()))
    make = partial(
        models.make,
        preset,
        num_classes=classes,
        seed=recipe.seed,
        dtype=jnp.bfloat16 if _BFLOAT16.value else jnp.float32,
    )
    asked = asdict(recipe) | {"model": name, "videos": source.spec, "bfloat16": _BFLOAT16.value}
    folder = runs.open_run(run_folder(), asked | {"items": source.identity}, flags_text())
    initial = None if start is None else training.with_new_head(weights.parameters(start.model), make)
    trained = training.train(make, source, geometry, recipe, folder, initial=initial, workers=_WORKERS.value)
    if trained.failures:
        print(printed(failure_table(trained.failures)))
        write_failures(folder / "failures.csv", trained.failures)
    print(f"curves: {training_curves(folder / 'metrics.csv')}")
    out = folder / "model.safetensors"
    if not out.exists():
        models.save(out, trained.model, preset, heads, run=folder.name, videos=source.spec)
    print(f"network: {out}")
    loaded = models.load(out)
    if held_out is not None:
        failed = []
        found = accuracy(loaded, held_out, recipe.batch_size, workers=_WORKERS.value, failed=failed)
        rows = [(a.head, a.n, a.right, a.share, *a.interval) for a in found]
        runs.write_table(folder / "accuracy.csv", ("head", "n", "right", "accuracy", "low", "high"), rows)
        print(f"on {printed(held_out.spec)} ({len(failed)} not read):")
        for head, n, _, share, low, high in rows:
            print(f"  {head:16} {share:.4f} of {n} right (95 % interval {low:.4f} to {high:.4f})")
    if _GATES.value:
        found = gates(loaded.model, world, _GATES.value, seed=recipe.seed + 1, prepare=prepared_for(geometry))
        runs.write_text(folder / "gates.txt", found.table() + "\n")
        print(found.table())
        found.check()


def prepare() -> None:
    """Decodes a corpus once."""
    from vtcav_jax import models
    from vtcav_jax.video import How, failure_table
    from vtcav_jax.video.prepared import prepare as prepare_dataset

    if _VIDEOS.value is None or _OUT.value is None:
        raise ValueError("--task=prepare needs --videos=WHERE, --model=PRESET (for the clips' size) and --out=DIR")
    _, preset = models.abstract(model_name())
    how = How(_NUM_CLIPS.value, _VIEWS.value, normalise=False, interval_seconds=_INTERVAL.value)
    failed = prepare_dataset(videos(_VIDEOS.value), preset.geometry, how, Path(_OUT.value), workers=_WORKERS.value)
    print(f"wrote {_OUT.value}")
    if failed:
        print(printed(failure_table(failed)))


def model_name() -> str:
    if _MODEL.value is None:
        raise ValueError("--model is missing: a preset, a network that ships, or a path; see --help")
    return _MODEL.value


def trained_model(random: bool):
    from vtcav_jax import models

    name = model_name()
    if name not in models.PRESETS:
        return models.load(name)
    if not random:
        raise ValueError(
            f"{name} is a network without weights; give --model=WHAT_weights_conversion_OR_train_WROTE, one that "
            f"ships ({', '.join(models.shipped())}), or --random_weights to try it out"
        )
    return models.untrained(name, seed=_SEED.value)


def videos(spec: str):
    from vtcav_jax.video import open_source

    source = open_source(spec)
    if not source.items:
        raise ValueError(f"there are no videos in {spec}")
    return source


def run_folder() -> Path:
    name = _RUN.value
    return Path(name) if "/" in name else Path("runs") / name


def flags_text() -> str:
    """Every flag of ours as it was resolved, as a flagfile."""
    ours = flags.FLAGS.get_key_flags_for_module(sys.modules[__name__])
    return "".join(f"{flag.serialize()}\n" for flag in ours if flag.value is not None)


def prepared_for(geometry):
    """World clips in 0..1 as `geometry` wants them."""
    import numpy as np

    return lambda video: (video - np.float32(geometry.mean)) / np.float32(geometry.std)


def read_clips(path: Path):
    import numpy as np

    if not path.is_file():
        raise ValueError(f"there is no file {path}; expected a .npy array (b, t, h, w, 3)")
    try:
        clips = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a .npy array of numbers ({error})") from error
    if not isinstance(clips, np.ndarray) or clips.ndim != 5 or clips.shape[-1] != 3 or 0 in clips.shape:
        raise ValueError(f"{path} holds {getattr(clips, 'shape', 'several arrays')}; expected clips (b, t, h, w, 3)")
    if clips.dtype == np.float32 and (wrong := [i for i, clip in enumerate(clips) if not np.isfinite(clip).all()]):
        raise ValueError(f"{path}: clips {wrong[:10]} hold values that are not finite")
    if clips.dtype not in (np.uint8, np.float32):
        raise ValueError(f"{path} is {clips.dtype}; expected uint8 (0..255) or float32 (normalised)")
    return clips


def printed(text: str) -> str:
    from vtcav_jax.names import printable

    return printable(text)


def readable(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.2f} MiB"


TASKS = {"stages": stages, "predict": predict, "train": train, "prepare": prepare}


def main(argv: list[str]) -> None:
    from vtcav_jax.names import printable, unknown

    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        raise app.UsageError(f"unexpected {argv[1:]}; every argument is a flag, --name=value")
    try:
        if _TASK.value is None:
            raise ValueError(f"--task is missing: one of {', '.join(TASKS)}; see --help")
        if _TASK.value not in TASKS:
            raise ValueError(unknown("task", [_TASK.value], TASKS))
        TASKS[_TASK.value]()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {printable(str(error))}")


if __name__ == "__main__":
    app.run(main)
