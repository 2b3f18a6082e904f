"""Encoding of clips into the cache: each missing clip goes through the network once and is stored immediately."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from vtcav_jax import distributed
from vtcav_jax import tap as taps
from vtcav_jax.attribution.videos.finite_check import non_finite_message
from vtcav_jax.data.clip import SamplingConfig
from vtcav_jax.data.loader import ReadResult, stream
from vtcav_jax.runtime import Runtime
from vtcav_jax.tcav.experiment.dataset import ClipSelection
from vtcav_jax.tcav.experiment.plan import Plan
from vtcav_jax.tcav.features.encode import EncodeConfig, stream_activations, stream_gradients
from vtcav_jax.tcav.features.microbatches import Batch, ClipBatches, in_memory


def fill_activations(plan: Plan, runtime: Runtime) -> list[ReadResult]:
    """Compute the missing activations of concept clips, up to the deepest stage needed; return the clips that failed.

    Each process encodes a share of the clips; on return all of them are in the cache.
    """
    # Process 0 decides, since another process may already have stored some of the entries
    rows = distributed.broadcast_from_main([same[0] for same in plan.forward_missing.values()])
    stages = [stage for stage in plan.stages if not all(plan.store.has(plan.example_key(row, stage)) for row in rows)]
    encode_config = _with_batch_size(plan.config.encode_config, len(plan.clips.concepts))
    local_rows, failures = distributed.local_share(rows, encode_config.batch_size), []
    if local_rows and stages:
        clips, rows_read = _stream_clips(plan, plan.clips.concepts, local_rows, runtime, failures)
        for start, activations in stream_activations(
            replicate_model(plan, runtime), clips, stages, encode_config, runtime
        ):
            for i in range(len(activations[stages[0]])):
                row = rows_read[start + i]
                if non_finite := [stage for stage in stages if not np.isfinite(activations[stage][i]).all()]:
                    failures.append(_non_finite(plan.clips.concepts, row, f"the activations at {non_finite[0]}"))
                    continue
                for stage in stages:
                    plan.store.put(plan.example_key(row, stage), activations[stage][i])
    return _gather_failures(failures, plan.clips.concepts)


def fill_gradients(plan: Plan, runtime: Runtime) -> list[ReadResult]:
    """Compute the missing scores and gradients of target clips, all stages at once; return the clips that failed."""
    missing = {
        int(row): tuple(classes)
        for row, classes in distributed.broadcast_from_main(list(plan.backward_missing.items()))
    }
    stages = [
        stage
        for stage in plan.stages
        if not all(
            plan.store.has(plan.gradient_key(row, index, stage))
            for row, classes in missing.items()
            for index in classes
        )
    ] or list(plan.stages[:1])
    rows_by_classes: dict[tuple[int, ...], list[int]] = {}
    for row, classes in missing.items():
        rows_by_classes.setdefault(classes, []).append(row)
    encode_config, failures = _with_batch_size(plan.config.encode_config, len(plan.clips.targets)), []
    model = replicate_model(plan, runtime) if rows_by_classes else None
    for classes, all_rows in rows_by_classes.items():
        if not (rows := distributed.local_share(all_rows, encode_config.batch_size)):
            continue
        clips, rows_read = _stream_clips(plan, plan.clips.targets, rows, runtime, failures)
        table = np.tile(np.array(classes, np.int64), (len(rows), 1))
        assert model is not None
        for start, scores, gradients in stream_gradients(model, clips, table, stages, encode_config, runtime):
            for i, row in enumerate(rows_read[start : start + len(scores)]):
                non_finite = [stage for stage in stages if not np.isfinite(gradients[stage][:, i]).all()]
                if non_finite or not np.isfinite(scores[i]).all():
                    values = f"the gradients at {non_finite[0]}" if non_finite else "its scores"
                    failures.append(_non_finite(plan.clips.targets, row, values))
                    continue
                for c, index in enumerate(classes):
                    for stage in stages:
                        plan.store.put(plan.gradient_key(row, index, stage), gradients[stage][c, i])
                    plan.store.put(plan.gradient_key(row, index, None), np.asarray(scores[i, c]))
    return _gather_failures(failures, plan.clips.targets)


def _non_finite(selection: ClipSelection, row: int, values: str) -> ReadResult:
    """Return a clip whose activations or gradients overflow as a failure."""
    i = selection.items[row]
    item = selection.source.items[i]
    return ReadResult(i, item, None, non_finite_message(item.name, values))


def target_batches(plan: Plan, runtime: Runtime, rows: Sequence[int]) -> ClipBatches:
    """Return these target clips, in memory if they fit into the budget."""
    clips = replace(_stream_clips(plan, plan.clips.targets, rows, runtime, [])[0], exact=True)
    fits = 4 * math.prod(clips.shape) * len(rows) <= plan.config.budget
    return in_memory(np.stack(list(clips))) if fits else clips


def _gather_failures(local_failures: Sequence[ReadResult], selection: ClipSelection) -> list[ReadResult]:
    """Return the failures of all processes, after waiting for them."""
    failures = [
        failure
        for part in distributed.all_gather([(read.index, read.failure) for read in local_failures])
        for failure in part
    ]
    return [ReadResult(index, selection.source.items[index], None, failure) for index, failure in failures]


def replicate_model(plan: Plan, runtime: Runtime) -> taps.Model:
    return jax.device_put(taps.as_pytree(plan.network.model), NamedSharding(runtime.mesh, PartitionSpec()))


def _with_batch_size(encode_config: EncodeConfig, n_clips: int) -> EncodeConfig:
    """Return the settings with at most as many clips per batch as the plan has.

    The shares of processes and continued runs have batches of this size too, as rounding depends on it.
    """
    return replace(encode_config, batch_size=min(encode_config.batch_size, max(n_clips, 1)))


def _stream_clips(
    plan: Plan, selection: ClipSelection, rows: Sequence[int], runtime: Runtime, failures: list[ReadResult]
) -> tuple[ClipBatches, list[int]]:
    """Return the readable clips of these rows, and a list to which their rows are added as they are read."""
    rows_read: list[int] = []
    row_of = {selection.items[row]: row for row in rows}

    def batches() -> Iterator[Batch]:
        for read_result in stream(
            selection.source,
            plan.network.clip_spec,
            SamplingConfig(),
            positions=[selection.items[row] for row in rows],
            num_workers=runtime.num_workers,
        ):
            if read_result.clip is None:
                failures.append(read_result)
                continue
            rows_read.append(row_of[read_result.index])
            yield read_result.clip.video[:1], np.ones(1, bool)

    return ClipBatches(len(rows), plan.network.clip_spec.shape, batches, np.float32, exact=False), rows_read
