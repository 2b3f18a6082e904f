"""--task=stages and --task=predict: what is in a network, and what it says."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from vtcav_jax import models, tap
from vtcav_jax.cli.commands import open_nonempty
from vtcav_jax.console import emit, info, progress, warn
from vtcav_jax.data import SamplingConfig, Source, failure_table
from vtcav_jax.models import parameters
from vtcav_jax.runs import directory
from vtcav_jax.training.evaluate import predict_clips, predict_source

PREDICTION_COLUMNS = ("clip", "head", "rank", "class", "label", "probability")
MAX_PREDICTION_ROWS = 40  # rows of a table on the terminal


def inspect_network(name: str) -> None:
    """Prints every stage of a network by shape inference: nothing is computed."""
    model, preset = models.abstract_model(name)
    video = jax.ShapeDtypeStruct((1, *preset.clip_spec.shape), jnp.float32)
    logits, shapes = jax.eval_shape(lambda m, v: tap.activations(m, v, tap.stages_of(m)), model, video)
    count = parameters.count_parameters(model)
    emit(f"{name}: {count:,} parameters, {logits.shape[-1]} classes; {preset.citation}")
    emit(f"one clip is {' x '.join(map(str, preset.clip_spec.shape))}, {preset.clip_spec.sampling_description}\n")
    rows = [(stage, shapes[stage]) for stage in tap.stages_of(model)]
    emit(f"{'stage':24}{'shape of one clip':>22}{'features':>12}{'100 clips':>12}")
    for stage, a in rows:
        shape = " x ".join(map(str, a.shape[1:]))
        emit(f"{stage:24}{shape:>22}{a.size:>12,}{format_bytes(100 * a.size * a.dtype.itemsize):>12}")


def format_bytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.2f} MiB"


def predict(
    model: str,
    *,
    videos: str | None = None,
    clips_file: Path | None = None,
    sampling: SamplingConfig,
    batch_size: int = 4,
    top_k: int = 5,
    num_workers: int = 2,
    out: Path | None = None,
    random_weights_seed: int | None = None,
) -> None:
    """Prints the likeliest classes of each clip of `spec` or of the array file `clips`, and what could not be read."""
    if (clips_file is None) == (videos is None):
        raise ValueError("--task=predict needs --videos=WHERE, or --clips=FILE.npy, and not both")
    if out is not None and out.suffix != ".csv":
        raise ValueError(f"--out={out} must end in .csv")
    if out is not None and not out.absolute().parent.is_dir():
        raise ValueError(f"--out={out}: there is no folder {out.parent}; make it first")
    array = None if clips_file is None else read_clip_array(clips_file)
    source = None if videos is None else open_nonempty(videos)
    network = load_model(model, random_weights_seed)
    if array is not None:
        predictions = predict_array(network, array, batch_size)
    else:
        assert source is not None
        predictions = predict_videos(network, source, sampling, batch_size, num_workers)
    rows: list[tuple] = []
    emit("{:32} {:10} {:>4} {:>6}  {:32} {}".format(*PREDICTION_COLUMNS))
    for name, probability in predictions:
        for head, part in network.head_slices.items():
            head_probabilities = probability[part]
            for rank, k in enumerate(np.argsort(-head_probabilities, kind="stable")[:top_k], start=1):
                rows.append((name, head, rank, int(k), network.heads[head][k], f"{head_probabilities[k]:.4f}"))
                emit("{:32} {:10} {:>4} {:>6}  {:32} {}".format(*rows[-1]))
    if out is not None:
        directory.write_table(out, PREDICTION_COLUMNS, rows)


def load_model(name: str, random_weights_seed: int | None = None) -> models.Network:
    """A network that can answer; a preset only if its weights may be random."""
    if name not in models.PRESETS:
        return models.load(name)
    if random_weights_seed is None:
        raise ValueError(
            f"{name} is a network without weights; give --model=WHAT_weights_conversion_OR_train_WROTE, one that "
            f"ships ({', '.join(models.shipped_networks())}), or --random_weights to try it out"
        )
    warn(f"note: {name} has random weights: it has learnt nothing, and no answer of it means anything")
    return models.random_network(name, seed=random_weights_seed)


def predict_array(network: models.Network, clips: np.ndarray, batch_size: int) -> Iterator[tuple[str, np.ndarray]]:
    clip_spec = network.clip_spec
    if clips.shape[1:] != clip_spec.shape:
        warn(f"note: clips are {clips.shape[1:]}, {network.name} was made for {clip_spec.shape}")
    results = predict_clips(network, (clip[None] for clip in clips), min(batch_size, len(clips)))
    for i, probability in enumerate(progress(results, len(clips), "clips", size=lambda _: 1)):
        yield str(i), probability


def predict_videos(
    network: models.Network, source: Source, sampling: SamplingConfig, batch_size: int, num_workers: int
) -> Iterator[tuple[str, np.ndarray]]:
    results = predict_source(network, source, batch_size, sampling, num_workers=num_workers)
    failed, lines = [], []
    for read, probability in progress(results, len(source.items), "videos", size=lambda _: 1):
        if read.clip is None or probability is None:
            failed.append(read)
            continue
        first, last = read.clip.frames.min(), read.clip.frames.max()
        seconds = f"{read.clip.times.min():.2f} to {read.clip.times.max():.2f}"
        note = "  shorter than the network's clip: frames come twice" if read.clip.padded else ""
        lines.append(f"{read.item.name:32} {f'{first} to {last}':>14} {seconds:>18}{note}")
        yield read.item.name, probability
    info(f"\nread {len(source.items) - len(failed)} of {len(source.items)} videos of {source.spec}")
    if lines:
        info("\n".join([f"{'video':32} {'frames':>14} {'seconds':>18}", *lines[:MAX_PREDICTION_ROWS]]))
    if len(lines) > MAX_PREDICTION_ROWS:
        info(f"and {len(lines) - MAX_PREDICTION_ROWS} more")
    if failed:
        info(failure_table(failed))


def read_clip_array(path: Path) -> np.ndarray:
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
