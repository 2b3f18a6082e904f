"""Hashes of what the items of a source are read from: a stored result is valid for one content only."""

from vtcav_jax.checksums import file_sha256
from vtcav_jax.data.source import Source


def item_content(source: Source, i: int) -> str | None:
    """Return `Clip.content` of an item without decoding it; None if the source's identity determines the content."""
    item = source.items[i]
    if item.path is not None:
        return file_sha256(item.path)
    stored_content = getattr(source, "content", None)
    return None if stored_content is None else stored_content(i)


def is_unchanged(source: Source, i: int, content: str) -> bool:
    """Return whether an item still has the content that a result was computed from; a missing file has not."""
    try:
        return item_content(source, i) in (None, content)
    except OSError:
        return False
