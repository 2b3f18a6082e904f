"""Accelerators: memory, and the published peaks from which the lower bound of a program's time follows."""

import csv
from dataclasses import dataclass
from importlib import resources

from vtcav_jax.names import unknown_name_message


@dataclass(frozen=True)
class Chip:
    """One accelerator; `source` names who publishes its figures.

    `usable_fraction` is the part of the memory that programs get: what XLA's TPU compiler leaves, or what JAX allocates
    on a GPU by default. `topology` is XLA's name of a group of chips, or a file that describes a GPU.
    """

    chip: str
    name: str
    platform: str
    topology: str
    memory_bytes: int
    usable_fraction: float
    bandwidth: float  # bytes per second of the device's memory
    peak_bf16: float  # operations per second of matrix products, two per multiplication and addition
    source: str

    @property
    def export_platform(self) -> str:
        """The name of the platform in `jax.export`."""
        return "cuda" if self.platform == "gpu" else self.platform

    @property
    def usable_bytes(self) -> int:
        return int(self.memory_bytes * self.usable_fraction)


def read_chips() -> dict[str, Chip]:
    """Return the known chips by their short names."""
    text = resources.files("vtcav_jax.ahead_of_time").joinpath("chips.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    chips = [Chip(**{key: Chip.__annotations__[key](value) for key, value in row.items()}) for row in rows]
    return {chip.chip: chip for chip in chips}


def get_chip(name: str) -> Chip:
    chips = read_chips()
    if name not in chips:
        raise ValueError(unknown_name_message("target", [name], tuple(chips)))
    return chips[name]
