"""Benchmark decoding of video files: clips per second, memory, and the share of time for which a model waits.

  python -m benchmarks.decode

The baseline is a loader that does not seek: PyAV decodes every frame of the file, and torchvision's preset crops the
clip. Writes benchmarks/results/decode_BACKEND.jsonl and its table.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import version
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import av
import jax
import numpy as np
import psutil
from absl import app, flags

from benchmarks import tables, timing, write_tables
from vtcav_jax import models
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data import SamplingConfig, Source, open_source, stream
from weights_conversion.torch_reference import video_models

_CLIPS = flags.DEFINE_integer("clips_per_run", 16, "clips per timed run", lower_bound=8)
_REPEATS = flags.DEFINE_integer("repeats", 3, "timed runs of each reader; readers take turns", lower_bound=1)

SIZES = ((240, 320), (720, 1280))
FRAMES = 300
FILES = 4
WORKERS = (0, 1, 2)
ACCELERATOR_SECONDS = 0.1  # time per clip of a simulated accelerator
BATCH = 32  # batch size of the model on this machine
PRESET, MODEL = "video_swin_t_k400", "video_swin_tiny"
SAMPLING = SamplingConfig(normalise=False)


def write_video(path: Path, size: tuple[int, int], seed: int) -> None:
    """Write a video of a drifting texture with noise, so that frames are partly predictable from each other."""
    random = np.random.default_rng(seed)
    height, width = size
    texture = random.integers(0, 256, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    noise = random.integers(-6, 7, (8, *texture.shape), np.int16)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for i in range(FRAMES):
            moved = np.roll(texture, (i, 2 * i), (0, 1))
            frame = np.clip(moved + noise[i % 8], 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def stream_clips(source: Source, clip_spec: ClipSpec, num_workers: int) -> Iterator[np.ndarray]:
    for read in stream(source, clip_spec, SAMPLING, positions=cycle(range(len(source.items))), num_workers=num_workers):
        assert read.clip is not None, read.failure
        yield read.clip.video[0]


def decode_everything(source: Source, clip_spec: ClipSpec) -> Iterator[np.ndarray]:
    """Decode whole files with FFmpeg's default number of threads, and yield the clip in the middle."""
    import torch

    video_models()  # patches torchvision first
    from torchvision.transforms._presets import VideoClassification

    assert clip_spec.resize is not None
    size = (clip_spec.size, clip_spec.size)
    cut = VideoClassification(crop_size=size, resize_size=(clip_spec.resize,), mean=clip_spec.mean, std=clip_spec.std)
    for item in cycle(source.items):
        with av.open(str(item.path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        first = (len(frames) - clip_spec.frames * clip_spec.interval + 1) // 2
        clip = frames[first :: clip_spec.interval][: clip_spec.frames]
        yield cut(torch.from_numpy(clip).permute(0, 3, 1, 2)).permute(1, 2, 3, 0).numpy()


class Memory:
    """Peak memory in MiB of this process, beyond `before`, and of all its children."""

    def __init__(self, before: int):
        self.before, self.process = before, psutil.Process()

    def __enter__(self) -> "Memory":
        self.process_peak, self.children_peak, self.stop = 0.0, 0.0, threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.stop.wait(0.02):
            self.process_peak = max(self.process_peak, (self.process.memory_info().rss - self.before) / 2**20)
            self.children_peak = max(self.children_peak, sum(map(_resident, self.process.children())) / 2**20)

    def __exit__(self, *_: Any) -> None:
        self.stop.set()
        self.thread.join()


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


def seconds_of(clips: Iterator[np.ndarray], count: int) -> float:
    """Return the seconds for `count` clips after a warm-up."""
    for _ in islice(clips, 8):
        pass
    start = time.perf_counter()
    for _ in islice(clips, count):
        pass
    return time.perf_counter() - start


def waiting_share(clips: Iterator[np.ndarray], count: int, batch: int, use: Callable[[np.ndarray], Any]) -> float:
    """Return the share of time for which `use`, called with batches, waits for clips."""
    for _ in islice(clips, 8):
        pass
    wait_seconds, start = 0.0, time.perf_counter()
    for _ in range(count // batch):
        request_time = time.perf_counter()
        video = np.stack(list(islice(clips, batch)))
        wait_seconds += time.perf_counter() - request_time
        use(video)
    return wait_seconds / (time.perf_counter() - start)


def small_model() -> tuple[Callable[[np.ndarray], Any], ClipSpec]:
    model, clip_spec = models.make(MODEL), models.get_preset(MODEL).clip_spec
    run_model = jax.jit(lambda model, video: model(clip_spec.normalise(video)))
    use = partial(_run_and_block, run_model, model)
    use(np.zeros((BATCH, *clip_spec.shape), np.uint8))
    return use, clip_spec


def _run_and_block(run_model: Callable[..., jax.Array], model: Any, video: np.ndarray) -> None:
    jax.block_until_ready(run_model(model, video))


def measure_readers(folder: Path, size: tuple[int, int], clips: int, repeats: int) -> list[dict[str, Any]]:
    video_models()
    before = _resident(psutil.Process())  # after imports, before reading
    name = f"{size[1]} x {size[0]}"
    for i in range(FILES):
        print(f"writing {name}, {i + 1} of {FILES} ...", file=sys.stderr, flush=True)
        write_video(folder / f"{i}.mp4", size, i)
    source, clip_spec = open_source(folder), models.get_preset(PRESET).clip_spec
    readers: dict[str, Callable[[], Iterator[np.ndarray]]] = {
        f"ours, {n} worker{'s' * (n != 1)}": partial(stream_clips, source, clip_spec, n) for n in WORKERS
    }
    readers["all frames"] = partial(decode_everything, source, clip_spec)
    seconds: dict[str, list[float]] = {reader: [] for reader in readers}
    memory: dict[str, Memory] = {}
    for _ in range(repeats):
        for reader, make in readers.items():
            print(f"{name}, {reader} ...", file=sys.stderr, flush=True)
            with Memory(before) as memory_use:
                seconds[reader].append(_closing(make(), lambda clips_: seconds_of(clips_, clips)))
            memory.setdefault(reader, memory_use)
    our_video, theirs = (next(readers[reader]()) for reader in ("ours, 0 workers", "all frames"))
    difference = timing.largest_difference(clip_spec.normalise(our_video), theirs)
    use, small = small_model()
    rows = []
    for reader, make in readers.items():
        median_seconds = median(seconds[reader])
        row: dict[str, Any] = {
            "video": name,
            "reader": reader,
            "clips_per_s": float(f"{clips / median_seconds:.3g}"),
            "slowest_clips_per_s": float(f"{clips / max(seconds[reader]):.3g}"),
            "memory_mib": round(memory[reader].process_peak),
            "workers_mib": round(memory[reader].children_peak),
            "waits": round(
                _closing(
                    make(), lambda clips_: waiting_share(clips_, clips, 1, lambda _: time.sleep(ACCELERATOR_SECONDS))
                ),
                3,
            ),
            "av": version("av"),
        }
        if reader == "all frames":
            row["difference"] = float(f"{difference:.2g}")
        else:
            reading = stream_clips(source, small, int(reader.split()[1]))
            row["model_waits"] = round(
                _closing(reading, lambda clips_: waiting_share(clips_, 2 * BATCH, BATCH, use)), 3
            )
            row["times_all_frames"] = round(timing.ratio(seconds["all frames"], seconds[reader]), 2)
        rows.append(row)
    return rows


def _closing(clips: Iterable[np.ndarray], measure: Callable[[Any], float]) -> float:
    try:
        return measure(clips)
    finally:
        clips.close()  # pyright: ignore[reportAttributeAccessIssue] (it is a generator)


def main(argv: list[str]) -> None:
    del argv
    results = []
    for size in SIZES:
        # One process per size: memory that is freed but not returned to the system would hide the use of the next.
        with tempfile.TemporaryDirectory() as folder, get_context("spawn").Pool(1) as pool:
            results += pool.apply(measure_readers, (Path(folder), size, _CLIPS.value, _REPEATS.value))
    print(tables.decode_table(results))
    print(
        f"wrote {timing.write_results('decode', results)} and its table in {write_tables.update_pages()}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    app.run(main)
