"""Run folders: a record of the request lets the same command continue a run and rejects any other command."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vtcav_jax import atomic, distributed
from vtcav_jax.json_file import load_json
from vtcav_jax.runs.code_version import code_hash, package_versions
from vtcav_jax.runs.lock import is_lock, lock_folder

RUN_RECORD_FILE = "run.json"
FLAGS_FILE = "flags.txt"
ANIMATION_FOLDER = "animations"
SUPPORTED_TASKS = (*("tcav", "attribute", "motion", "pyramid"), "train", "evaluate", "evaluate_methods")
FOLDER_SHARING_TASKS = ("tcav", "attribute", "motion", "pyramid")  # tasks that may share a folder and its page


def open_run(
    folder: str | Path,
    request: Mapping[str, Any],
    flags: str = "",
    *,
    network: Mapping[str, str] | None = None,
    keyed_by_code: bool = False,
) -> Path:
    """Create or continue a run and return its folder; `request` holds everything that the results depend on.

    Writes the request, the hashes of the `network` and of the package's code, and package versions to `run.json`, and
    `flags` to `flags.txt`. Raises ValueError with all differences if the folder holds another run of the task, or
    results of another network, code or version. Tasks that share a folder have one record each. A task whose stored
    parts name code and weights in their keys (`keyed_by_code`) recomputes those that differ, and only their versions
    are compared. Of several processes, the first one does this; all must see the folder.
    """
    folder = Path(folder)
    record: dict[str, Any] = {"request": json.loads(json.dumps(request)), "versions": package_versions()}
    if not keyed_by_code:
        record["made_by"] = {**(network or {}), "code": code_hash()}
    distributed.main_process_first(lambda: _claim_run(folder, record, flags))
    distributed.require_shared_folder(folder)
    return folder


def _claim_run(folder: Path, record: Mapping[str, Any], flags: str) -> None:
    task = record["request"].get("task")
    lock_folder(folder)
    record_file, flags_file = record_paths(folder, task)
    if record_file.exists():
        previous = _read_record(record_file)
        if task != (previous_task := previous["request"].get("task")):
            differences = [f"task {previous_task or 'unknown'}"]
        else:
            differences = _differences(previous, record)
        if differences:
            raise ValueError(
                f"{folder} holds a different run ({'; '.join(differences)}); choose another folder (--run), or remove"
                " it"
            )
    elif record_file.name == RUN_RECORD_FILE and folder.exists() and _has_other_content(folder):
        raise ValueError(f"{folder} is not empty and is not a run folder; choose another folder (--run)")
    folder.mkdir(parents=True, exist_ok=True)
    if not record_file.exists():
        atomic.write_text(flags_file, flags)
        atomic.write_text(record_file, json.dumps(record, indent=1) + "\n")


def _has_other_content(folder: Path) -> bool:
    """Return whether `folder` is a file, or holds more than a run leaves that was killed before it wrote its record."""
    return not folder.is_dir() or any(
        not is_lock(path) and not atomic.is_temporary(path) and path.name != FLAGS_FILE for path in folder.iterdir()
    )


def _differences(previous: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    """Return what differs between two runs of a task, as text: settings, versions, and hashes by name."""
    differences = []
    for part in ("request", "versions"):
        before, now = previous.get(part) or {}, record[part]
        names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        differences += [f"{name} was {before.get(name)!r}, is {now.get(name)!r}" for name in names]
    before, now = previous.get("made_by") or {}, record.get("made_by") or {}
    if now and not before:
        return [*differences, "it is from an older version, which did not record weights and code"]
    changed = [name for name, value in now.items() if before.get(name) != value]
    return differences + [f"it was made by other {name}" for name in changed]


def record_paths(folder: Path, task: str | None) -> tuple[Path, Path]:
    """Return the files of a task's request and flags; only the first task of a folder has names without a suffix."""
    first_record = folder / RUN_RECORD_FILE
    if (
        first_record.exists()
        and (previous_task := _read_record(first_record)["request"].get("task")) != task
        and task in FOLDER_SHARING_TASKS
        and previous_task in FOLDER_SHARING_TASKS
    ):
        return folder / f"run_{task}.json", folder / f"flags_{task}.txt"
    return first_record, folder / FLAGS_FILE


def _read_record(record_file: Path) -> dict[str, Any]:
    try:
        record = load_json(record_file)
        return {**record, "request": dict(record["request"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{record_file} is damaged or from an older version; remove {record_file.parent}, or choose another folder"
            " (--run)"
        ) from error
