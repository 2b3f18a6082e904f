"""A process that reads clips for another one: small, without jax, and easily replaced when a decoder brings it down.

It is started as a program of its own and not by `multiprocessing`, which would run the main script again in it (and
with it import jax) or fork a process that has threads.
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
    """With what is known of why."""


class WorkerTimeoutError(WorkerDiedError):
    """It was ended, since it had not answered in time."""


class Worker:
    """The other process, seen from here. `ask` is for one thread at a time."""

    def __init__(self, job: bytes):
        """`job` is a pickled function of one argument, which it is asked for many times."""
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
        """What the job gives for `argument`; a worker that takes more than `limit` seconds for it is ended."""
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
        """At once, whatever it is doing. Also ends `ask` in another thread."""
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
            return "it stopped answering"
        if code >= 0:
            return f"it ended with status {code}"
        name = signal.Signals(-code).name
        return f"{name}, perhaps for lack of memory" if name == "SIGKILL" else name


def work(descriptor: int) -> None:
    """What the process does: one answer for each question until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the one who asks decides
    connection, requests = Connection(descriptor), queue.SimpleQueue()

    def listen() -> None:
        while True:
            try:
                requests.put(connection.recv_bytes())
            except (EOFError, OSError):
                os._exit(0)  # nobody waits for what is being read, however long it would take

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
    """As it is if it can be sent."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
