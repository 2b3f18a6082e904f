"""Seeded fuzzers of everything that is read from files and flags: only a ValueError or an OSError may be raised."""

import json
import random
import shutil
import traceback
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from tests.faults.material import Material
from vtcav_jax import models
from vtcav_jax.cli import arguments
from vtcav_jax.cli.main import parse_command
from vtcav_jax.cli.tasks import TASKS
from vtcav_jax.concepts import read_concepts
from vtcav_jax.concepts.boxes import read_boxes
from vtcav_jax.data import open_source
from vtcav_jax.models.hub import load_hub_folder
from vtcav_jax.report.run_reader import open_run_folder
from vtcav_jax.settings import choices_of, without_none

WORDS = (
    *(
        "",
        " ",
        "0",
        "-1",
        "1e400",
        "nan",
        "inf",
        "1e20",
        "1" * 5000,
        "a" * 3000,
        "\x1b[31m",
        "\0",
        "../..",
        "=1+1",
        "é",
    ),
    *(
        "[",
        "{}",
        "null",
        "true",
        ",",
        ";",
        "'",
        '"',
        "@",
        "a=b=c",
        "A vs B",
        ":",
        "::",
        "*",
        "#",
        "STAGE#1",
        "\\",
        "%s",
    ),
)
NUMBERS = (0, -1, 1, 2, 10**20, -(10**20), 2**31, 2**63, 10**400)
LEAVES = (None, True, [], {}, "", "x", -1, 10**30, 1.5, [[]], {"": {}}, "\0")


@dataclass(frozen=True)
class FuzzResult:
    """Number of inputs of one kind, how many were accepted, and the traceback of each that crashed."""

    kind: str
    n_cases: int
    n_accepted: int
    crashes: tuple[str, ...]


def fuzz(material: Material, folder: Path, seed: int, count: int) -> list[FuzzResult]:
    """Try `count` inputs of each kind; the same seed gives the same inputs."""
    results = []
    for kind, fuzzer in FUZZERS.items():
        draw, crashes, n_accepted = random.Random(f"{seed} {kind}"), [], 0
        for i in range(count):
            case = folder / kind.replace(" ", "_") / str(i)
            case.mkdir(parents=True)
            try:
                fuzzer(draw, material, case)
                n_accepted += 1
            except (ValueError, OSError):
                pass
            except Exception:
                crashes.append(f"{kind} {seed} {i}: {traceback.format_exc()}")
            shutil.rmtree(case)
        results.append(FuzzResult(kind, count, n_accepted, tuple(crashes)))
    return results


def flag_value(draw: random.Random, spec: arguments.FlagSpec) -> str:
    """Return a value for a flag, often one that its type allows."""
    kind, choices = without_none(spec.hint), choices_of(without_none(spec.hint), spec.info)
    if draw.random() < 0.3:
        return draw.choice(WORDS)
    if choices:
        return ",".join(draw.choices(choices, k=draw.choice((1, 1, 2))))
    if kind is bool:
        return draw.choice(("true", "false", "maybe"))
    if kind is int:
        return str(draw.choice((*NUMBERS, *(b for b in (spec.info.minimum, spec.info.maximum) if b is not None))))
    if kind is float:
        return str(draw.choice((0.0, -1.0, 0.5, 1e-300, 1e300, float("inf"), float("nan"))))
    if get_origin(kind) is tuple:
        is_number = get_args(kind)[0] is int
        return ",".join(
            str(draw.choice(NUMBERS) if is_number else draw.choice(WORDS)) for _ in range(draw.randrange(4))
        )
    return draw.choice((*WORDS, "worlds:small:9:0", f"worlds:small:{draw.choice(NUMBERS)}", "worlds_cnn", "x"))


def fuzz_flags(draw: random.Random, material: Material, folder: Path) -> None:
    task = draw.choice(list(TASKS))
    specs = arguments.flag_specs(TASKS[task].argument_class)
    names = draw.sample(list(specs), k=min(len(specs), draw.randrange(1, 6)))
    words = [f"--{name}={flag_value(draw, specs[name])}" for name in names]
    if draw.random() < 0.7:  # the others would hide behind a missing flag
        words += [f"--{s.name}=x" for s in specs.values() if s.default is arguments.MISSING and s.name not in names]
    name, values = parse_command([f"--task={task}", *words])
    arguments.parse_arguments(TASKS[name].argument_class, values, name)


def fuzz_manifest(draw: random.Random, material: Material, folder: Path) -> None:
    text = Path(material.videos).read_text(encoding="utf-8")
    if draw.random() < 0.5:
        columns = draw.sample(("path", "label", "label:a", "start", "end", "boxes", "source", "path", "x"), k=4)
        rows = [[draw.choice((*WORDS, "clip_1_000000.mp4")) for _ in columns] for _ in range(draw.randrange(5))]
        text = "\n".join(",".join(cells) for cells in (columns, *rows))
    (folder / "clip_1_000000.mp4").touch()
    _write(folder / "m.csv", damaged(draw, text.encode()))
    open_source(folder / "m.csv")


def fuzz_boxes(draw: random.Random, material: Material, folder: Path) -> None:
    lines = (Path(material.videos).parent / "boxes.csv").read_bytes().splitlines(keepends=True)[:20]
    _write(folder / "boxes.csv", damaged(draw, b"".join(lines)))
    read_boxes(folder / "boxes.csv")


def _fuzz_concept_folder(table: str, text: bytes) -> Callable[[random.Random, Material, Path], None]:
    def fuzz_table(draw: random.Random, material: Material, folder: Path) -> None:
        concepts = Path(material.concepts)
        for path in concepts.iterdir():
            if path.name != table:
                (folder / path.name).symlink_to(path)
        original = text or (concepts / table).read_bytes()
        _write(folder / table, damaged(draw, original))
        read_concepts(folder)

    return fuzz_table


def fuzz_checkpoint(draw: random.Random, material: Material, folder: Path) -> None:
    shipped = Path(models.__file__).parent / "shipped"
    for file in shipped.glob("worlds_cnn.*"):
        shutil.copy(file, folder)
    file = draw.choice(sorted(folder.iterdir()))
    data = file.read_bytes()
    is_json = file.suffix == ".json" and draw.random() < 0.7
    _write(file, damaged_json(draw, data) if is_json else damaged(draw, data))
    models.load(folder / "worlds_cnn.net")


def fuzz_run_record(draw: random.Random, material: Material, folder: Path) -> None:
    data = (Path(material.run) / "run.json").read_bytes()
    _write(folder / "run.json", damaged_json(draw, data) if draw.random() < 0.7 else damaged(draw, data))
    open_run_folder(folder)


def fuzz_hub_folder(draw: random.Random, material: Material, folder: Path) -> None:
    config = {"model_type": "videomae", "hidden_size": 48, "num_frames": 8, "image_size": 32, "id2label": {"0": "a"}}
    _write(folder / "config.json", damaged_json(draw, json.dumps(config).encode()))
    load_hub_folder(folder)


FUZZERS: dict[str, Callable[[random.Random, Material, Path], None]] = {
    "flags": fuzz_flags,
    "manifests": fuzz_manifest,
    "boxes": fuzz_boxes,
    "concept tables": _fuzz_concept_folder("concepts.csv", b""),
    "reviews": _fuzz_concept_folder("review.csv", b"file,verdict\nleft/dynamic/x.mp4,reject\nring/static/y.mp4,keep\n"),
    "checkpoints": fuzz_checkpoint,
    "run records": fuzz_run_record,
    "hub folders": fuzz_hub_folder,
}


def damaged(draw: random.Random, data: bytes) -> bytes:
    """Return the bytes with one to three faults."""
    for _ in range(draw.randrange(1, 4)):
        a, b = sorted(draw.randrange(len(data) + 1) for _ in range(2))
        word = draw.choice(WORDS).encode()
        data = draw.choice(
            (
                data[:a],
                data[:a] + data[min(b, a + 40) :],
                data[:a] + data[a : a + 40] * 3 + data[a:],
                data[:a] + word + data[a:],
                data[:a] + draw.randbytes(4) + data[a + 4 :],
                data.replace(b",", word + b",", 1),
                b"[" * 100_000 + data,
            )
        )
    return data


def damaged_json(draw: random.Random, data: bytes) -> bytes:
    """Return JSON in which up to three values have another type, or are missing."""
    content = json.loads(data)
    for _ in range(draw.randrange(1, 4)):
        parent: Any = content
        while isinstance(parent, dict | list) and parent:
            key = draw.choice(list(parent)) if isinstance(parent, dict) else draw.randrange(len(parent))
            child = parent[key]
            if draw.random() < 0.4 or not isinstance(child, dict | list) or not child:
                parent[key] = deepcopy(draw.choice(LEAVES))  # so that it is not part of itself later
                if draw.random() < 0.2:
                    del parent[key]
                break
            parent = child
    return json.dumps(draw.choice(LEAVES) if draw.random() < 0.05 else content).encode()


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
