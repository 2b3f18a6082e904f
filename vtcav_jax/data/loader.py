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
from vtcav_jax.data.clip import USUAL, Clip, How
from vtcav_jax.data.decode import VideoError
from vtcav_jax.data.decode_worker import TooSlow, Worker, WorkerDied
from vtcav_jax.data.open import Item, Source

LIMIT = 600.0  # seconds for one item: long films take minutes, a decoder that hangs would take for ever


@dataclass(frozen=True)
class Read:
    """What came of one item: its clip, or why there is none."""

    index: int  # in the source
    item: Item
    clip: Clip | None
    failure: str | None = None


Position = int | tuple[int, int]  # an item, or epoch and item: only random starts depend on the epoch


@dataclass(frozen=True)
class Reader:
    """Reads item i; this is what a worker is sent."""

    source: Source
    geometry: ClipSpec
    how: How

    def __call__(self, position: Position) -> Read:
        i, how = (position[1], self.how.drawn(position[0])) if isinstance(position, tuple) else (position, self.how)
        item = Item(f"number {i}")
        try:
            item = self.source.items[i]
            return Read(i, item, self.source.read(i, self.geometry, how))
        except VideoError as error:
            return Read(i, item, None, str(error))
        except (OSError, MemoryError) as error:
            return Read(i, item, None, f"{item.name} cannot be read ({error or type(error).__name__})")


def stream(
    source: Source,
    geometry: ClipSpec,
    how: How = USUAL,
    *,
    wanted: Iterable[Position] | None = None,
    workers: int = 2,
    ahead: int | None = None,
    limit: float = LIMIT,
) -> Iterator[Read]:
    """Reads the `wanted` items (else all of them; an endless sequence will do), in their order for any `workers`.

    At most `ahead` clips are being read or waiting, four for each worker if not said. What takes longer than `limit`
    seconds counts as not readable. With 0 workers clips are read in this process when they are asked for, however long
    it takes, and a decoder that crashes takes it along.
    """
    if workers < 0 or (ahead is not None and ahead < 1) or not limit > 0:
        raise ValueError(f"expected at least 0 workers, 1 clip ahead and some time, got {workers=}, {ahead=}, {limit=}")
    reader = Reader(source, geometry, how)
    positions = range(len(source.items)) if wanted is None else wanted
    return _in_workers(reader, positions, workers, ahead or 4 * workers, limit) if workers else map(reader, positions)


def _in_workers(
    reader: Reader, positions: Iterable[Position], workers: int, ahead: int, limit: float
) -> Iterator[Read]:
    """One thread waits for each worker, so that what is ready is taken while the caller computes."""
    crew = _Crew(reader, workers, limit)
    pool = ThreadPoolExecutor(workers, "reader")
    try:
        yield from _ahead(pool, crew, positions, ahead)
    finally:
        crew.dismiss()
        pool.shutdown(cancel_futures=True)
        crew.close()


def _ahead(pool: ThreadPoolExecutor, crew: "_Crew", positions: Iterable[Position], ahead: int) -> Iterator[Read]:
    coming: deque[Future[Read]] = deque()
    for position in positions:
        coming.append(pool.submit(crew.read, position))
        if len(coming) >= ahead:
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()


class _Crew:
    """The workers; each is started when it is first needed, and again after it died."""

    def __init__(self, reader: Reader, workers: int, limit: float):
        self.reader, self.limit = reader, limit
        try:
            self.job = pickle.dumps(reader)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(f"the source cannot be sent to worker processes ({error}); read with workers=0") from error
        self.places: queue.SimpleQueue[Worker | None] = queue.SimpleQueue()
        self.alive: set[Worker] = set()
        self.dismissed = False
        for _ in range(workers):
            self.places.put(None)

    def read(self, position: Position) -> Read:
        worker = self.places.get()
        try:
            worker = worker or self._start()
            return worker.ask(position, self.limit)
        except WorkerDied as error:
            dead, worker = worker, None
            if dead is None:
                raise RuntimeError(
                    f"a worker process could not be started ({error}); see above for its own words, or read with"
                    " workers=0"
                ) from error
            self.alive.discard(dead)
            i = position[1] if isinstance(position, tuple) else position
            item = self.reader.source.items[i]
            if isinstance(error, TooSlow):
                why = f"could not be read within {self.limit:g} s; leave it out, or wait for it with workers=0"
            else:
                why = f"brought down the process that read it ({error}); leave it out"
            return Read(i, item, None, f"{item.name} {why}")
        finally:
            self.places.put(worker)

    def _start(self) -> Worker:
        if self.dismissed:
            raise RuntimeError("the clips are not wanted any more")
        worker = Worker(self.job)
        self.alive.add(worker)
        if self.dismissed:
            worker.stop()
        return worker

    def dismiss(self) -> None:
        """Ends all of them now, and with them the waiting."""
        self.dismissed = True
        for worker in tuple(self.alive):
            worker.stop()

    def close(self) -> None:
        for worker in self.alive:
            worker.close()
