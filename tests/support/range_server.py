"""Web server on the loopback address that counts the bytes it sends, and can misbehave."""

import email.utils
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

OLD = time.time() - 86400


@dataclass
class RangeServer:
    """State of the server: files by path, and what it does with requests."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    changed: float = OLD  # time of the last change of all files
    has_ranges: bool = True
    tags: str = "strong"  # or "weak" or "none"; "none" also leaves out the time of the last change
    delays: dict[str, float] = field(default_factory=dict)  # seconds before an answer, by path
    failures: Counter[str] = field(default_factory=Counter)  # number of answers 503 that are still to come, by path
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, target and range
    sent: int = 0

    def url(self, path: str) -> str:
        return f"{self.address}/{path}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: RangeServer

    def do_GET(self) -> None:
        state = self.state
        path = unquote(urlsplit(self.path).path).lstrip("/")
        byte_range = self.headers.get("Range")
        state.requests.append((self.command, self.path, byte_range))
        time.sleep(state.delays.get(path, 0))
        if state.failures[path] > 0:
            state.failures[path] -= 1
            return self._answer(503, b"")
        if path in state.redirects:
            return self._answer(302, b"", {"Location": state.redirects[path]})
        if path not in state.files:
            return self._answer(404, b"there is nothing")
        data = state.files[path]
        headers = {}
        if state.tags != "none":
            headers["Last-Modified"] = email.utils.formatdate(state.changed, usegmt=True)
            tag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
            headers["ETag"] = tag if state.tags == "strong" else f'W/"{len(data)}"'
        if not (byte_range and state.has_ranges):
            return self._answer(200, data, headers)
        first, _, last = byte_range.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last or len(data)) + 1, len(data))
        if start >= len(data):
            return self._answer(416, b"", headers | {"Content-Range": f"bytes */{len(data)}"})
        return self._answer(206, data[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            for start in range(0, len(body), 1 << 16):
                self.wfile.write(body[start : start + (1 << 16)])
                self.state.sent += len(body[start : start + (1 << 16)])
        except OSError:  # the client has read enough
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 name of the base class
        pass


@contextmanager
def serve() -> Iterator[RangeServer]:
    """Run a server while the context is open."""

    class Handler(_Handler):
        pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address) -> None:
            del request, client_address  # a client that goes away is no error

    server = Server(("127.0.0.1", 0), Handler)
    Handler.state = RangeServer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield Handler.state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
