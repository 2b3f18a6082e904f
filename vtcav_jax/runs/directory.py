"""A run's folder: what was asked, what came out, so that the same command continues it and another one is refused."""

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from vtcav_jax import atomic
from vtcav_jax.runs.lock import lock_record

RUN_RECORD_FILE = "run.json"
ANIMATION_FOLDER = "animations"
SUPPORTED_TASKS = (*("tcav", "attribute", "motion", "pyramid"), "train", "evaluate_methods")
FOLDER_SHARING_TASKS = ("tcav", "attribute", "motion", "pyramid")  # tasks whose results may lie in one folder
RECORDED_PACKAGES = ("vtcav-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def open_run(folder: str | Path, request: Mapping[str, Any], flags: str = "") -> Path:
    """The folder of a run, new or to be continued; `asked` is all that its results depend on.

    Writes `run.json` (what was asked, versions) and `flags.txt`. A folder that holds a run of something else is refused
    with every difference; but what another task is asked is written beside it, so that several can share a page.
    """
    folder = Path(folder)
    request = json.loads(json.dumps(request))
    record_file, flags_file = record_paths(folder, request.get("task"))
    if record_file.exists():
        previous = _read_request(record_file)
        if request.get("task") != previous.get("task"):
            previous_task = previous.get("task") or "another kind"
            raise ValueError(
                f"{folder} is a run of something else (of {previous_task}); choose another --run, or remove it"
            )
        if differing := [name for name in sorted({*request, *previous}) if request.get(name) != previous.get(name)]:
            differences = "; ".join(
                f"{name} was {previous.get(name)!r}, is {request.get(name)!r}" for name in differing
            )
            raise ValueError(f"{folder} is a run of something else ({differences}); choose another --run, or remove it")
    elif record_file.name == RUN_RECORD_FILE and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty and not a run; choose another --run")
    folder.mkdir(parents=True, exist_ok=True)
    if not record_file.exists():
        atomic.write_text(flags_file, flags)
        atomic.write_text(
            record_file, json.dumps({"request": request, "versions": package_versions()}, indent=1) + "\n"
        )
    lock_record(record_file)
    return folder


def record_paths(folder: Path, task: str | None) -> tuple[Path, Path]:
    """Where the folder keeps what a task was asked, and its flags: the first one's run.json is told from the others'
    by their names."""
    first_record = folder / RUN_RECORD_FILE
    if (
        first_record.exists()
        and (previous_task := _read_request(first_record).get("task")) != task
        and task in FOLDER_SHARING_TASKS
        and previous_task in FOLDER_SHARING_TASKS
    ):
        return folder / f"run_{task}.json", folder / f"flags_{task}.txt"
    return first_record, folder / "flags.txt"


def _read_request(record_file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(record_file.read_text(encoding="utf-8"))["request"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{record_file} is damaged or from an older version; remove {record_file.parent}, or choose another --run"
        ) from error


def package_versions() -> dict[str, str]:
    """Of what the numbers depend on, as far as it is installed."""
    installed = {}
    for name in RECORDED_PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed
