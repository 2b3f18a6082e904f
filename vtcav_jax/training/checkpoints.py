"""Output of a training run: its last two states, and a table of metrics with one row per step."""

import csv
import json
import logging
import shutil
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import jax
from jaxtyping import Array

from vtcav_jax import atomic
from vtcav_jax.checksums import path_sha256
from vtcav_jax.console import info
from vtcav_jax.data.source import Source, is_unchanged
from vtcav_jax.names import abridged_list
from vtcav_jax.runs.tables import write_table

Tree = TypeVar("Tree")


class MetricsTable:
    """CSV with one row per step and no times, so that interrupted and uninterrupted runs write the same file."""

    def __init__(self, path: Path, heads: Iterable[str]):
        self.path = path
        self.columns = ["step", "loss", "learning_rate", "gradient_norm", *(f"accuracy:{head}" for head in heads)]
        self.rows: list[list[str]] = []

    def rewind(self, step: int) -> None:
        """Delete the rows from `step` on, where the run continues."""
        earlier_rows = []
        if step:
            with self.path.open(newline="", encoding="utf-8") as file:
                earlier_rows = [row for row in islice(csv.reader(file), 1, None) if int(row[0]) < step]
        write_table(self.path, self.columns, earlier_rows)

    def add(self, step: int, values: dict[str, float]) -> None:
        self.rows.append([str(step), *(repr(values[name]) for name in self.columns[1:])])

    def flush(self) -> None:
        with atomic.replacing(self.path) as part:
            shutil.copyfile(self.path, part)
            with part.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(self.rows)
        self.rows.clear()


class VideoContents:
    """Hashes of the videos that a run has been trained on, which must not change before it ends."""

    def __init__(self, path: Path, source: Source):
        self.path, self.source = path, source
        self.contents: dict[str, str] = _read_hashes(path)

    def require_unchanged(self) -> None:
        """Raise ValueError that names the videos whose files have changed since they were used."""
        changed = [int(i) for i, content in self.contents.items() if not is_unchanged(self.source, int(i), content)]
        if changed:
            names = abridged_list([self.source.items[i].name for i in changed])
            raise ValueError(
                f"the files of {names} have changed since the training began; restore them, or choose another folder"
                " (--run)"
            )

    def add(self, i: int, content: str) -> None:
        self.contents[str(i)] = content

    def write(self) -> None:
        atomic.write_text(self.path, json.dumps(dict(sorted(self.contents.items()))))


def _has_no_exception(record: logging.LogRecord) -> bool:
    """Return whether to log a record; Orbax logs errors of its threads before it raises them."""
    return not record.exc_info


class Checkpoints:
    """Last two states of a training run, stored by Orbax with dotted names."""

    def __init__(self, folder: Path):
        import orbax.checkpoint as ocp

        self.folder, self.ocp = folder.absolute(), ocp
        self.checksum_file = self.folder.with_name(f"{folder.name}.sha256.json")
        self.manager = ocp.CheckpointManager(self.folder, options=ocp.CheckpointManagerOptions(max_to_keep=2))

    def __enter__(self) -> "Checkpoints":
        logging.getLogger("absl").addFilter(_has_no_exception)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.manager.close()  # waits for the write
        finally:
            logging.getLogger("absl").removeFilter(_has_no_exception)
        self._write_checksums()

    def latest(self) -> int | None:
        self.manager.wait_until_finished()
        return self.manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        self.manager.wait_until_finished()
        self._write_checksums(without=step)
        self.manager.save(step, args=self.ocp.args.StandardSave(_by_name(state)))

    def _write_checksums(self, without: int | None = None) -> None:
        """Add the checksums of complete checkpoints to those on disk, and remove those of deleted ones."""
        known = _read_hashes(self.checksum_file)
        steps = [path.name for path in self.folder.iterdir() if path.name.isdigit() and path.name != str(without)]
        checksums = {step: known.get(step) or path_sha256(self.folder / step) for step in sorted(steps, key=int)}
        atomic.write_text(self.checksum_file, json.dumps(checksums, indent=1) + "\n")

    def restore(self, state: Tree) -> tuple[Tree, int]:
        """Return the last state, with the sharding of `state`, and the next step; without one, `state` and 0."""
        step = self.latest()
        if step is None:
            return state, 0
        checksum = _read_hashes(self.checksum_file).get(str(step))
        if checksum and path_sha256(self.folder / str(step)) != checksum:
            raise ValueError(
                f"checkpoint {step} in {self.folder} is damaged: its SHA-256 differs from the one in"
                f" {self.checksum_file.name}; remove its folder to continue from the previous one"
            )
        templates = {
            name: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding) for name, a in _by_name(state).items()
        }
        try:
            arrays = self.manager.restore(step, args=self.ocp.args.StandardRestore(templates))
        except Exception as error:  # Orbax raises many types
            raise ValueError(
                f"checkpoint {step} in {self.folder} cannot be read ({type(error).__name__}); remove its folder to"
                " continue from the previous one"
            ) from error
        leaves = [arrays[name] for name in templates]
        return jax.tree.unflatten(jax.tree.structure(state), leaves), step


def _read_hashes(path: Path) -> dict[str, str]:
    """Return the hashes in a JSON file; none if it does not exist, and none with a note if it is damaged."""
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        info(f"note: {path} is damaged; what it describes is not checked")
        return {}


def _by_name(state: Any) -> dict[str, Array]:
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
