"""Directions as text: a channel, a discovered concept or a concept vector of a tcav run, for `--through`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vtcav_jax.attribution.conditional.relevance import require_order, unit_vector
from vtcav_jax.attribution.score_model import ExplainContext, prepare_explanation
from vtcav_jax.attribution.target_spec import CHANNEL_SEPARATOR
from vtcav_jax.models.network import Network
from vtcav_jax.names import unknown_name_message
from vtcav_jax.runs.discovery_rows import DIRECTIONS_NPZ, DISCOVERED_CSV, DiscoveredRow
from vtcav_jax.runs.tables import read_rows
from vtcav_jax.tcav.features.pooling import broadcast_vector
from vtcav_jax.tcav.vector_file import VECTORS_FILE, load_vectors_for

FOLDER_SEPARATOR = ":"
FORMS = "STAGE#CHANNEL, FOLDER:STAGE/NN (a folder of discover) or FOLDER:STAGE|CONCEPT/CLIP_TYPE/NEGATIVES (a tcav run)"

Kind = Literal["channel", "discovered concept", "concept vector"]


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction of the activations at a stage, with length 1 at each place; `title` adds the label of a concept."""

    name: str
    title: str
    kind: Kind
    stage: str
    vector: Float[np.ndarray, "*places c"]

    @property
    def digest(self) -> str:
        """Hash of the vector, for the record of a run."""
        return hashlib.sha256(np.ascontiguousarray(self.vector).tobytes()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Directions:
    """Directions that relevance is to pass through, and by stage those that they are ranked with, besides channels."""

    chosen: tuple[Direction, ...]
    concepts: dict[str, tuple[Direction, ...]]

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(self.concepts)


def parse_directions(network: Network, texts: Sequence[str]) -> Directions:
    """Parse texts such as `layers.1#12` and `FOLDER:layers.1/03`; one error lists all invalid texts.

    The concepts of a stage are those of all folders that `texts` name.
    """
    context = prepare_explanation(network.model, jnp.zeros((1, *network.clip_spec.shape)), 0)
    chosen: list[Direction] = []
    folders: dict[str, dict[str, Direction]] = {}
    errors = []
    for text in texts:
        try:
            folder, separator, name = text.partition(FOLDER_SEPARATOR)
            if not separator:
                chosen.append(_parse_channel(context, text))
                continue
            if folder not in folders:
                folders[folder] = _read_folder(network, context, Path(folder))
            if name not in folders[folder]:
                raise ValueError(f"{folder}: {unknown_name_message('concept', [name], folders[folder])}")
            chosen.append(folders[folder][name])
        except ValueError as error:
            errors.append(str(error))
    names = [direction.name for direction in chosen]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        errors.append(f"{', '.join(repeated)} is named twice; name each channel or concept once")
    if errors:
        raise ValueError("; ".join(errors))
    concepts: dict[str, dict[str, Direction]] = {direction.stage: {} for direction in chosen}
    for direction in (direction for directions in folders.values() for direction in directions.values()):
        if direction.stage in concepts:
            concepts[direction.stage].setdefault(direction.name, direction)
    return Directions(tuple(chosen), {stage: tuple(named.values()) for stage, named in concepts.items()})


def _parse_channel(context: ExplainContext, text: str) -> Direction:
    stage, separator, channel = text.rpartition(CHANNEL_SEPARATOR)
    if not separator or not channel.isdecimal():
        raise ValueError(f"expected {FORMS}, got {text}")
    require_order(context, stage)
    vector = unit_vector(int(channel), stage, context.shapes[stage])
    return Direction(text, f"channel {channel} of {stage}", "channel", stage, vector)


def _read_folder(network: Network, context: ExplainContext, folder: Path) -> dict[str, Direction]:
    """Return the directions in a folder of `discover`, or of a tcav run with exported vectors, by name."""
    if (folder / DIRECTIONS_NPZ).is_file():
        rows = {row.concept: row for row in read_rows(folder / DISCOVERED_CSV, DiscoveredRow)}
        with np.load(folder / DIRECTIONS_NPZ, allow_pickle=False) as stored:
            arrays = {key.replace("|", "/"): stored[key] for key in stored.files}
        out = {}
        for name in sorted(arrays):
            stage = name.rpartition("/")[0]
            if stage in context.shapes and len(context.shapes[stage]) != 5:
                continue  # a stage without time and space has no places that relevance passes through
            require_order(context, stage)
            label = (rows[name].name or rows[name].label) if name in rows else ""
            title = f"discovered concept {name}" + (f" ({label})" if label else "")
            out[name] = Direction(
                name, title, "discovered concept", stage, _fit(arrays[name], context, stage, folder, name)
            )
        return out
    if not (folder / VECTORS_FILE).is_file():
        raise ValueError(
            f"{folder} has neither {DIRECTIONS_NPZ}, which discover writes, nor {VECTORS_FILE}, which tcav writes with"
            f" --export_vectors; expected {FORMS}"
        )
    bundle = load_vectors_for(network.model, folder)
    out = {}
    for name, array in bundle.arrays.items():
        stage, _, concept = name.partition("|")
        shape = context.shapes[stage]
        if len(shape) == 5:
            vector = _fit(broadcast_vector(array, shape[1:], bundle.pool), context, stage, folder, name)
            vector = vector.reshape(-1) if vector.size == shape[-1] else vector
            out[name] = Direction(name, f"concept {concept} at {stage}", "concept vector", stage, vector)
    return out


def _fit(
    vector: Float[np.ndarray, "..."], context: ExplainContext, stage: str, folder: Path, name: str
) -> Float[np.ndarray, "*places c"]:
    try:
        return unit_vector(vector, stage, context.shapes[stage])
    except ValueError as error:
        raise ValueError(f"{name} in {folder} is of another network: {error}") from error
