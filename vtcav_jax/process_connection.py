"""Connection of the processes of one run, with errors in Python instead of those that end the process in C++."""

import os
import socket
import threading
import time

from vtcav_jax.console import MIN_SECONDS, info
from vtcav_jax.names import count_noun
from vtcav_jax.settings import SettingError

AUTO_COORDINATOR = "auto"
MAX_PORT = 65_535
LIMIT_SECONDS = 300
SECONDS_TO_RAISE = 60  # by which the limit of JAX's client, which aborts the process, exceeds that of this module
SECONDS_BETWEEN_TRIALS = 0.2
_is_pending = False


def open_connection(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Connect JAX to the other processes; raise an error if that takes longer than `LIMIT_SECONDS`."""
    _check_process_settings(coordinator, num_processes, process_id)
    if coordinator is None:
        return
    address = None if coordinator == AUTO_COORDINATOR else coordinator
    deadline = time.monotonic() + LIMIT_SECONDS
    if address is not None and process_id == 0:
        _require_free_port(address)
    elif address is not None and process_id is not None:
        _wait_for_listener(address, deadline)
    _initialize_jax(address, num_processes, process_id, deadline)


def is_pending() -> bool:
    """Return whether a thread is still connecting, during which JAX must not be asked for its processes."""
    return _is_pending


def _check_process_settings(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    numbers = {"num_processes": num_processes, "process_id": process_id}
    if coordinator is None:
        if details := [f"--{name}={value}" for name, value in numbers.items() if value is not None]:
            raise ValueError(
                f"{', '.join(details)} requires --coordinator=HOST:PORT (of process 0) or --coordinator=auto"
            )
        return
    problems = []
    host, _, port = coordinator.rpartition(":")
    if coordinator != AUTO_COORDINATOR and not (host and port.isdecimal() and 1 <= int(port) <= MAX_PORT):
        text = f"expected HOST:PORT of process 0 with a port of 1 to {MAX_PORT}, or auto, got {coordinator}"
        problems.append(("coordinator", text))
    if num_processes is not None and process_id is not None and process_id >= num_processes:
        ids = f"0 to {num_processes - 1}" if num_processes > 1 else "0"
        text = f"expected {ids}, since --num_processes is {num_processes}, got {process_id}"
        problems.append(("process_id", text))
    if problems:
        raise SettingError(*problems)


def _require_free_port(address: str) -> None:
    """Raise an error if process 0 cannot use the port, at which JAX's service would end it with a segmentation fault.

    That service would even share the port with the service of another run.
    """
    if "JAX_COORDINATOR_BIND_ADDRESS" in os.environ:
        return
    port = int(address.rpartition(":")[2])
    dual = socket.has_dualstack_ipv6()
    with socket.socket(socket.AF_INET6 if dual else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections may remain for a minute
        if dual:
            trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            trial.bind(("", port))
        except OSError as error:
            text = f"process 0 cannot use port {port} ({error.strerror}); choose a free port above 1023"
            raise SettingError(("coordinator", text)) from error


def _wait_for_listener(address: str, deadline: float) -> None:
    """Return when process 0 accepts connections at `address`; raise an error if it does not until the deadline.

    The client of JAX would end this process without a Python error.
    """
    host, _, port = address.rpartition(":")
    started, is_noted = time.monotonic(), False
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS_BETWEEN_TRIALS * 10):
                return
        except OSError as error:
            reason = error.strerror or str(error)
        if (now := time.monotonic()) >= deadline:
            raise SettingError(
                (
                    "coordinator",
                    f"process 0 does not accept connections at {address} ({reason}) after {now - started:.0f} seconds;"
                    " start it on that machine with the same --coordinator, and check that its port can be reached",
                )
            )
        if not is_noted and now - started >= MIN_SECONDS:
            info(f"waiting for process 0 at {address} ({reason}), at most {deadline - now:.0f} seconds")
            is_noted = True
        time.sleep(SECONDS_BETWEEN_TRIALS)


def _initialize_jax(address: str | None, num_processes: int | None, process_id: int | None, deadline: float) -> None:
    """Connect to the other processes in a thread, since JAX's client can neither be interrupted nor fail in Python."""
    global _is_pending
    import jax

    if hasattr(jax.config, "jax_enable_preemption_service"):
        jax.config.update("jax_enable_preemption_service", False)  # it would catch SIGTERM and not end the process
    outcome: list[Exception | None] = []

    def initialize() -> None:
        try:
            jax.distributed.initialize(
                address, num_processes, process_id, initialization_timeout=LIMIT_SECONDS + SECONDS_TO_RAISE
            )
            outcome.append(None)
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=initialize, name="connect", daemon=True)
    _is_pending = True
    thread.start()
    thread.join(MIN_SECONDS)
    if not outcome:
        others = "the processes" if num_processes is None else count_noun(num_processes - 1, "process")
        info(f"waiting for {others} to connect at {address or 'the coordinator of the cluster'}")
    thread.join(max(deadline - time.monotonic(), 0))
    if not outcome:
        expected = "all processes" if num_processes is None else f"all {num_processes} processes"
        text = (
            f"expected {expected} within {LIMIT_SECONDS} seconds{f' at {address}' if address else ''}, but at least"
            " one did not connect; start each with its own --process_id and the same other flags, and see the messages"
            " of those that ended"
        )
        raise SettingError(("coordinator", text))
    _is_pending = False
    if outcome[0] is not None:
        raise SettingError(("coordinator", _connection_problem(address, num_processes, process_id, outcome[0])))


def _connection_problem(
    address: str | None, num_processes: int | None, process_id: int | None, error: Exception
) -> str:
    numbers = {"num_processes": num_processes, "process_id": process_id}
    missing = [f"--{name}" for name, value in numbers.items() if value is None]
    reason = " ".join(str(error).split()).rstrip(".")
    if not isinstance(error, RuntimeError | ValueError):
        raise error
    if "should be defined" in reason or "must be defined" in reason:  # nothing was detected
        lacking = " and ".join(missing) if address else " and ".join(["--coordinator=HOST:PORT", *missing])
        return (
            f"this is no process of Slurm, Open MPI, Kubernetes or a TPU pod, which set what is missing; pass {lacking}"
        )
    if "XLA backend" in reason:
        return "JAX was used before; connect the processes before any other use of it"
    if process_id == 0:
        return f"process 0 cannot wait for the others at {address} ({reason}); choose a free port"
    return f"the processes cannot connect ({reason}); check that process 0 is running, and that no two have one number"
