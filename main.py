"""Asks a video network what it has learnt. One task a run:

  python main.py --task=stages --model=video_swin_b_k400
      every stage one can look into: its shape, features, and memory per 100 clips
  python main.py --task=predict --model=weights/swin_t --clips=clips.npy
      the five likeliest classes of each clip

Flags can be kept in a file: --flagfile=FILE, one --name=value a line; put it first, what follows it wins.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from absl import app, flags, logging

_TASK = flags.DEFINE_string("task", None, "what to do: stages or predict")
_MODEL = flags.DEFINE_string("model", None, "a preset (video_swin_t_k400, ...), or what weights_conversion wrote")
_CLIPS = flags.DEFINE_string(
    "clips",
    None,
    "predict: .npy file of clips (b, t, h, w, 3); uint8 is 0..255 and gets normalised, float32 is taken as normalised",
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 4, "predict: clips at once", lower_bound=1)
_TOP = flags.DEFINE_integer("top", 5, "predict: classes shown per clip", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "predict: also write the table to this .csv")
_RANDOM_WEIGHTS = flags.DEFINE_boolean(
    "random_weights", False, "predict: let a preset answer without weights, to try it out"
)
_SEED = flags.DEFINE_integer("seed", 0, "for --random_weights", lower_bound=0, upper_bound=2**32 - 1)


def stages(name: str) -> None:
    """Prints every stage of a preset by shape inference: nothing is computed."""
    import jax
    import jax.numpy as jnp

    from vtcav_jax import models, tap, weights

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


def predict(name: str) -> None:
    """Prints the likeliest classes of each clip."""
    import numpy as np

    from vtcav_jax import models
    from vtcav_jax.progress import progress

    if _CLIPS.value is None:
        raise ValueError("--task=predict needs --clips=FILE.npy, an array (b, t, h, w, 3)")
    if _OUT.value is not None and Path(_OUT.value).suffix != ".csv":
        raise ValueError(f"--out={_OUT.value} must end in .csv")
    if _OUT.value is not None and not Path(_OUT.value).absolute().parent.is_dir():
        raise ValueError(f"--out={_OUT.value}: there is no folder {Path(_OUT.value).parent}; make it first")
    clips = read_clips(Path(_CLIPS.value))
    if name in models.PRESETS:
        if not _RANDOM_WEIGHTS.value:
            raise ValueError(
                f"{name} is a network without weights; give --model=WHAT_weights_conversion_WROTE, or "
                "--random_weights to try it out"
            )
        loaded = models.Loaded(models.make(name, seed=_SEED.value), name, models.PRESETS[name].labels)
    else:
        loaded = models.load(name)
    geometry = models.PRESETS[loaded.preset].geometry
    if clips.shape[1:] != geometry.shape:
        print(f"note: clips are {clips.shape[1:]}, {loaded.preset} was made for {geometry.shape}", file=sys.stderr)
    batches = progress(predicted(loaded, clips, _BATCH_SIZE.value), len(clips), "clips")
    probabilities = np.concatenate(list(batches))
    rows: list[tuple] = [("clip", "rank", "class", "label", "probability")]
    for clip, row in enumerate(probabilities):
        for rank, k in enumerate(np.argsort(-row, kind="stable")[: _TOP.value], start=1):
            rows.append((clip, rank, int(k), loaded.labels[k] if loaded.labels else "", f"{row[k]:.4f}"))
    for row in rows:
        print("{:>6} {:>5} {:>6}  {:32} {}".format(*row))
    if _OUT.value is not None:
        with open(_OUT.value, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)


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


def predicted(loaded, clips, batch_size: int) -> Iterator:
    """Probabilities, batch by batch; the last batch is filled up so that its shape is known already."""
    import jax
    import numpy as np

    from vtcav_jax import models

    run = jax.jit(lambda model, video: jax.nn.softmax(model(video)))
    geometry = models.PRESETS[loaded.preset].geometry
    for start in range(0, len(clips), batch_size):
        batch = np.asarray(clips[start : start + batch_size])
        if batch.dtype == np.uint8:
            batch = geometry.normalised(batch)
        fill = min(batch_size, len(clips)) - len(batch)
        video = np.concatenate([batch, np.zeros((fill, *batch.shape[1:]), batch.dtype)]) if fill else batch
        yield np.asarray(run(loaded.model, video))[: len(batch)]


def readable(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.2f} MiB"


TASKS = {"stages": stages, "predict": predict}


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
        if _MODEL.value is None:
            raise ValueError("--model is missing: a preset, or what weights_conversion wrote; see --help")
        TASKS[_TASK.value](_MODEL.value)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {printable(str(error))}")


if __name__ == "__main__":
    app.run(main)
