"""What a command does: calls of the library in a row, and what a person is told of them."""

from collections.abc import Sequence

from vtcav_jax.data.loader import ReadResult
from vtcav_jax.data.open import Source, open_source


def open_nonempty(spec: str) -> Source:
    """What `spec` names, if there is anything in it."""
    source = open_source(spec)
    if not source.items:
        raise ValueError(f"there are no videos in {spec}")
    return source


def all_failed_message(source: Source, failed: Sequence[ReadResult]) -> str:
    """What is said where nothing is left to tell of."""
    subject = f"none of the {len(failed)} videos" if len(failed) > 1 else "the only video"
    verb = "could" if len(failed) > 1 else "could not"
    return f"{subject} of {source.spec} {verb} be read: {failed[0].failure}"
