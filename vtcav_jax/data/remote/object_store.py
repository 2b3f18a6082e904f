"""Objects in stores and on web servers: their size and version, and ranges of their bytes.

Web servers are asked with range requests, since only their answers tell whether the server supports ranges: fsspec
answers questions about a web address from the headers of HEAD requests, which signed addresses refuse. Other stores are
what fsspec knows. Every request is repeated a few times if the failure may be temporary.
"""

import email.utils
import inspect
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn, TypeVar

from vtcav_jax.data.remote.addresses import check_address, check_form, is_web, printable_address, scheme_of

ATTEMPTS = 3
RETRY_PAUSE = 0.5  # seconds before the second attempt, then twice as long each time
CONNECT_TIMEOUT = 15.0  # seconds
READ_TIMEOUT = 30.0  # seconds without any byte
# A web server that makes its entity tag from the time of the last change cannot tell two changes within its resolution
# apart: the tag of an object that has just changed does not identify it.
SETTLED_SECONDS = 60
_TEMPORARY_STATUS = (408, 425, 429, 500, 502, 503, 504)
_PIECE_BYTES = 1 << 20  # of a download
_CHECKSUM_FIELDS = {  # by protocol: details that change with the content
    "s3": ("ETag", "VersionId"),
    "s3a": ("ETag", "VersionId"),
    "gs": ("generation", "md5Hash", "crc32c"),
    "gcs": ("generation", "md5Hash", "crc32c"),
}
_CHANGE_FIELDS = ("ETag", "etag", "LastModified", "last_modified", "mtime", "updated", "created")
_EXPECTED_STORES = "expected https://, gs://, s3:// or another protocol of fsspec"
_EXTRAS = "pip install 'vtcav-jax[urls]'"

T = TypeVar("T")


class ObjectError(OSError):
    """Error of an object that cannot be read; the message is one sentence without credentials."""


class TemporaryObjectError(ObjectError):
    """Error that may not occur again, such as a time-out."""


class MissingPackageError(ValueError):
    """Error of a store whose package is not installed."""


@dataclass(frozen=True)
class ObjectVersion:
    """Version of an object as its store describes it, without reading the object."""

    size: int | None
    checksum: str | None  # differs whenever the bytes do; None if the store does not promise that
    change_mark: str  # time of the last change or similar, of which two versions can have the same; may be empty
    has_ranges: bool

    @property
    def is_fixed(self) -> bool:
        """Return True if ranges can be read one after the other, and a replacement is noticed."""
        return self.has_ranges and self.size is not None and self.checksum is not None


@dataclass(frozen=True)
class ObjectStore:
    """Store of one protocol, with the fsspec file system that reads it."""

    protocol: str
    file_system: Any

    def version(self, address: str) -> ObjectVersion:
        """Return size and version of an object."""
        ask = self._web_version if is_web(address) else self._store_version
        return _with_retries(address, lambda: ask(address))

    def read_range(self, address: str, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to before `stop`; a short answer is an error."""
        read = self._web_range if is_web(address) else self._store_range
        data = _with_retries(address, lambda: read(address, start, stop))
        if len(data) != stop - start:
            raise ObjectError(
                f"{printable_address(address)} answered {len(data)} of {stop - start} bytes; it was replaced, or does"
                " not support ranges"
            )
        return data

    def download(self, address: str, file: io.BufferedIOBase) -> None:
        """Write all bytes to a file, from its beginning."""

        def attempt() -> None:
            file.seek(0)
            file.truncate()
            if is_web(address):
                self._sync(self._download_web, address, file)
            else:
                with self.file_system.open(address, "rb") as source:
                    while piece := source.read(_PIECE_BYTES):
                        file.write(piece)

        _with_retries(address, attempt)

    def is_folder(self, address: str) -> bool:
        return _with_retries(address, lambda: self.file_system.isdir(address))

    def list_objects(self, address: str) -> list[str]:
        """Return the paths of all objects in a folder at any depth, relative to it and sorted."""
        self.file_system.invalidate_cache()
        prefix = self.file_system._strip_protocol(address).rstrip("/")
        paths = _with_retries(address, lambda: self.file_system.find(prefix))
        names = (path[len(prefix) :].lstrip("/") for path in paths)
        return sorted(name for name in names if name and not name.endswith("/"))  # empty objects that stand for folders

    def _store_version(self, address: str) -> ObjectVersion:
        self.file_system.invalidate_cache()
        details = self.file_system.info(address)
        if details.get("type") == "directory":
            raise ObjectError(f"{printable_address(address)} is a folder; expected an object")
        fields = [f"{name}={details[name]}" for name in _CHECKSUM_FIELDS.get(self.protocol, ()) if details.get(name)]
        marks = [f"{name}={details[name]}" for name in _CHANGE_FIELDS if details.get(name)]
        return ObjectVersion(details.get("size"), " ".join(fields) or None, " ".join(marks), True)

    def _store_range(self, address: str, start: int, stop: int) -> bytes:
        return self.file_system.cat_file(address, start=start, end=stop)

    def _web_version(self, address: str) -> ObjectVersion:
        return self._sync(self._ask_web, address)

    def _web_range(self, address: str, start: int, stop: int) -> bytes:
        return self._sync(self._fetch_web, address, start, stop)

    def _sync(self, function: Callable[..., Any], *arguments: Any) -> Any:
        from fsspec.asyn import sync

        return sync(self.file_system.loop, function, *arguments)

    async def _get(self, address: str, byte_range: str | None) -> Any:
        session = await self.file_system.set_session()
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={byte_range}"} if byte_range else {})
        response = await session.get(self.file_system.encode_url(address), headers=headers)
        if response.status >= 400 and response.status != 416:
            response.close()
            reason = f"{printable_address(address)} answered {response.status} {response.reason}"
            if response.status in _TEMPORARY_STATUS:
                raise TemporaryObjectError(f"{reason}; try again later")
            raise ObjectError(f"{reason}; check the address and your permissions")
        return response

    async def _ask_web(self, address: str) -> ObjectVersion:
        response = await self._get(address, "0-0")
        try:  # a server without ranges begins to send everything, which closing the connection ends
            headers = response.headers
            is_plain = headers.get("Content-Encoding", "identity") in ("identity", "")
            total = headers.get("Content-Range", "").rpartition("/")[2]
            length = total if response.status in (206, 416) else headers.get("Content-Length", "")
            size = int(length) if length.isascii() and length.isdigit() and is_plain else None
            checksum = _web_checksum(headers) if is_plain else None
            marks = " ".join(f"{name}={headers[name]}" for name in ("ETag", "Last-Modified") if name in headers)
            return ObjectVersion(size, checksum, marks, response.status == 206 and is_plain)
        finally:
            response.close()

    async def _fetch_web(self, address: str, start: int, stop: int) -> bytes:
        response = await self._get(address, f"{start}-{stop - 1}")
        try:
            return await response.read() if response.status == 206 else b""
        finally:
            response.close()

    async def _download_web(self, address: str, file: io.BufferedIOBase) -> None:
        response = await self._get(address, None)
        try:
            async for piece in response.content.iter_chunked(_PIECE_BYTES):
                file.write(piece)
        finally:
            response.close()


def _web_checksum(headers: Any) -> str | None:
    """Return the entity tag of an answer if it identifies the bytes: a strong tag of an object that has settled."""
    tag = headers.get("ETag", "")
    if not tag.startswith('"') or len(tag) < 3:
        return None
    if "Last-Modified" in headers:
        try:
            now = email.utils.parsedate_to_datetime(headers["Date"]).timestamp() if "Date" in headers else time.time()
            age = now - email.utils.parsedate_to_datetime(headers["Last-Modified"]).timestamp()
        except ValueError:
            return None
        if age < SETTLED_SECONDS:
            return None
    return f"ETag={tag}"


@cache
def open_store(protocol: str) -> ObjectStore:
    """Return the store of a protocol; a missing package, and a protocol that an address does not open, is a ValueError.

    Credentials and endpoints are those of the store's own tools, and of fsspec's configuration.
    """
    try:
        import fsspec
        from fsspec.config import conf
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"{protocol}://... needs fsspec; {_EXTRAS}") from error
    options: dict[str, Any] = {}
    try:
        if protocol in ("http", "https"):
            import aiohttp

            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT)
            configured = conf.get(protocol, {}).get("client_kwargs", {})
            options["client_kwargs"] = {"timeout": timeout, "trust_env": True} | configured
        try:
            file_system_class = fsspec.get_filesystem_class(protocol)
        except ValueError as error:
            raise ValueError(f"no store is named {protocol}://; {_EXPECTED_STORES}") from error
        # Not by trying: the file system of FTP is noisy when it is made without them.
        if missing := _required_options(file_system_class) - conf.get(protocol, {}).keys():
            raise ValueError(
                f"{protocol}://... needs {' and '.join(sorted(missing))} in the configuration of fsspec, which an"
                f" address does not set; {_EXPECTED_STORES}; configure it, or download the files first"
            )
        return ObjectStore(protocol, _make_file_system(protocol, options))
    except ImportError as error:
        raise MissingPackageError(
            f"{protocol}://... needs a package that is not installed ({error}); install it, or for https://, gs:// and"
            f" s3:// {_EXTRAS}"
        ) from error


def _required_options(file_system_class: Any) -> set[str]:
    """Return the arguments without a default, of which an address alone says nothing."""
    parameters = list(inspect.signature(file_system_class.__init__).parameters.values())[1:]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name for p in parameters if p.kind in named and p.default is inspect.Parameter.empty}


def _make_file_system(protocol: str, options: dict[str, Any]) -> Any:
    import fsspec

    try:
        return fsspec.filesystem(protocol, **options)
    except ImportError:
        raise
    except Exception as error:  # of any kind, such as zip:// without an archive
        raise ValueError(
            f"{protocol}://... cannot be opened by an address alone ({type(error).__name__}); {_EXPECTED_STORES};"
            " download the files first"
        ) from error


def store_of(address: str) -> ObjectStore:
    """Return the store of an address, after `check_address` and `check_form`."""
    check_address(address)
    check_form(address)
    return open_store(scheme_of(address))


def read_object(address: str) -> bytes:
    """Return all bytes of a small object, such as a manifest."""
    file = io.BytesIO()
    store_of(address).download(address, file)
    return file.getvalue()


def _with_retries(address: str, request: Callable[[], T]) -> T:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return request()
        except Exception as error:
            if attempt == ATTEMPTS or not _may_be_temporary(error):
                _raise_printable(address, error)
        time.sleep(RETRY_PAUSE * 2 ** (attempt - 1))
    raise AssertionError("the last attempt returns or raises")


def _may_be_temporary(error: Exception) -> bool:
    kinds = ("ClientConnectionError", "ClientPayloadError", "ServerDisconnectedError")
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, TemporaryObjectError | TimeoutError | ConnectionError) or not names.isdisjoint(kinds)


def _raise_printable(address: str, error: Exception) -> NoReturn:
    """Raise an error of any store as `ObjectError`, without its text, which can contain the address as it was given."""
    if isinstance(error, ObjectError):
        raise error
    name = printable_address(address)
    if isinstance(error, FileNotFoundError):
        raise ObjectError(f"there is no object {name}; check the address") from None
    if isinstance(error, PermissionError):
        raise ObjectError(f"{name} may not be read; check your credentials") from None
    if isinstance(error, TimeoutError):
        raise ObjectError(f"{name} did not answer in time, {ATTEMPTS} times; try again later") from None
    raise ObjectError(f"{name} cannot be read ({type(error).__name__}); check the address and the connection") from None
