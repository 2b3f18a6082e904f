"""Clips of several epochs, each decoded once as far as they fit into memory."""

from collections.abc import Iterable, Iterator
from itertools import tee

from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.data import ReadResult, SamplingConfig, Source, stream
from vtcav_jax.data.loader import ItemPosition


def stream_epochs(
    source: Source,
    clip_spec: ClipSpec,
    sampling: SamplingConfig,
    positions: Iterable[tuple[int, int]],
    *,
    num_workers: int,
    max_bytes: int,
) -> Iterator[ReadResult]:
    """Yield the items at `positions` (epoch, item) like `stream`, and keep clips for later epochs.

    At most `max_bytes` of clips stay in memory. Those with random starts differ between epochs, and are always read.
    """
    frames, height, width, channels = clip_spec.shape
    capacity = 0 if sampling.random_start is not None else max_bytes // (frames * height * width * channels)
    stored: dict[int, ReadResult] = {}
    planned: set[int] = set()

    def to_read(ahead: Iterable[tuple[int, int]]) -> Iterator[ItemPosition]:
        """Yield the positions of clips that will not be in memory; runs ahead of the results."""
        for epoch, i in ahead:
            if len(planned) == len(source.items):
                return
            if i not in planned:
                if len(planned) < capacity:
                    planned.add(i)
                yield epoch, i

    ordered, ahead = tee(positions)
    reads = stream(source, clip_spec, sampling, positions=to_read(ahead), num_workers=num_workers)
    for _, i in ordered:
        read = stored[i] if i in stored else next(reads)
        if i in planned:
            stored[i] = read
        yield read
