"""Worker process that reads clips: it does not import jax, and is replaced if a decoder crashes it.

It is started as a separate program, not by `multiprocessing`, which would run the main script again in it (and thereby
import jax) or fork a process that has threads.
"""

import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

_START = "import sys; sys.path[:] = sys.argv[2:]; from vtcav_jax.data.decode_worker import work; work(int(sys.argv[1]))"


class WorkerDiedError(RuntimeError):
    """Error of a worker that ended; the message is the exit reason."""


class WorkerTimeoutError(WorkerDiedError):
    """Error of a worker that was killed because a call timed out."""


class Worker:
    """Handle of a worker process; `call` must not be used by several threads at once."""

    def __init__(self, job: bytes):
        """Start the process; `job` is a pickled function of one argument that each `call` evaluates."""
        parent_socket, child_socket = socket.socketpair()
        command = [sys.executable, "-c", _START, str(child_socket.fileno()), *sys.path]
        with child_socket:
            self.process = subprocess.Popen(command, pass_fds=[child_socket.fileno()], stdin=subprocess.DEVNULL)
        self.connection = Connection(parent_socket.detach())
        try:
            self._receive(job)
        except BaseException:
            self.close()
            raise

    def call(self, argument: Any, timeout: float | None = None) -> Any:
        """Return the job's result for `argument`; kill the worker after `timeout` seconds."""
        return self._receive(pickle.dumps(argument), timeout)

    def _receive(self, message: bytes, timeout: float | None = None) -> Any:
        try:
            self.connection.send_bytes(message)
            if not self.connection.poll(timeout):
                self.close()
                raise WorkerTimeoutError(f"not within {timeout:g} s")
            succeeded, response = self.connection.recv()
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise WorkerDiedError(self._exit_reason()) from error
        if succeeded:
            return response
        raise response

    def stop(self) -> None:
        """Kill the process immediately, which also ends a `call` in another thread."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.stop()
        self.connection.close()

    def _exit_reason(self) -> str:
        self.connection.close()
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.stop()
            return "it stopped responding"
        if code >= 0:
            return f"it ended with status {code}"
        name = signal.Signals(-code).name
        return f"{name}, possibly out of memory" if name == "SIGKILL" else name


def work(descriptor: int) -> None:
    """Run the worker process: send one response per request until the parent closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent handles it
    connection, requests = Connection(descriptor), queue.SimpleQueue()

    def listen() -> None:
        while True:
            try:
                requests.put(connection.recv_bytes())
            except (EOFError, OSError):
                os._exit(0)  # the parent is gone, so abandon the current request

    threading.Thread(target=listen, daemon=True).start()
    job = None
    while True:
        request = requests.get()
        try:
            if job is None:
                job, response = pickle.loads(request), None
            else:
                response = job(pickle.loads(request))
            connection.send((True, response))
        except OSError:
            os._exit(0)
        except Exception as error:
            connection.send((False, _portable(error)))


def _portable(error: Exception) -> Exception:
    """Return the error itself if it can be pickled, else a RuntimeError with its text."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
