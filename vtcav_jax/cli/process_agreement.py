"""Checks that the processes of one run have equal commands, code and input, before they share work."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from vtcav_jax import distributed
from vtcav_jax.checksums import json_sha256
from vtcav_jax.cli.arguments import PROCESS_FLAGS, flag_specs
from vtcav_jax.cli.tasks import TASKS
from vtcav_jax.concepts.concept_sets import ConceptSets
from vtcav_jax.data.source import Source, SourceItem
from vtcav_jax.models import Network
from vtcav_jax.names import count_noun
from vtcav_jax.runs.code_version import code_hash, package_versions

FREE_FLAGS = (*PROCESS_FLAGS, "num_workers")  # results do not depend on them
TASK = "the task"
MAX_SIZES = 10_000  # files of a source whose sizes are compared, evenly spaced
ITEMS_PER_EXCHANGE = 10_000
ITEM_FACTS = ("name", "class by head", "start", "end", "source video", "size in bytes")


def require_same_command(task: str, values: flags.FlagValues) -> None:
    """Raise one error in all processes that names the task, flags and versions which differ among them."""
    if distributed.process_count() == 1:
        return
    names = [name for name in flag_specs(TASKS[task].argument_class) if name not in FREE_FLAGS]
    facts = {
        TASK: task,
        **{f"--{name}": _flag_text(values[name].value) for name in names},
        **{f"the version of {package}": version for package, version in package_versions().items()},
        "the hash of the code of vtcav_jax": code_hash()[:12],
    }
    _require_equal_facts(distributed.all_gather(facts), "start the same command with the same code in all processes")


def require_same_network(network: Network) -> None:
    """Raise an error in all processes if the weights, clips or class names of the network differ among them."""
    if distributed.process_count() > 1:
        facts = {f"the hash of the {part} of {network.name}": text[:12] for part, text in network.identity().items()}
        _require_equal_facts(distributed.all_gather(facts), "give all processes the same network")


def require_same_concepts(sets: ConceptSets) -> None:
    """Raise an error in all processes if the concept clips differ among them."""
    if distributed.process_count() > 1:
        clips = [[clip.concept, clip.clip_type, clip.file, clip.sha256] for clip in sets.clips]
        facts = {
            f"the number of clips in {sets.folder}": str(len(clips)),
            f"the hash of the clips in {sets.folder}": json_sha256(clips)[:12],
        }
        _require_equal_facts(distributed.all_gather(facts), "give all processes the same concept folder")


def _flag_text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else "not given" if value is None else str(value)


def _require_equal_facts(facts_by_process: Sequence[dict[str, str]], remedy: str) -> None:
    first = facts_by_process[0]
    problems: dict[str, str] = {}
    for i, facts in enumerate(facts_by_process):
        has_same_task = facts.get(TASK) == first.get(TASK)  # otherwise the flags of another one are no news
        for name in (first | facts) if has_same_task else (TASK,):
            expected, actual = first.get(name, "missing"), facts.get(name, "missing")
            if actual != expected and name not in problems:
                problems[name] = f"{name} is {expected} in process 0 and {actual} in process {i}"
    if problems:
        raise ValueError(f"{'; '.join(problems.values())}; {remedy}")


def open_in_all_processes(open_local: Callable[[], Source]) -> Source:
    """Return the source that this process opens; raise an error in all processes if one cannot, or has other items."""
    failure: Exception | None = None
    source: Source | None = None
    try:
        source = open_local()
    except (ValueError, OSError) as error:
        failure = error
    problems = distributed.all_gather(None if failure is None else str(failure))
    if failure is not None:
        raise failure
    for i, problem in enumerate(problems):
        if problem is not None:
            raise ValueError(f"process {i} cannot open the videos: {problem}")
    assert source is not None
    if distributed.process_count() > 1:
        _require_same_items(source)
    return source


def _require_same_items(source: Source) -> None:
    count = len(source.items)
    sizes = [_file_size(source.items[i]) for i in range(0, count, -(-count // MAX_SIZES))]
    states = distributed.all_gather([count, source.identity, json_sha256(sizes)])
    other = next((i for i, state in enumerate(states) if state != states[0]), None)
    if other is None:
        return
    difference = _first_difference(source, other, min(states[0][0], states[other][0]))
    if states[0][0] != states[other][0]:
        counts = f"process 0 has {count_noun(states[0][0], 'item')} and process {other} has {states[other][0]}"
        difference = f"{counts}; {difference}" if difference else counts
    raise ValueError(
        f"the processes see different videos in {source.spec}:"
        f" {difference or f'the class names differ between process 0 and process {other}'};"
        " give all processes the same videos"
    )


def _first_difference(source: Source, other: int, count: int) -> str:
    """Return what differs between the first items that are unequal in process 0 and process `other`."""
    for start in range(0, count, ITEMS_PER_EXCHANGE):
        items = source.items[start : min(start + ITEMS_PER_EXCHANGE, count)]
        by_process = distributed.all_gather([_item_facts(item) for item in items])
        for i, (expected, actual) in enumerate(zip(by_process[0], by_process[other], strict=True), start + 1):
            for name, left, right in zip(ITEM_FACTS, expected, actual, strict=True):
                if left != right:
                    return (
                        f"of item {i}, {expected[0]}, {name} is {left!r} in process 0 and {right!r} in process {other}"
                    )
    return ""


def _item_facts(item: SourceItem) -> list[Any]:
    return [item.name, item.labels, item.start, item.end, item.source, _file_size(item)]


def _file_size(item: SourceItem) -> int | None:
    try:
        return None if item.path is None else Path(item.path).stat().st_size
    except OSError:
        return None
