"""What a command does: calls of the library in a row, and what a person is told of them."""

from vtcav_jax.telling import answer, say
from vtcav_jax.video.sources import Source, open_source

__all__ = ["answer", "say", "videos"]


def videos(spec: str) -> Source:
    """What `spec` names, if there is anything in it."""
    source = open_source(spec)
    if not source.items:
        raise ValueError(f"there are no videos in {spec}")
    return source
