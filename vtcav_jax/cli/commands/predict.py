"""--task=predict: the most likely classes of each clip."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vtcav_jax import models
from vtcav_jax.cli.arguments import ModelArguments, RandomWeightsArguments
from vtcav_jax.cli.commands import load_network, open_nonempty
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit, info, progress, warn
from vtcav_jax.data import SamplingConfig, Source, failure_table
from vtcav_jax.runs.tables import write_table
from vtcav_jax.settings import BATCH_HELP, MAX_SEED, SEED_HELP, check_settings, concerning, nested, setting
from vtcav_jax.training.evaluate import predict_clips, predict_source

PREDICTION_COLUMNS = ("clip", "head", "rank", "class", "label", "probability")
MAX_PREDICTION_ROWS = 40  # rows of a table on the terminal


@dataclass(frozen=True, kw_only=True)
class PredictArguments(ModelArguments, RandomWeightsArguments):
    videos: str | None = setting(None, "source of clips: folder, file, .csv, tfds:..., worlds:...")
    clips_file: Path | None = setting(
        None, "instead of --videos: a .npy file (b, t, h, w, 3); uint8 is 0..255, float32 is normalised already"
    )
    sampling: SamplingConfig = nested(SamplingConfig)
    batch_size: int = setting(4, BATCH_HELP, minimum=1)
    top_k: int = setting(5, "classes printed per clip and head", minimum=1)
    num_workers: int = setting(2, "processes that decode videos; 0: decode in this process", minimum=0)
    out: Path | None = setting(None, "also write the table to this .csv file")
    seed: int = setting(0, SEED_HELP, minimum=0, maximum=MAX_SEED)

    def __post_init__(self):
        problems = []
        if (self.clips_file is None) == (self.videos is None):
            problems.append(("videos", "--task=predict needs --videos=WHERE or --clips_file=FILE.npy, and not both"))
        if self.out is not None and self.out.suffix != ".csv":
            problems.append(("out", f"expected a file that ends in .csv, got {self.out}"))
        elif self.out is not None and not self.out.absolute().parent.is_dir():
            problems.append(("out", f"there is no folder {self.out.parent}; make it first"))
        check_settings(self, *problems)


def predict(args: PredictArguments, context: CommandContext) -> None:
    """Print the most likely classes of each clip, and what could not be read."""
    source = None if args.videos is None else open_nonempty(args.videos)
    with concerning("clips_file"):
        array = None if args.clips_file is None else read_clip_array(args.clips_file)
    network = load_network(args.model, random_weights=args.random_weights, seed=args.seed)
    if array is not None:
        predictions = predict_array(network, array, args.batch_size)
    else:
        assert source is not None
        predictions = predict_videos(network, source, args.sampling, args.batch_size, args.num_workers)
    rows: list[tuple] = []
    emit("{:32} {:10} {:>4} {:>6}  {:32} {}".format(*PREDICTION_COLUMNS))
    for name, probability in predictions:
        for head, part in network.head_slices.items():
            head_probabilities = probability[part]
            for rank, k in enumerate(np.argsort(-head_probabilities, kind="stable")[: args.top_k], start=1):
                rows.append((name, head, rank, int(k), network.heads[head][k], f"{head_probabilities[k]:.4f}"))
                emit("{:32} {:10} {:>4} {:>6}  {:32} {}".format(*rows[-1]))
    if args.out is not None:
        write_table(args.out, PREDICTION_COLUMNS, rows)


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
