"""Run folders: a record of the request lets the same command continue a run and rejects any other command."""

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
FOLDER_SHARING_TASKS = ("tcav", "attribute", "motion", "pyramid")  # tasks that may share a folder and its page
RECORDED_PACKAGES = ("vtcav-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def open_run(folder: str | Path, request: Mapping[str, Any], flags: str = "") -> Path:
    """Create or continue a run and return its folder; `request` holds everything that the results depend on.

    Writes the request and package versions to `run.json`, and `flags` to `flags.txt`. Raises ValueError with all
    differences if the folder holds another run of the task. Tasks that share a folder have one record each.
    """
    folder = Path(folder)
    request = json.loads(json.dumps(request))
    record_file, flags_file = record_paths(folder, request.get("task"))
    if record_file.exists():
        previous = _read_request(record_file)
        if request.get("task") != previous.get("task"):
            previous_task = previous.get("task") or "unknown"
            raise ValueError(
                f"{folder} holds a different run (task {previous_task}); choose another folder (--run), or remove it"
            )
        if differing := [name for name in sorted({*request, *previous}) if request.get(name) != previous.get(name)]:
            differences = "; ".join(
                f"{name} was {previous.get(name)!r}, is {request.get(name)!r}" for name in differing
            )
            raise ValueError(
                f"{folder} holds a different run ({differences}); choose another folder (--run), or remove it"
            )
    elif record_file.name == RUN_RECORD_FILE and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty and is not a run folder; choose another folder (--run)")
    folder.mkdir(parents=True, exist_ok=True)
    if not record_file.exists():
        atomic.write_text(flags_file, flags)
        atomic.write_text(
            record_file, json.dumps({"request": request, "versions": package_versions()}, indent=1) + "\n"
        )
    lock_record(record_file)
    return folder


def record_paths(folder: Path, task: str | None) -> tuple[Path, Path]:
    """Return the files of a task's request and flags; only the first task of a folder has names without a suffix."""
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
            f"{record_file} is damaged or from an older version; remove {record_file.parent}, or choose another folder"
            " (--run)"
        ) from error


def package_versions() -> dict[str, str]:
    """Return the versions of the installed packages that results depend on."""
    installed = {}
    for name in RECORDED_PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed
