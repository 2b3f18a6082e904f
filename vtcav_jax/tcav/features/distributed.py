"""Several processes on one run: which one this is, its share of the work, and what all tell each other.

Each process has devices of its own and a network of its own on them; no computation spans processes. They meet where
something must be known to all, at the same places in the same order. With one process everything here is immediate.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

T = TypeVar("T")
AUTO_COORDINATOR = "auto"


def connect(coordinator: str | None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Joins the processes of a run, before anything else is done with jax; without a coordinator there is one process.

    The coordinator is the HOST:PORT of the first process, or `auto`: what Slurm, Open MPI, Kubernetes or a TPU pod
    says. What is not given is asked of them as well.
    """
    arguments = {"num_processes": num_processes, "process_id": process_id}
    details = [f"--{name}={value}" for name, value in arguments.items() if value is not None]
    if coordinator is None:
        if details:
            raise ValueError(
                f"{', '.join(details)} say nothing without --coordinator=HOST:PORT (of process 0) or =auto"
            )
        return
    address = None if coordinator == AUTO_COORDINATOR else coordinator
    if address is not None and not address.rpartition(":")[2].isdecimal():
        raise ValueError(f"--coordinator={coordinator}: expected HOST:PORT of process 0, or auto")
    try:
        jax.distributed.initialize(address, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        missing = [f"--{name}" for name, value in arguments.items() if value is None]
        remedy = f"give {' and '.join(missing)}, as no cluster says them" if missing else "is process 0 running there?"
        details = f"--coordinator={coordinator}: the processes did not find each other"
        raise ValueError(f"{details} ({error}); {remedy}") from error


def is_main_process() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


def local_share(items: Sequence[T]) -> list[T]:
    """What of `work`, which is the same everywhere, is for this process."""
    return list(items[jax.process_index() :: jax.process_count()])


def all_gather(value: Any) -> list[Any]:
    """What each process says, in their order; anything that JSON can hold."""
    if jax.process_count() == 1:
        return [value]
    return [json.loads(told) for told in _all_gather_bytes(json.dumps(value).encode())]


def broadcast_from_main(value: T) -> T:
    """What the first process says."""
    return all_gather(value)[0]


def main_process_first(action: Callable[[], object]) -> None:
    """Done by the first process, before any other goes on; what is wrong is raised in all of them."""
    if jax.process_count() == 1:
        action()
        return
    problem = None
    if is_main_process():
        try:
            action()
        except (ValueError, OSError) as error:
            problem = str(error)
    if (problem := broadcast_from_main(problem)) is not None:
        raise ValueError(problem)


def all_reduce_sum(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The sums over all processes, to the same bit in each of them and on any kind of device: float64 stays that."""
    if jax.process_count() == 1:
        return dict(arrays)
    out = {}
    for name, array in arrays.items():
        parts = _all_gather_bytes(np.ascontiguousarray(array).tobytes())
        out[name] = sum(np.frombuffer(part, array.dtype).reshape(array.shape) for part in parts)
    return out


def _all_gather_bytes(payload: bytes) -> list[bytes]:
    """Of each process."""
    from jax.experimental import multihost_utils

    sizes = multihost_utils.process_allgather(np.array([len(payload)], np.int32))[:, 0]
    padded = np.zeros(-(-int(sizes.max()) // 4), np.uint32)
    padded.view(np.uint8)[: len(payload)] = np.frombuffer(payload, np.uint8)
    all_padded = np.ascontiguousarray(multihost_utils.process_allgather(padded))
    return [row.tobytes()[:size] for row, size in zip(all_padded, sizes)]
