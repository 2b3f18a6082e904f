"""Items that two sources have in common, by their content."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from vtcav_jax.console import progress, warn
from vtcav_jax.data.remote.stored_video import CHECKSUM_PREFIX
from vtcav_jax.data.source import Source, SourceItem, item_content
from vtcav_jax.data.world_source import WorldSource
from vtcav_jax.names import count_noun

MAX_NAMED_ITEMS = 5


def shared_items(source: Source, other: Source) -> dict[int, str]:
    """Return the indices of the items of `source` that are in `other` too, with their names there.

    Compares the bytes of the videos, or the worlds and seeds of synthetic clips. Parts of a video are shared if they
    overlap; parts that a manifest assigns to the same recording are.
    """
    if isinstance(source, WorldSource) and isinstance(other, WorldSource):
        is_same = (source.world, source.seed) == (other.world, other.seed)
        return {i: other.items[i].name for i in range(min(source.n_clips, other.n_clips) if is_same else 0)}
    if isinstance(source, WorldSource) or isinstance(other, WorldSource):
        return {}
    others_by_content: dict[str, list[SourceItem]] = defaultdict(list)
    others_by_recording: dict[str, SourceItem] = {}
    for i, content in _contents(other):
        others_by_content[content].append(other.items[i])
        others_by_recording[other.items[i].recording] = other.items[i]
    others_by_recording.pop("", None)
    shared: dict[int, str] = {}
    for i, content in _contents(source):
        item = source.items[i]
        matches = [candidate for candidate in others_by_content.get(content, ()) if _overlap(item, candidate)]
        matches += [others_by_recording[item.recording]] if item.recording in others_by_recording else []
        if matches:
            shared[i] = matches[0].name
    return shared


def shared_note(source: Source, shared: Mapping[int, str], role: str) -> str:
    """Return a sentence on the items that are left out because they are also `role`, such as targets."""
    names = [f"{source.items[i].name} ({name})" for i, name in list(shared.items())[:MAX_NAMED_ITEMS]]
    more = f" and {len(shared) - MAX_NAMED_ITEMS} more" if len(shared) > MAX_NAMED_ITEMS else ""
    return (
        f"{len(shared)} of {count_noun(len(source.items), 'video')} of {source.spec} are {role} and are left out: "
        + (f"{', '.join(names)}{more}")
    )


def _contents(source: Source) -> Iterator[tuple[int, str]]:
    """Yield the index and the content of each item that can be read."""
    n_checksums = 0
    for (i,) in progress(([i] for i in range(len(source.items))), len(source.items), "videos compared"):
        try:
            content = item_content(source, i)
        except OSError:
            continue
        if content is not None:
            n_checksums += content.startswith(CHECKSUM_PREFIX)
            yield i, content
    if n_checksums:
        warn(
            f"{n_checksums} videos of {source.spec} are identified by their store's checksums: the same videos at other"
            " places cannot be recognised"
        )


def _overlap(a: SourceItem, b: SourceItem) -> bool:
    begin = max(a.start or 0.0, b.start or 0.0)
    return begin < min(float("inf") if item.end is None else item.end for item in (a, b))
