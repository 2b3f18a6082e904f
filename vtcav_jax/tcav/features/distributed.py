"""Communication between the processes of one run, and the division of work among them.

Each process has its own devices with its own copy of the network; no computation spans processes. All processes must
call the collective functions in the same order. With one process these return immediately.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

T = TypeVar("T")
AUTO_COORDINATOR = "auto"


def connect(coordinator: str | None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Connect the processes of a run, before any other use of JAX; without a coordinator there is one process.

    The coordinator is the HOST:PORT of process 0, or `auto` to detect it from Slurm, Open MPI, Kubernetes or a TPU pod,
    as `num_processes` and `process_id` if they are None.
    """
    arguments = {"num_processes": num_processes, "process_id": process_id}
    details = [f"--{name}={value}" for name, value in arguments.items() if value is not None]
    if coordinator is None:
        if details:
            raise ValueError(
                f"{', '.join(details)} requires --coordinator=HOST:PORT (of process 0) or --coordinator=auto"
            )
        return
    address = None if coordinator == AUTO_COORDINATOR else coordinator
    if address is not None and not address.rpartition(":")[2].isdecimal():
        raise ValueError(f"--coordinator={coordinator}: expected HOST:PORT of process 0, or auto")
    try:
        jax.distributed.initialize(address, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        missing = [f"--{name}" for name, value in arguments.items() if value is None]
        remedy = (
            f"if no cluster environment sets them, pass {' and '.join(missing)}"
            if missing
            else "check that process 0 is running there"
        )
        raise ValueError(f"--coordinator={coordinator}: cannot connect the processes ({error}); {remedy}") from error


def is_main_process() -> bool:
    """Return whether this is the process that writes and prints."""
    return jax.process_index() == 0


def local_share(items: Sequence[T]) -> list[T]:
    """Return this process's share of `items`, which must be the same in all processes."""
    return list(items[jax.process_index() :: jax.process_count()])


def all_gather(value: Any) -> list[Any]:
    """Return the JSON-serialisable values of all processes, in their order."""
    if jax.process_count() == 1:
        return [value]
    return [json.loads(payload) for payload in _all_gather_bytes(json.dumps(value).encode())]


def broadcast_from_main(value: T) -> T:
    """Return the value of process 0."""
    return all_gather(value)[0]


def main_process_first(action: Callable[[], object]) -> None:
    """Run `action` in process 0 while the others wait; raise its error in all processes."""
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
    """Return sums over all processes, bit-identical in each of them and in the arrays' precision, including float64."""
    if jax.process_count() == 1:
        return dict(arrays)
    out = {}
    for name, array in arrays.items():
        parts = _all_gather_bytes(np.ascontiguousarray(array).tobytes())
        out[name] = sum(np.frombuffer(part, array.dtype).reshape(array.shape) for part in parts)
    return out


def _all_gather_bytes(payload: bytes) -> list[bytes]:
    """Return the payload of each process."""
    from jax.experimental import multihost_utils

    sizes = multihost_utils.process_allgather(np.array([len(payload)], np.int32))[:, 0]
    padded = np.zeros(-(-int(sizes.max()) // 4), np.uint32)
    padded.view(np.uint8)[: len(payload)] = np.frombuffer(payload, np.uint8)
    all_padded = np.ascontiguousarray(multihost_utils.process_allgather(padded))
    return [row.tobytes()[:size] for row, size in zip(all_padded, sizes)]
