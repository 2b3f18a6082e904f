"""Command of the task predict: print the most likely classes of each clip."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from vtcav_jax import distributed, models
from vtcav_jax.accuracy.measures import top_k_accuracy
from vtcav_jax.accuracy.stored_predictions import labelled_predictions
from vtcav_jax.cli.accuracy_table import accuracy_table
from vtcav_jax.cli.arguments import (
    NUM_WORKERS_HELP,
    VIDEOS_HELP,
    ModelArguments,
    ProcessArguments,
    RandomWeightsArguments,
)
from vtcav_jax.cli.commands import all_failed_error, format_table, load_network, open_nonempty
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit, info, progress, warn
from vtcav_jax.data import ReadResult, SamplingConfig, Source, failure_table
from vtcav_jax.names import count_noun
from vtcav_jax.runs.tables import write_table
from vtcav_jax.settings import (
    BATCH_HELP,
    MAX_BATCH_SIZE,
    MAX_SEED,
    MAX_WORKERS,
    SEED_HELP,
    check_settings,
    concerning,
    nested,
    setting,
)
from vtcav_jax.training.evaluate import predict_clips, predict_source
from vtcav_jax.training.label_join import match_heads

PREDICTION_COLUMNS = ("clip", "head", "rank", "class", "label", "probability")
MAX_VIDEO_ROWS = 40  # rows of the table of videos on the terminal


@dataclass(frozen=True, kw_only=True)
class PredictArguments(ModelArguments, RandomWeightsArguments, ProcessArguments):
    videos: str | None = setting(None, VIDEOS_HELP)
    clips_file: Path | None = setting(
        None,
        "clips instead of --videos: .npy file of shape (b, t, h, w, 3), uint8 (0..255) or float32 (already normalised)",
    )
    sampling: SamplingConfig = nested(SamplingConfig)
    batch_size: int = setting(4, BATCH_HELP, minimum=1, maximum=MAX_BATCH_SIZE)
    top_k: int = setting(5, "number of classes to print per clip and head", minimum=1)
    num_workers: int = setting(2, NUM_WORKERS_HELP, minimum=0, maximum=MAX_WORKERS)
    out: Path | None = setting(None, ".csv file to which the table is also written")
    seed: int = setting(0, SEED_HELP, minimum=0, maximum=MAX_SEED)

    def __post_init__(self):
        problems = []
        if (self.clips_file is None) == (self.videos is None):
            problems.append(("videos", "predict needs --videos=WHERE or --clips_file=FILE.npy, but not both"))
        if self.clips_file is not None and self.coordinator is not None:
            problems.append(("coordinator", "several processes share videos; omit it, or give --videos"))
        if self.out is not None and self.out.suffix != ".csv":
            problems.append(("out", f"expected a .csv file, got {self.out}"))
        elif self.out is not None and not self.out.absolute().parent.is_dir():
            problems.append(("out", f"the folder {self.out.parent} does not exist; create it first"))
        check_settings(self, *problems)


@dataclass(frozen=True)
class VideoPrediction:
    """Class probabilities of a video and the extent of its clips in frames and seconds, or why it cannot be read."""

    index: int
    failure: str
    probability: Sequence[float] = ()
    extent: tuple[int, int, float, float] = (0, 0, 0.0, 0.0)
    padded: bool = False


def predict(args: PredictArguments, context: CommandContext) -> None:
    """Print the most likely classes of each clip, and the videos that could not be read."""
    source = None if args.videos is None else open_nonempty(args.videos)
    with concerning("clips_file"):
        array = None if args.clips_file is None else read_clip_array(args.clips_file)
    network = load_network(args, args.seed)
    by_position: dict[int, np.ndarray] = {}
    if array is not None:
        predictions, names = predict_array(network, array, args.batch_size), [str(len(array))]
    else:
        assert source is not None
        predictions = predict_videos(network, source, args.sampling, args.batch_size, args.num_workers, by_position)
        names = [item.name for item in source.items]
    rows: list[tuple] = []
    columns = (names, network.heads, (), (), [label for labels in network.heads.values() for label in labels], ())
    widths = [max(map(len, (title, *values))) for title, values in zip(PREDICTION_COLUMNS, columns)]
    line = "{:{}}  {:{}}  {:>{}}  {:>{}}  {:{}}  {:>{}}"
    if distributed.is_main_process():
        emit(line.format(*chain(*zip(PREDICTION_COLUMNS, widths))))
    for name, probability in predictions:
        for head, part in network.head_slices.items():
            head_probabilities = probability[part]
            for rank, k in enumerate(np.argsort(-head_probabilities, kind="stable")[: args.top_k], start=1):
                rows.append((name, head, rank, int(k), network.heads[head][k], f"{head_probabilities[k]:.4f}"))
                emit(line.format(*chain(*zip(rows[-1], widths))))
    if args.out is not None and distributed.is_main_process():
        write_table(args.out, PREDICTION_COLUMNS, rows)
    if source is not None and source.heads and distributed.is_main_process():
        print_accuracy(network, source, by_position)


def print_accuracy(network: models.Network, source: Source, by_position: dict[int, np.ndarray]) -> None:
    """Print the accuracy on videos whose labels are classes of the network; a note says why there is none."""
    try:
        heads = labelled_predictions(network, source, match_heads(network.heads, source.heads), by_position)
    except ValueError as error:
        info(f"\nnote: no accuracy is computed: {error}")
        return
    if heads:
        emit(f"\n{accuracy_table([row for head in heads for row in top_k_accuracy(head.predictions)])}")
    left_out = len(by_position) - max((len(head.names) for head in heads), default=0)
    if left_out:
        info(f"note: {count_noun(left_out, 'video')} without a label of the network's classes left out of the accuracy")


def predict_array(network: models.Network, clips: np.ndarray, batch_size: int) -> Iterator[tuple[str, np.ndarray]]:
    clip_spec = network.clip_spec
    if clips.shape[1:] != clip_spec.shape:
        warn(f"warning: the clips have shape {clips.shape[1:]}; {network.name} was made for {clip_spec.shape}")
    results = predict_clips(network, (clip[None] for clip in clips), min(batch_size, len(clips)))
    for i, probability in enumerate(progress(results, len(clips), "clips", size=lambda _: 1)):
        yield str(i), probability


def predict_videos(
    network: models.Network,
    source: Source,
    sampling: SamplingConfig,
    batch_size: int,
    num_workers: int,
    by_position: dict[int, np.ndarray],
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and probabilities of each video, in the main process, and add these to `by_position`."""

    def predict_share(positions: Sequence[int]) -> Iterator[VideoPrediction]:
        results = predict_source(network, source, batch_size, sampling, num_workers=num_workers, positions=positions)
        for read, probability in progress(results, len(positions), "videos", size=lambda _: 1):
            if read.clip is None or probability is None:
                yield VideoPrediction(read.index, read.failure or "")
                continue
            frames, times = read.clip.frames, read.clip.times
            extent = (int(frames.min()), int(frames.max()), float(times.min()), float(times.max()))
            yield VideoPrediction(read.index, "", probability.tolist(), extent, read.clip.padded)

    failed, cells = [], []
    for fields in distributed.ordered_results(
        range(len(source.items)), lambda positions: map(asdict, predict_share(positions)), batch_size
    ):
        prediction = VideoPrediction(**fields)
        item = source.items[prediction.index]
        if not prediction.probability:
            failed.append(ReadResult(prediction.index, item, None, prediction.failure))
            continue
        first, last, begin, end = prediction.extent
        note = "frames repeated: shorter than the network's clip" if prediction.padded else ""
        cells.append((item.name, f"{first} to {last}", f"{begin:.2f} to {end:.2f}", note))
        by_position[prediction.index] = np.array(prediction.probability)
        yield item.name, by_position[prediction.index]
    if not distributed.is_main_process():
        return
    info(f"\nRead {len(source.items) - len(failed)} of {count_noun(len(source.items), 'video')} of {source.spec}")
    if cells:
        info(format_table(("video", "frames", "seconds", ""), cells[:MAX_VIDEO_ROWS], left=4))
    if len(cells) > MAX_VIDEO_ROWS:
        info(f"... {len(cells) - MAX_VIDEO_ROWS} more videos")
    if not cells:
        raise all_failed_error(source, failed)
    if failed:
        info(failure_table(failed))


def read_clip_array(path: Path) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"there is no file {path}; expected a .npy file of shape (b, t, h, w, 3)")
    try:
        clips = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a .npy array of numbers ({error})") from error
    if not isinstance(clips, np.ndarray) or clips.ndim != 5 or clips.shape[-1] != 3 or 0 in clips.shape:
        raise ValueError(f"{path} has {getattr(clips, 'shape', 'several arrays')}; expected clips (b, t, h, w, 3)")
    if clips.dtype == np.float32 and (wrong := [i for i, clip in enumerate(clips) if not np.isfinite(clip).all()]):
        raise ValueError(f"{path}: clips {wrong[:10]} have values that are not finite")
    if clips.dtype not in (np.uint8, np.float32):
        raise ValueError(f"{path} has type {clips.dtype}; expected uint8 (0..255) or float32 (normalised)")
    return clips
