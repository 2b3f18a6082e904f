"""What a command does: calls of the library in a row, and what a person is told of them."""

from vtcav_jax.names import printable
from vtcav_jax.video.sources import Source, open_source


def say(text: str) -> None:
    """Prints; names from files cannot move the cursor."""
    print(printable(text), flush=True)


def videos(spec: str) -> Source:
    """What `spec` names, if there is anything in it."""
    source = open_source(spec)
    if not source.items:
        raise ValueError(f"there are no videos in {spec}")
    return source
