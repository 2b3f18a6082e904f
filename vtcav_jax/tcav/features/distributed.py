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
AUTO = "auto"


def connect(coordinator: str | None, processes: int | None = None, process: int | None = None) -> None:
    """Joins the processes of a run, before anything else is done with jax; without a coordinator there is one process.

    The coordinator is the HOST:PORT of the first process, or `auto`: what Slurm, Open MPI, Kubernetes or a TPU pod
    says. What is not given is asked of them as well.
    """
    given = {"num_processes": processes, "process_id": process}
    told = [f"--{name}={value}" for name, value in given.items() if value is not None]
    if coordinator is None:
        if told:
            raise ValueError(f"{', '.join(told)} say nothing without --coordinator=HOST:PORT (of process 0) or =auto")
        return
    address = None if coordinator == AUTO else coordinator
    if address is not None and not address.rpartition(":")[2].isdecimal():
        raise ValueError(f"--coordinator={coordinator}: expected HOST:PORT of process 0, or auto")
    try:
        jax.distributed.initialize(address, processes, process)
    except (RuntimeError, ValueError) as error:
        missing = [f"--{name}" for name, value in given.items() if value is None]
        remedy = f"give {' and '.join(missing)}, as no cluster says them" if missing else "is process 0 running there?"
        told = f"--coordinator={coordinator}: the processes did not find each other"
        raise ValueError(f"{told} ({error}); {remedy}") from error


def first() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


def share(work: Sequence[T]) -> list[T]:
    """What of `work`, which is the same everywhere, is for this process."""
    return list(work[jax.process_index() :: jax.process_count()])


def gathered(value: Any) -> list[Any]:
    """What each process says, in their order; anything that JSON can hold."""
    if jax.process_count() == 1:
        return [value]
    return [json.loads(told) for told in _bytes(json.dumps(value).encode())]


def agreed(value: T) -> T:
    """What the first process says."""
    return gathered(value)[0]


def once(do: Callable[[], object]) -> None:
    """Done by the first process, before any other goes on; what is wrong is raised in all of them."""
    if jax.process_count() == 1:
        do()
        return
    problem = None
    if first():
        try:
            do()
        except (ValueError, OSError) as error:
            problem = str(error)
    if (problem := agreed(problem)) is not None:
        raise ValueError(problem)


def summed(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The sums over all processes, to the same bit in each of them and on any kind of device: float64 stays that."""
    if jax.process_count() == 1:
        return dict(arrays)
    out = {}
    for name, array in arrays.items():
        parts = _bytes(np.ascontiguousarray(array).tobytes())
        out[name] = sum(np.frombuffer(part, array.dtype).reshape(array.shape) for part in parts)
    return out


def _bytes(own: bytes) -> list[bytes]:
    """Of each process."""
    from jax.experimental import multihost_utils

    sizes = multihost_utils.process_allgather(np.array([len(own)], np.int32))[:, 0]
    padded = np.zeros(-(-int(sizes.max()) // 4), np.uint32)
    padded.view(np.uint8)[: len(own)] = np.frombuffer(own, np.uint8)
    everyone = np.ascontiguousarray(multihost_utils.process_allgather(padded))
    return [row.tobytes()[:size] for row, size in zip(everyone, sizes)]
