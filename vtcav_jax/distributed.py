"""Communication between the processes of one run, and the division of work among them.

Each process has its own devices with its own copy of the network; no computation spans processes. All processes must
call the collective functions in the same order. With one process these return immediately and do not import JAX.
"""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np

from vtcav_jax import atomic, process_connection

T = TypeVar("T")
EXCHANGED_ITEMS = 16  # results of each process that are exchanged together, rounded up to whole batches


class LostProcessError(ValueError):
    """Error of a process that waits for another one that has ended."""


def connect(coordinator: str | None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Connect the processes of a run, before any other use of JAX; without a coordinator there is one process.

    The coordinator is the HOST:PORT of process 0, or `auto` to detect it from Slurm, Open MPI, Kubernetes or a TPU pod,
    as `num_processes` and `process_id` if they are None. Raise an error if they do not connect within
    `process_connection.LIMIT_SECONDS`.
    """
    process_connection.open_connection(coordinator, num_processes, process_id)
    if coordinator is None:
        return
    with _stdout_to_stderr():
        wait_for_all()  # connects the devices, for which processes wait only 30 seconds; later ones have no limit


def may_wait_at_exit() -> bool:
    """Return whether an ordinary exit could wait minutes for other processes, which may have ended."""
    return process_connection.is_pending() or process_count() > 1


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Send what libraries print on stdout, which is for results, to stderr."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


def process_count() -> int:
    """Return the number of connected processes; 1 if they are not connected."""
    jax = None if process_connection.is_pending() else sys.modules.get("jax")
    return jax.process_count() if jax is not None and jax.distributed.is_initialized() else 1


def process_index() -> int:
    """Return the number of this process, from 0."""
    return 0 if process_count() == 1 else sys.modules["jax"].process_index()


def is_main_process() -> bool:
    """Return whether this is the process that writes and prints."""
    return process_index() == 0


def local_share(items: Sequence[T], batch: int = 1) -> list[T]:
    """Return this process's share of `items`, which must be the same in all processes, in whole batches.

    A clip then has the same row of a batch for any number of processes. The rounding of small matrix products depends
    on it.
    """
    batches = [items[start : start + batch] for start in range(0, len(items), batch)]
    return [item for part in batches[process_index() :: process_count()] for item in part]


def work_rounds(
    remaining: Callable[[], Sequence[T]], is_stored: Callable[[T], bool], batch: int = 1
) -> Iterator[list[T]]:
    """Yield the items that this process should complete: first its share, then in the main process what is left.

    `remaining`, which only the main process calls, returns the items (JSON values) without a valid stored result.
    Left are those for which another process could not store one, so that the main process meets the reason and reports
    it. With one process, all remaining items are yielded once. All processes have finished when the rounds end.
    """
    items: list[T] = []
    main_process_first(lambda: items.extend(remaining()))
    items = broadcast_from_main(items)
    yield local_share(items, batch)
    if process_count() > 1:
        wait_for_all()
        if is_main_process():
            yield [item for item in items if not is_stored(item)]
        wait_for_all()


def ordered_results(
    items: Sequence[T], compute: Callable[[Sequence[T]], Iterator[Any]], batch: int = 1
) -> Iterator[Any]:
    """Yield the results of all items in order, in the main process; the other processes only compute their share.

    `compute` yields a JSON-serialisable result for each of the items that it is given.
    """
    results = compute(local_share(items, batch))
    if process_count() == 1:
        yield from results
        return
    width = process_count() * batch * -(-EXCHANGED_ITEMS // batch)
    for start in range(0, len(items), width):
        block = items[start : start + width]
        parts = [iter(part) for part in all_gather([next(results) for _ in local_share(block, batch)])]
        if is_main_process():
            yield from (next(parts[i // batch % len(parts)]) for i in range(len(block)))


def wait_for_all() -> None:
    """Return when all processes have called this."""
    all_gather(None)


def all_gather(value: Any) -> list[Any]:
    """Return the JSON-serialisable values of all processes, in their order."""
    if process_count() == 1:
        return [value]
    return [json.loads(payload) for payload in _all_gather_bytes(json.dumps(value).encode())]


def broadcast_from_main(value: T) -> T:
    """Return the value of process 0."""
    return all_gather(value)[0]


def main_process_first(action: Callable[[], object]) -> None:
    """Run `action` in process 0 while the others wait; raise its error in all processes."""
    if process_count() == 1:
        action()
        return
    failure: Exception | None = None
    if is_main_process():
        try:
            action()
        except (ValueError, OSError) as error:
            failure = error
    problem = broadcast_from_main(None if failure is None else str(failure))
    if problem is not None:
        raise failure or ValueError(problem)


def require_shared_folder(folder: Path) -> None:
    """Raise an error unless all processes see the same folder."""
    if process_count() == 1:
        return
    token = broadcast_from_main(uuid4().hex)
    path = folder / f".{token}.part"
    main_process_first(lambda: (folder.mkdir(parents=True, exist_ok=True), atomic.write_text(path, token)))
    visible = all_gather(path.exists())
    main_process_first(lambda: path.unlink(missing_ok=True))
    if not all(visible):
        raise ValueError(
            f"process {visible.index(False)} does not see the files that process 0 writes to {folder}; use a folder"
            " that all processes share"
        )


def sum_parts(n_parts: int, compute: Callable[[int], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the sum of the arrays of all parts, added in their order: equal bits for any number of processes."""
    total: dict[str, np.ndarray] = {}
    for first in range(0, n_parts, process_count()):
        part = first + process_index()
        for arrays in _gather_arrays(compute(part) if part < n_parts else {}):
            total |= {name: total[name] + array if name in total else array for name, array in arrays.items()}
    return total


def _gather_arrays(arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    if process_count() == 1:
        return [dict(arrays)]
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    parts = []
    for payload in _all_gather_bytes(buffer.getvalue()):
        with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
            parts.append({name: stored[name] for name in stored.files})
    return parts


def _all_gather_bytes(payload: bytes) -> list[bytes]:
    """Return the payload of each process."""
    from jax.experimental import multihost_utils

    try:
        sizes = multihost_utils.process_allgather(np.array([len(payload)], np.int32))[:, 0]
        padded = np.zeros(-(-int(sizes.max()) // 4), np.uint32)
        padded.view(np.uint8)[: len(payload)] = np.frombuffer(payload, np.uint8)
        all_padded = np.ascontiguousarray(multihost_utils.process_allgather(padded))
    except (RuntimeError, ValueError) as error:  # of the transport between processes
        reason = str(error).splitlines()[0]
        raise LostProcessError(
            f"another process of this run has ended ({reason}); see its message, then repeat the command in all"
            " processes: finished results are used again"
        ) from error
    return [row.tobytes()[:size] for row, size in zip(all_padded, sizes)]
