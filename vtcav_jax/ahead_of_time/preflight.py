"""`preflight`: whether a program compiles for an accelerator and fits its memory, and a lower bound of its time.

The program is traced here for the chip's platform, and compiled by the chip's own compiler in another process. No
accelerator is needed, and no weights: a network of shapes is enough.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from vtcav_jax.ahead_of_time.chips import Chip, get_chip
from vtcav_jax.ahead_of_time.operations import count_operations
from vtcav_jax.models.network import Network
from vtcav_jax.platforms import compile_for
from vtcav_jax.tap import Model

MAX_BATCH_TRIES = 6
NEEDED_MODULES = {"tpu": ("libtpu", "flatbuffers"), "gpu": ("jax_cuda13_plugin", "flatbuffers")}
# The compilers' own flags do not carry over, and a description of a TPU keeps libtpu from looking for one
WORKER_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


# Calls of Triton kernels may change between versions of jax; the process that compiles has the same version
UNSTABLE = (export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton"),)


@dataclass(frozen=True)
class Preflight:
    """Result of compiling a program for a chip; without memory and traffic if the compiler rejected it."""

    chip: Chip
    shape: tuple[int, ...]  # of the video
    operations: int  # of matrix products and convolutions, two per multiplication and addition
    error: str | None = None  # of the compiler
    memory_bytes: int | None = None  # arguments, results, temporary arrays and code
    traffic_bytes: int | None = None  # read from and written to the device's memory
    accessed_bytes: int | None = None  # the same with the vector memory of a TPU
    largest_batch: int | None = None  # the largest that was compiled and fits; None if not searched for

    @property
    def fits(self) -> bool:
        """True if the program compiles and needs no more than the usable memory."""
        return self.memory_bytes is not None and self.memory_bytes <= self.chip.usable_bytes

    @property
    def compute_seconds(self) -> float:
        """Time of the operations at the chip's bfloat16 peak."""
        return self.operations / self.chip.peak_bf16

    @property
    def memory_seconds(self) -> float | None:
        """Time of the traffic at the bandwidth of the chip's memory."""
        return None if self.traffic_bytes is None else self.traffic_bytes / self.chip.bandwidth

    @property
    def bound_seconds(self) -> float:
        """Lower bound of the time of one call: the longer of both."""
        return max(self.compute_seconds, self.memory_seconds or 0.0)

    @property
    def utilisation_bound(self) -> float:
        """Upper bound of the share of the chip's peak that the operations reach."""
        return self.compute_seconds / self.bound_seconds if self.operations else 0.0

    def __str__(self) -> str:
        chip = self.chip
        lines = [f"{' x '.join(map(str, self.shape))} on one {chip.name}"]
        if self.error is not None:
            return "\n".join([*lines, f"does not compile: {self.error}"])
        assert self.memory_bytes is not None and self.traffic_bytes is not None and self.memory_seconds is not None
        verdict = "fits" if self.fits else "does not fit"
        lines += [
            f"memory: {self.memory_bytes / 2**30:.3g} of {chip.usable_bytes / 2**30:.3g} GiB; {verdict}",
            f"operations: {self.operations / 1e9:.3g} G, at least {self.compute_seconds * 1e3:.3g} ms",
            f"memory traffic: {self.traffic_bytes / 1e9:.3g} GB, at least {self.memory_seconds * 1e3:.3g} ms",
            f"lower bound of the time (no measurement): {self.bound_seconds * 1e3:.3g} ms;"
            f" upper bound of the utilisation: {self.utilisation_bound:.0%}",
            f"peaks: {chip.source}",
        ]
        if self.largest_batch is not None:
            lines.insert(2, f"largest batch that fits: {self.largest_batch}")
        return "\n".join(lines)


def preflight(
    function: Callable[[Any, jax.Array], Any],
    network: Network | Model,
    shape: Sequence[int],
    target: str,
    *,
    dtype: Any = jnp.float32,
    find_largest_batch: bool = False,
) -> Preflight:
    """Compile `function(model, video)` for a chip that need not be here, and bound its time from below.

    ```python
    print(vtcav.preflight(lambda model, video: model(video), network, (8, 16, 112, 112, 3), "v5e"))
    ```

    Args:
        network: a network, or a model; arrays may be shapes, as from `flax.nnx.eval_shape`.
        shape: of the video, (b, t, h, w, 3).
        target: v4, v5e, v6e or h100.
        dtype: of the video.
        find_largest_batch: compile for further batches, up to the largest that fits.
    """
    chip = get_chip(target)
    if missing := [name for name in NEEDED_MODULES[chip.platform] if find_spec(name) is None]:
        raise ValueError(
            f"compiling for {target} needs {', '.join(missing)}; install the extra preflight"
            " (pip install 'vtcav-jax[preflight]')"
        )
    if len(shape) != 5 or min(shape) < 1:
        raise ValueError(f"expected the shape of a video, (b, t, h, w, 3), got {tuple(shape)}")
    model = network.model if isinstance(network, Network) else network

    def run(batch: int) -> Preflight:
        return _compile(function, model, (batch, *shape[1:]), chip, dtype)

    result = run(shape[0])
    if find_largest_batch:
        result = replace(result, largest_batch=_largest_batch(shape[0], result, run, chip))
    return result


def _compile(function: Callable[..., Any], model: Any, shape: tuple[int, ...], chip: Chip, dtype: Any) -> Preflight:
    leaves, tree = jax.tree.flatten(model)
    structs = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in map(jax.typeof, leaves)]
    video = jax.ShapeDtypeStruct(shape, dtype)

    def flat(leaves: list[Any], video: jax.Array) -> list[Any]:
        return jax.tree.leaves(function(jax.tree.unflatten(tree, leaves), video))

    with compile_for(chip.platform):
        operations = count_operations(flat, structs, video)
        exporter = export.export(jax.jit(flat), platforms=[chip.export_platform], disabled_checks=UNSTABLE)
        program = exporter(structs, video).serialize()
    return Preflight(chip, shape, operations, **_run_worker(chip, bytes(program)))


def _run_worker(chip: Chip, program: bytes) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        source, destination = Path(folder) / "program", Path(folder) / "result.json"
        source.write_bytes(program)
        command = [sys.executable, "-m", "vtcav_jax.ahead_of_time.compile_worker", chip.chip, source, destination]
        environment = {**os.environ, **WORKER_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.run(command, env=environment, capture_output=True, text=True)
        if destination.exists():
            return json.loads(destination.read_text(encoding="utf-8"))
    lines = process.stderr.strip().splitlines() or ["no message"]
    return {"error": f"the compiler ended with code {process.returncode}: {lines[-1]}"}


def _largest_batch(batch: int, result: Preflight, run: Callable[[int], Preflight], chip: Chip) -> int:
    """Return the largest compiled batch that fits, 0 if none does; memory is taken to be linear in the batch."""
    memory = {batch: result.memory_bytes} if result.memory_bytes is not None else {}
    too_large = batch if not result.fits else None
    largest = batch if result.fits else 0
    candidate = 2 * batch if result.fits else batch // 2
    for _ in range(MAX_BATCH_TRIES):
        if candidate <= largest or candidate < 1:
            break
        tried = run(candidate)
        if tried.memory_bytes is not None:
            memory[candidate] = tried.memory_bytes
        if tried.fits:
            largest = candidate
        else:
            too_large = candidate if too_large is None else min(candidate, too_large)
        if too_large == largest + 1:
            break
        candidate = _next_batch(memory, largest, too_large, chip.usable_bytes)
    return largest


def _next_batch(memory: dict[int, int], largest: int, too_large: int | None, usable: int) -> int:
    """Return the batch at which the line through the two largest known batches reaches the usable memory."""
    known = sorted(memory)[-2:]
    if len(known) < 2:
        return largest * 2 if too_large is None else (largest + too_large) // 2
    slope = max((memory[known[1]] - memory[known[0]]) / (known[1] - known[0]), 1)
    candidate = int(known[1] + (usable - memory[known[1]]) / slope)
    return candidate if too_large is None else min(candidate, too_large - 1)
