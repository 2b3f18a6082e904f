"""Addresses of objects, `SCHEME://...`: how they are joined, told from paths, and shown without credentials."""

import posixpath
import re
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urljoin, urlsplit, urlunsplit

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://(?!$)", re.IGNORECASE)
_NESTED_ADDRESS = re.compile(r"::[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_LOCAL_SCHEMES = ("file", "local")
_WEB_SCHEMES = ("http", "https")
# Parameters of signed URLs; they are renewed while the object stays the same.
_SIGNATURE = re.compile(
    r"x-(amz|goog|oss|ms)-.*|awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id|sig|se|st|sp|sv|sr"
    r"|.*token.*|.*secret.*|.*password.*|api_?key",
    re.IGNORECASE,
)


def is_address(text: str) -> bool:
    """Return whether a text is an address rather than a path; `file://` counts, and `check_address` refuses it."""
    return _ADDRESS.match(text) is not None


def scheme_of(address: str) -> str:
    match = _ADDRESS.match(address)
    assert match is not None
    return match[1].lower()


def is_web(address: str) -> bool:
    return scheme_of(address) in _WEB_SCHEMES


def check_address(address: str) -> None:
    """Raise ValueError for an address of local files, and for one with a password."""
    if scheme_of(address) in _LOCAL_SCHEMES:
        raise ValueError(f"{address} is a local file; write its path without {scheme_of(address)}://")
    if ":" in _split(address).netloc.rpartition("@")[0]:
        raise ValueError(
            f"{printable_address(address)} contains a password; write the address without it, and the password into"
            " ~/.netrc or the configuration of fsspec"
        )


def check_form(address: str) -> None:
    """Raise ValueError for a web address that cannot be parsed, and for an address within another."""
    if is_web(address):
        try:
            urlsplit(address)
        except ValueError as error:
            raise ValueError(
                f"{printable_address(address)} is no valid address ({error}); expected"
                f" {scheme_of(address)}://HOST/PATH; correct it"
            ) from None
    elif _NESTED_ADDRESS.search(address):
        raise ValueError(
            f"{printable_address(address)} is an address within another, which is not read; expected the address of a"
            " video, of a manifest or of uncompressed tar files (SHARDS.tar); extract the files first"
        )


def check_recordable(address: str) -> None:
    """Raise ValueError for an address that may not be recorded with a run, since it is signed."""
    check_address(address)
    check_form(address)
    if names := signature_parameters(address):
        raise ValueError(
            f"{printable_address(address)} is signed ({', '.join(names)}), and a run records its command; write the"
            " address into a local manifest, whose addresses are not recorded"
        )


def signature_parameters(address: str) -> list[str]:
    """Return the names of the parameters of a web address that look like credentials."""
    if not is_web(address):
        return []
    names = (name for name, _ in parse_qsl(_split(address).query, keep_blank_values=True))
    return [name for name in names if _SIGNATURE.fullmatch(name)]


def without_signature(address: str) -> str:
    """Return a web address without the parameters that look like credentials, and without a fragment."""
    if not is_web(address):
        return address
    parts = _split(address)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = urlencode([(name, value) for name, value in pairs if not _SIGNATURE.fullmatch(name)])
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def printable_address(address: str) -> str:
    """Return an address for messages and tables: without user, password and signature."""
    address = without_signature(address)
    before, separator, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{before}{separator}{host.rpartition('@')[2]}{slash}{path}"


def object_name(address: str) -> str:
    """Return the file name at the end of an address, without parameters."""
    path = unquote(_split(address).path) if is_web(address) else address.partition("://")[2]
    return posixpath.basename(path.rstrip("/")) or printable_address(address)


def object_suffix(address: str) -> str:
    return posixpath.splitext(object_name(address))[1].lower()


def _split(address: str) -> SplitResult:
    """Return the parts of an address; those of a malformed one too, so that its credentials are not printed."""
    try:
        return urlsplit(address)
    except ValueError:
        scheme, _, rest = address.partition("://")
        rest, _, query = rest.partition("#")[0].partition("?")
        host, slash, path = rest.partition("/")
        return SplitResult(scheme, host, slash + path, query, "")


def join_address(address: str, path: str) -> str:
    """Return the address of a path relative to the folder of `address`; addresses are returned as they are.

    A path is a file name, so that `?`, `#` and `%` in it have no meaning.
    """
    if is_address(path):
        return path
    if is_web(address):
        return urljoin(address, quote(path))
    scheme, _, place = address.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(posixpath.dirname(place), path)).lstrip('/')}"
