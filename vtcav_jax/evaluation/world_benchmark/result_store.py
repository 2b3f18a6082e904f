"""What is measured is kept part by part, so that a run that was stopped goes on, and rows can be made anew."""

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vtcav_jax.evaluation.world_benchmark.scoring import Measured
from vtcav_jax.evaluation.world_benchmark.tables import Refused
from vtcav_jax.names import filed

FOLDER = "parts"


def part(folder: Path, network: str, world: str, group: str) -> Path:
    return folder / FOLDER / f"{filed(f'{network}--{world}--{group}')}.npz"


def write(path: Path, found: Sequence[Measured], refused: Sequence[Refused] = ()) -> None:
    arrays, about = {}, []
    for i, one in enumerate(found):
        arrays |= {f"{i}/{axis}": parts for axis, parts in one.axes.items()}
        about.append([one.method, one.stage, one.question, one.forwards, one.seconds])
    told = {"measured": about, "refused": [[r.method, r.network, r.reason] for r in refused]}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, about=np.array(json.dumps(told)), **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part{os.getpid()}")
    beside.write_bytes(buffer.getvalue())
    os.replace(beside, path)


def read(path: Path) -> tuple[list[Measured], list[Refused]]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            told = json.loads(str(file["about"]))
            names = [name.partition("/") for name in file.files if "/" in name]
            axes = [
                {axis: file[f"{i}/{axis}"] for j, _, axis in names if int(j) == i} for i in range(len(told["measured"]))
            ]
        found = [Measured(*about, axes=own) for about, own in zip(told["measured"], axes, strict=True)]
        return found, [Refused(*about) for about in told["refused"]]
    except Exception as error:  # a zip file can be damaged in many ways
        raise ValueError(f"{path} is damaged ({error!r}); remove it and give the command again") from error
