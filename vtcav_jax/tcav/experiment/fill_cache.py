"""From files to the cache: every clip that is not there yet goes through the network once, and is kept at once."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vtcav_jax import tap as taps
from vtcav_jax.data.clip import SamplingConfig
from vtcav_jax.data.loader import ReadResult, stream
from vtcav_jax.tcav.experiment.dataset import Some
from vtcav_jax.tcav.experiment.plan import Plan
from vtcav_jax.tcav.features import distributed
from vtcav_jax.tcav.features.encode import Reading, activations_of, gradients_of
from vtcav_jax.tcav.features.microbatches import Batch, Clips, Work, held


def fill_activations(plan: Plan, mesh: Mesh, work: Work, workers: int) -> list[ReadResult]:
    """Of the concept clips: forward, as far as the deepest stage that any of them lacks. What failed is returned.

    Each process takes a share of the clips; afterwards all are there.
    """
    # What one process finds missing another may have made already
    rows = distributed.agreed([same[0] for same in plan.forward_missing.values()])
    stages = [s for s in plan.stages if not all(plan.store.has(plan.example_key(row, s)) for row in rows)]
    own, failed = distributed.share(rows), []
    if own and stages:
        reading = _sized(plan.settings.reading, len(own))
        clips, read = _streamed(plan, plan.looked.concepts, own, workers, failed)
        for start, seen in activations_of(placed(plan, mesh), clips, stages, reading, mesh, work):
            for stage in stages:
                for i, value in enumerate(seen[stage]):
                    plan.store.put(plan.example_key(read[start + i], stage), value)
    return _failures(failed, plan.looked.concepts)


def fill_gradients(plan: Plan, mesh: Mesh, work: Work, workers: int) -> list[ReadResult]:
    """Of the targets: forward once, and backward once for each class, for all stages together."""
    missing = {int(row): tuple(classes) for row, classes in distributed.agreed(list(plan.backward_missing.items()))}
    stages = [
        s
        for s in plan.stages
        if not all(plan.store.has(plan.gradient_key(row, k, s)) for row, classes in missing.items() for k in classes)
    ] or list(plan.stages[:1])
    groups: dict[tuple[int, ...], list[int]] = {}
    for row in distributed.share(list(missing)):
        groups.setdefault(missing[row], []).append(row)
    reading, failed = _sized(plan.settings.reading, sum(map(len, groups.values()))), []
    model = placed(plan, mesh) if groups else None
    for classes, rows in groups.items():
        clips, read = _streamed(plan, plan.looked.targets, rows, workers, failed)
        table = np.tile(np.array(classes, np.int64), (len(rows), 1))
        assert model is not None
        for start, scores, slopes in gradients_of(model, clips, table, stages, reading, mesh, work):
            for i, row in enumerate(read[start : start + len(scores)]):
                for c, index in enumerate(classes):
                    for stage in stages:
                        plan.store.put(plan.gradient_key(row, index, stage), slopes[stage][c, i])
                    plan.store.put(plan.gradient_key(row, index, None), np.asarray(scores[i, c]))
    return _failures(failed, plan.looked.targets)


def targets_of(plan: Plan, workers: int) -> tuple[Clips, list[int]]:
    """The targets of all classes, to be gone through any number of times: in memory if they fit, else read each time.

    And which rows they are.
    """
    rows = sorted({row for target in plan.looked.classes for row in target.rows})
    clips = replace(_streamed(plan, plan.looked.targets, rows, workers, [])[0], exact=True)
    fits = 4 * math.prod(clips.shape) * len(rows) <= plan.settings.budget
    return (held(np.stack(list(clips))) if fits else clips), rows


def _failures(own: Sequence[ReadResult], some: Some) -> list[ReadResult]:
    """Of all processes; they wait for each other here."""
    told = [each for part in distributed.gathered([(read.index, read.failure) for read in own]) for each in part]
    return [ReadResult(index, some.source.items[index], None, failure) for index, failure in told]


def placed(plan: Plan, mesh: Mesh) -> taps.Model:
    return jax.device_put(taps.as_pytree(plan.loaded.model), NamedSharding(mesh, PartitionSpec()))


def _sized(reading: Reading, count: int) -> Reading:
    return replace(reading, micro_batch=min(reading.micro_batch, max(count, 1)))


def _streamed(
    plan: Plan, some: Some, rows: Sequence[int], workers: int, failed: list[ReadResult]
) -> tuple[Clips, list[int]]:
    """The clips in these rows, less those that fail; the list fills with the rows as their clips are read."""
    read: list[int] = []
    row_of = {some.items[row]: row for row in rows}

    def batches() -> Iterator[Batch]:
        for one in stream(
            some.source,
            plan.geometry,
            SamplingConfig(),
            positions=[some.items[row] for row in rows],
            num_workers=workers,
        ):
            if one.clip is None:
                failed.append(one)
                continue
            read.append(row_of[one.index])
            yield one.clip.video[:1], np.ones(1, bool)

    return Clips(len(rows), plan.geometry.shape, batches, np.float32, exact=False), read
