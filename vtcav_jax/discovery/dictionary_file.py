"""File of the fitted dictionaries, which a continued run and the other processes of a run read."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vtcav_jax.atomic import replacing
from vtcav_jax.attribution.videos.stored_results import read_about
from vtcav_jax.discovery.dictionaries import Dictionary

DictionaryOfStage = tuple[Dictionary, Float[np.ndarray, "t h w c"]]  # with the mean activation it is relative to
MEAN = "mean"


def write_dictionaries(path: Path, fitted: Mapping[str, DictionaryOfStage], fitted_to: str) -> None:
    """Write the dictionaries by stage, and the hash of the activations that they were fitted to."""
    arrays = {
        f"{stage}|{name}": np.asarray(value)
        for stage, (dictionary, mean) in fitted.items()
        for name, value in {**dictionary._asdict(), MEAN: mean}.items()
    }
    about = json.dumps({"fitted_to": fitted_to, "stages": list(fitted)})
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, about=np.array(about), **arrays)


def read_dictionaries(path: Path) -> dict[str, DictionaryOfStage]:
    """Return the dictionaries by stage."""
    with np.load(path, allow_pickle=False) as stored:
        return {
            stage: (Dictionary(*(stored[f"{stage}|{name}"] for name in Dictionary._fields)), stored[f"{stage}|{MEAN}"])
            for stage in json.loads(str(stored["about"]))["stages"]
        }


def is_fitted_to(path: Path, fitted_to: str) -> bool:
    """Return whether there is an undamaged file of dictionaries that were fitted to these activations."""
    try:
        return read_about(path)["fitted_to"] == fitted_to
    except Exception:  # a damaged file can raise anything
        return False
