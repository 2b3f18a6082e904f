"""The network of a run: which one, how its clips look, and its loading, once for all requests."""

import hashlib
import shlex
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from vtcav_jax import models
from vtcav_jax.adapters.factory import is_adapted, load
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.models.network import Network
from vtcav_jax.report.run_reader import TaskRecord


@dataclass(frozen=True)
class NetworkReference:
    """Reference to a run's network, from the flags of its command."""

    model: str
    labels: str = ""
    label_tree: str = ""
    random_weights: bool = False
    seed: int = 0
    weights: str = ""  # hash in the record of the run; empty if the record has none

    @property
    def key(self) -> str:
        """Short name of the network for caches."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]


def network_reference(record: TaskRecord) -> NetworkReference:
    """Return the network of a task; runs that a library call made have no flags, but a request."""
    words = [word.removeprefix("--") for word in shlex.split(record.flags_text) if word.startswith("--")]
    flags = {name: value for name, _, value in (word.partition("=") for word in words)}
    made_by = record.content.get("made_by") or record.content.get("hashes") or {}
    return NetworkReference(
        str(flags.get("model") or record.config.get("model", "")),
        flags.get("labels", ""),
        flags.get("label_tree", ""),
        "random_weights" in flags,
        int(flags.get("seed") or record.config.get("seed") or 0),
        str(made_by.get("weights", "")),
    )


def load_referenced(reference: NetworkReference) -> Network:
    """Load the network; raise ValueError if its weights are not those of the run."""
    if reference.random_weights and reference.model in models.PRESETS:
        network = models.random_network(reference.model, seed=reference.seed)
    else:
        network = load(reference.model)
    if reference.labels:
        network = replace(network, heads=models.relabel(network.heads, reference.labels))
    if reference.label_tree:
        network = replace(network, groups=models.read_label_tree(Path(reference.label_tree), network))
    if reference.weights and network.identity()["weights"] != reference.weights:
        raise ValueError(
            f"{reference.model} has other weights now than when the run was made; restore them, or repeat the run"
        )
    return network


class NetworkShelf:
    """Networks that were loaded, each once."""

    def __init__(self) -> None:
        self._networks: dict[NetworkReference, Network] = {}
        self._specs: dict[NetworkReference, ClipSpec] = {}
        self._identities: dict[NetworkReference, dict[str, str]] = {}
        self._lock = threading.Lock()
        self.n_loaded = 0

    def network(self, reference: NetworkReference) -> Network:
        """Return the network, after loading it if this is its first use."""
        with self._lock:
            if reference not in self._networks:
                self._networks[reference] = load_referenced(reference)
                self.n_loaded += 1
            return self._networks[reference]

    def identity(self, reference: NetworkReference) -> dict[str, str]:
        """Return the hashes of everything that results of the network depend on."""
        network = self.network(reference)
        with self._lock:
            if reference not in self._identities:
                self._identities[reference] = network.identity()
            return self._identities[reference]

    def clip_spec(self, reference: NetworkReference) -> ClipSpec:
        """Return how the network's clips look, without its weights where possible."""
        if reference not in self._specs:
            if is_adapted(reference.model):
                self._specs[reference] = self.network(reference).clip_spec
            else:
                self._specs[reference] = models.abstract_model(reference.model)[1].clip_spec
        return self._specs[reference]
