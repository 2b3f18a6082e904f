"""The clips of a source one after the other, read ahead by worker processes.

grain would be the natural tool, but a crash of one of its workers ends the run, and each of them imports jax. Here a
decoder that brings down its process costs the file it was reading, which is reported.
"""

import pickle
import queue
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data.clip import DEFAULT_SAMPLING, Clip, SamplingConfig
from vtcav_jax.data.decode import VideoError
from vtcav_jax.data.decode_worker import Worker, WorkerDiedError, WorkerTimeoutError
from vtcav_jax.data.source import Source, SourceItem

ITEM_TIMEOUT = 600.0  # seconds for one item: long films take minutes, a decoder that hangs would take for ever


@dataclass(frozen=True)
class ReadResult:
    """What came of one item: its clip, or why there is none."""

    index: int  # in the source
    item: SourceItem
    clip: Clip | None
    failure: str | None = None


ItemPosition = int | tuple[int, int]  # an item, or epoch and item: only random starts depend on the epoch


@dataclass(frozen=True)
class ItemReader:
    """Reads item i; this is what a worker is sent."""

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
        except VideoError as error:
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
    """Reads the items at `positions` (else all of them; an endless sequence will do), in their order for any number of
    workers.

    At most `prefetch` clips are being read or waiting, four for each worker if not said. What takes longer than
    `timeout` seconds counts as not readable. With 0 workers clips are read in this process when they are asked for,
    however long it takes, and a decoder that crashes takes it along.
    """
    if num_workers < 0 or (prefetch is not None and prefetch < 1) or not timeout > 0:
        raise ValueError(
            f"expected at least 0 workers, 1 clip ahead and some time, got {num_workers=}, {prefetch=}, {timeout=}"
        )
    reader = ItemReader(source, clip_spec, sampling)
    reading_order = range(len(source.items)) if positions is None else positions
    return (
        _read_in_workers(reader, reading_order, num_workers, prefetch or 4 * num_workers, timeout)
        if num_workers
        else map(reader, reading_order)
    )


def _read_in_workers(
    reader: ItemReader, positions: Iterable[ItemPosition], num_workers: int, prefetch: int, timeout: float
) -> Iterator[ReadResult]:
    """One thread waits for each worker, so that what is ready is taken while the caller computes."""
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
    """The workers; each is started when it is first needed, and again after it died."""

    def __init__(self, reader: ItemReader, num_workers: int, timeout: float):
        self.reader, self.timeout = reader, timeout
        try:
            self.pickled_reader = pickle.dumps(reader)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"the source cannot be sent to worker processes ({error}); read with num_workers=0"
            ) from error
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
                    f"a worker process could not be started ({error}); see above for its own words, or read with"
                    " num_workers=0"
                ) from error
            self.live_workers.discard(dead_worker)
            i = position[1] if isinstance(position, tuple) else position
            item = self.reader.source.items[i]
            if isinstance(error, WorkerTimeoutError):
                reason = f"could not be read within {self.timeout:g} s; leave it out, or wait for it with num_workers=0"
            else:
                reason = f"brought down the process that read it ({error}); leave it out"
            return ReadResult(i, item, None, f"{item.name} {reason}")
        finally:
            self.idle_workers.put(worker)

    def _start(self) -> Worker:
        if self.is_dismissed:
            raise RuntimeError("the clips are not wanted any more")
        worker = Worker(self.pickled_reader)
        self.live_workers.add(worker)
        if self.is_dismissed:
            worker.stop()
        return worker

    def dismiss(self) -> None:
        """Ends all of them now, and with them the waiting."""
        self.is_dismissed = True
        for worker in tuple(self.live_workers):
            worker.stop()

    def close(self) -> None:
        for worker in self.live_workers:
            worker.close()
