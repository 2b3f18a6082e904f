"""The simulations by name, and the code that each depends on."""

import hashlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vtcav_jax
from benchmarks.statistics import intervals, levels, mined, motion, power
from benchmarks.statistics.results import Row
from benchmarks.statistics.size import Size

FULL = Size(
    exact=True,
    networks=("worlds_swin", "worlds_cnn"),
    clips=3000,
    targets=1200,
    draws=300,
    families=40,
    intervals=300,
    seeds=(21, 22, 23),
)
SMALL = Size(
    exact=False, networks=("worlds_swin",), clips=1500, targets=400, draws=28, families=4, intervals=24, seeds=()
)

SIMULATIONS: dict[str, Callable[[Size], list[Row]]] = {
    "exchangeable": levels.exchangeable,
    "roles": levels.factor_roles,
    "planted": levels.planted,
    "simulated_videos": levels.simulated_videos,
    "encoded_videos": levels.encoded_videos,
    "confounded": levels.confounded,
    "neutral_motion": motion.neutral_motion,
    "own_motion": motion.own_motion,
    "families": motion.families,
    "independent_intervals": intervals.independent_intervals,
    "clustered_intervals": intervals.clustered_intervals,
    "share_intervals": intervals.share_intervals,
    "accuracy_intervals": intervals.accuracy_intervals,
    "power": power.power,
    "mined": mined.mined_concepts,
}
# What simulations depend on besides the encoded clips; `mined` runs whole experiments
LIBRARY = (
    *("tcav/stats", "tcav/features/gram.py", "tcav/experiment/comparisons.py", "tcav/experiment/strata.py"),
    *("stats", "attribution/motion/summary.py"),
)
LIBRARY_OF_MINED = (*LIBRARY, "tcav/experiment", "concepts")


def code_key(name: str, size: Size) -> str:
    """Return a hash of the size and of the code that a simulation depends on."""
    package, here = Path(vtcav_jax.__file__).parent, Path(__file__).parent
    sources = [Path(sys.modules[SIMULATIONS[name].__module__].__file__ or "")]
    sources += [here / f"{module}.py" for module in ("clips", "library", "results", "size")]
    for part in LIBRARY_OF_MINED if name == "mined" else LIBRARY:
        sources += sorted((package / part).rglob("*.py")) if (package / part).is_dir() else [package / part]
    digest = hashlib.sha256(f"{name} {size}".encode())
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def run(name: str, size: Size, key: str) -> list[dict[str, Any]]:
    """Return the rows of a simulation with its seconds and the key of the code that it started with."""
    start = time.perf_counter()
    rows = [row.as_dict() for row in SIMULATIONS[name](size)]
    seconds = round(time.perf_counter() - start, 1)
    return [{"simulation": name, "seconds": seconds, "key": key, **row} for row in rows]
