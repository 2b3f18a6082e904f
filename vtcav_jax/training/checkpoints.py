"""Output of a training run: its last two states, and a table of metrics with one row per step."""

import csv
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import jax
from jaxtyping import Array

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
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(self.rows)
        self.rows.clear()


class Checkpoints:
    """Last two states of a training run, stored by Orbax with dotted names."""

    def __init__(self, folder: Path):
        import orbax.checkpoint as ocp

        self.folder, self.ocp = folder.absolute(), ocp
        self.manager = ocp.CheckpointManager(self.folder, options=ocp.CheckpointManagerOptions(max_to_keep=2))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.manager.close()  # waits for the write

    def latest(self) -> int | None:
        self.manager.wait_until_finished()
        return self.manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        self.manager.save(step, args=self.ocp.args.StandardSave(_by_name(state)))

    def restore(self, state: Tree) -> tuple[Tree, int]:
        """Return the last state, with the sharding of `state`, and the next step; without one, `state` and 0."""
        step = self.latest()
        if step is None:
            return state, 0
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


def _by_name(state: Any) -> dict[str, Array]:
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
