"""Storage of measured results by network, world and group, so that an interrupted run can continue."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vtcav_jax import atomic
from vtcav_jax.console import info
from vtcav_jax.evaluation.world_benchmark.score_rows import MethodResult
from vtcav_jax.names import safe_filename
from vtcav_jax.runs.evaluation_rows import NotApplicable

RESULT_PARTS_FOLDER = "parts"


def result_path(folder: Path, network_name: str, world: str, group: str) -> Path:
    return folder / RESULT_PARTS_FOLDER / f"{safe_filename(f'{network_name}--{world}--{group}')}.npz"


def write_results(path: Path, results: Sequence[MethodResult], not_applicable: Sequence[NotApplicable] = ()) -> None:
    arrays, result_fields = {}, []
    for i, result in enumerate(results):
        arrays |= {f"{i}/{axis}": parts for axis, parts in result.metrics.items()}
        result_fields.append([result.method, result.stage, result.question, result.forward_passes, result.seconds])
    header = {"measured": result_fields, "refused": [[r.method, r.network_name, r.reason] for r in not_applicable]}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, about=np.array(json.dumps(header)), **arrays)
    atomic.write_bytes(path, buffer.getvalue())


def drop_damaged(path: Path, read: Callable[[Path], object]) -> None:
    """Remove a stored file that cannot be read, with a note, so that it is measured again."""
    if not path.exists():
        return
    try:
        read(path)
    except ValueError as error:
        info(f"note: {error}; measured again")
        path.unlink()


def read_results(path: Path) -> tuple[list[MethodResult], list[NotApplicable]]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            header = json.loads(str(file["about"]))
            names = [name.partition("/") for name in file.files if "/" in name]
            metrics = [
                {axis: file[f"{i}/{axis}"] for j, _, axis in names if int(j) == i}
                for i in range(len(header["measured"]))
            ]
        results = [
            MethodResult(*about, metrics=parts) for about, parts in zip(header["measured"], metrics, strict=True)
        ]
        return results, [NotApplicable(*about) for about in header["refused"]]
    except Exception as error:  # a damaged zip file can raise anything
        raise ValueError(f"{path} is damaged ({error!r})") from error
