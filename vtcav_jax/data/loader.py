"""Loader of the clips of a source, in order, with worker processes that read ahead.

We do not use grain, because a crash of one of its workers ends the run and each worker imports jax. Here, a decoder
that crashes its process loses only the file it was reading, which is reported.
"""

import pickle
import queue
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vtcav_jax import distributed
from vtcav_jax.atomic import replacing
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data.clip import DEFAULT_SAMPLING, Clip, SamplingConfig
from vtcav_jax.data.decode import VideoError
from vtcav_jax.data.decode_worker import Worker, WorkerDiedError, WorkerTimeoutError
from vtcav_jax.data.remote.object_store import ObjectError
from vtcav_jax.data.source import Source, SourceItem

ITEM_TIMEOUT = 600.0  # seconds per item: long videos take minutes, and decoders can hang


@dataclass(frozen=True)
class ReadResult:
    """Clip of one item, or the reason why it cannot be read."""

    index: int  # in the source
    item: SourceItem
    clip: Clip | None
    failure: str | None = None


ItemPosition = int | tuple[int, int]  # item, or (epoch, item); the epoch changes only random starts


@dataclass(frozen=True)
class ItemReader:
    """Picklable function that reads item i; runs in workers."""

    source: Source
    clip_spec: ClipSpec
    sampling: SamplingConfig

    def __call__(self, position: ItemPosition) -> ReadResult:
        i, sampling = (
            (position[1], self.sampling.with_random_start(position[0]))
            if isinstance(position, tuple)
            else (position, self.sampling)
        )
        item = SourceItem(f"number {i}")
        try:
            item = self.source.items[i]
            return ReadResult(i, item, self.source.read(i, self.clip_spec, sampling))
        except (VideoError, ObjectError) as error:
            return ReadResult(i, item, None, str(error))
        except (OSError, MemoryError) as error:
            return ReadResult(i, item, None, f"{item.name} cannot be read ({error or type(error).__name__})")


def stream(
    source: Source,
    clip_spec: ClipSpec,
    sampling: SamplingConfig = DEFAULT_SAMPLING,
    *,
    positions: Iterable[ItemPosition] | None = None,
    num_workers: int = 2,
    prefetch: int | None = None,
    timeout: float = ITEM_TIMEOUT,
) -> Iterator[ReadResult]:
    """Yield the items at `positions` (default: all; may be infinite) in this order, regardless of `num_workers`.

    At most `prefetch` clips (default: 4 per worker) are being read or waiting. Items that take longer than `timeout`
    seconds count as unreadable. With 0 workers, clips are read in this process, without a timeout, and a decoder that
    crashes ends the process.

    ```python
    for read in stream(open_source("videos"), model.clip_spec):
        print(read.item.name, read.failure or read.clip.video.shape)
    ```
    """
    if num_workers < 0 or (prefetch is not None and prefetch < 1) or not timeout > 0:
        raise ValueError(
            f"expected num_workers >= 0, prefetch >= 1 and timeout > 0, got {num_workers=}, {prefetch=}, {timeout=}"
        )
    reader = ItemReader(source, clip_spec, sampling)
    reading_order = range(len(source.items)) if positions is None else positions
    return (
        _read_in_workers(reader, reading_order, num_workers, prefetch or 4 * num_workers, timeout)
        if num_workers
        else map(reader, reading_order)
    )


def stream_from_processes(
    source: Source,
    clip_spec: ClipSpec,
    sampling: SamplingConfig,
    positions: Sequence[int],
    folder: Path,
    num_workers: int,
) -> Iterator[ReadResult]:
    """Yield the clips at `positions` in order in the first process; the others decode a share and yield nothing.

    Clips pass through files in `folder`, which are deleted as they are read. With one process this is `stream`.
    """

    def read_share(share: Sequence[int]) -> Iterator[ReadResult]:
        return stream(source, clip_spec, sampling, positions=share, num_workers=num_workers)

    if distributed.process_count() == 1:
        yield from read_share(positions)
        return

    def store_share(share: Sequence[int]) -> Iterator[tuple[int, str]]:
        for read in read_share(share):
            if read.clip is not None:
                with replacing(_clip_file(folder, read.index)) as temporary, temporary.open("wb") as file:
                    np.savez(file, allow_pickle=False, **asdict(read.clip))
            yield read.index, read.failure or ""

    for i, failure in distributed.ordered_results(positions, store_share):
        clip = None if failure else _take_clip(_clip_file(folder, i))
        yield ReadResult(i, source.items[i], clip, failure or None)


def _clip_file(folder: Path, i: int) -> Path:
    return folder / f"{i:08d}.npz"


def _take_clip(path: Path) -> Clip:
    """Return the clip of a file and delete the file."""
    with np.load(path, allow_pickle=False) as stored:
        fields = {name: stored[name] if stored[name].ndim else stored[name].item() for name in stored.files}
    path.unlink()
    return Clip(**fields)


def _read_in_workers(
    reader: ItemReader, positions: Iterable[ItemPosition], num_workers: int, prefetch: int, timeout: float
) -> Iterator[ReadResult]:
    """Read with one waiting thread per worker, so that results are received while the caller computes."""
    worker_pool = _WorkerPool(reader, num_workers, timeout)
    thread_pool = ThreadPoolExecutor(num_workers, "reader")
    try:
        yield from _read_ahead(thread_pool, worker_pool, positions, prefetch)
    finally:
        worker_pool.dismiss()
        thread_pool.shutdown(cancel_futures=True)
        worker_pool.close()


def _read_ahead(
    thread_pool: ThreadPoolExecutor, worker_pool: "_WorkerPool", positions: Iterable[ItemPosition], prefetch: int
) -> Iterator[ReadResult]:
    pending: deque[Future[ReadResult]] = deque()
    for position in positions:
        pending.append(thread_pool.submit(worker_pool.read, position))
        if len(pending) >= prefetch:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


class _WorkerPool:
    """Workers, each started when first needed and restarted after it died."""

    def __init__(self, reader: ItemReader, num_workers: int, timeout: float):
        self.reader, self.timeout = reader, timeout
        try:
            self.pickled_reader = pickle.dumps(reader)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(f"the source cannot be sent to worker processes ({error}); use num_workers=0") from error
        self.idle_workers: queue.SimpleQueue[Worker | None] = queue.SimpleQueue()
        self.live_workers: set[Worker] = set()
        self.is_dismissed = False
        for _ in range(num_workers):
            self.idle_workers.put(None)

    def read(self, position: ItemPosition) -> ReadResult:
        worker = self.idle_workers.get()
        try:
            worker = worker or self._start()
            return worker.call(position, self.timeout)
        except WorkerDiedError as error:
            dead_worker, worker = worker, None
            if dead_worker is None:
                raise RuntimeError(
                    f"a worker process could not be started ({error}); see its output above, or use num_workers=0"
                ) from error
            self.live_workers.discard(dead_worker)
            i = position[1] if isinstance(position, tuple) else position
            item = self.reader.source.items[i]
            if isinstance(error, WorkerTimeoutError):
                reason = f"could not be read within {self.timeout:g} s; remove it, or use num_workers=0 (no time limit)"
            else:
                reason = f"crashed the process that read it ({error}); remove it"
            return ReadResult(i, item, None, f"{item.name} {reason}")
        finally:
            self.idle_workers.put(worker)

    def _start(self) -> Worker:
        if self.is_dismissed:
            raise RuntimeError("the loader is closed")
        worker = Worker(self.pickled_reader)
        self.live_workers.add(worker)
        if self.is_dismissed:
            worker.stop()
        return worker

    def dismiss(self) -> None:
        """Kill all workers, which also ends pending calls."""
        self.is_dismissed = True
        for worker in tuple(self.live_workers):
            worker.stop()

    def close(self) -> None:
        for worker in self.live_workers:
            worker.close()
