"""Networks that user code makes: `package.module:factory` names a function that returns a `Network`."""

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vtcav_jax import models
from vtcav_jax.models.hub import load_hub_folder
from vtcav_jax.models.network import Network
from vtcav_jax.names import unknown_name_message

HUB_PREFIX = "hf:"
ADAPTERS = "from_torch, from_linen, from_nnx or from_function"


def load(name_or_path: str | Path, **options: Any) -> Network:
    """Load a network with weights.

    ```python
    network = vtcav.load("worlds_cnn")
    logits = network.model(network.clip_spec.normalise(frames))  # uint8 frames (b, t, h, w, 3)
    ```

    Args:
        name_or_path: a shipped network (`worlds_cnn`), the path of a converted or trained one, `hf:FOLDER` with
            `config.json` and `model.safetensors` of a video transformer, or `package.module:factory`, a function that
            returns a `Network`.
        options: of `models.load`, for shipped, converted and trained networks.
    """
    name = str(name_or_path)
    if not is_adapted(name):
        return models.load(name_or_path, **options)
    if name.startswith(HUB_PREFIX):
        return load_hub_folder(Path(name.removeprefix(HUB_PREFIX)))
    return load_factory(name)


def is_adapted(name: str) -> bool:
    """Return whether a network's name is `hf:FOLDER` or `package.module:factory`."""
    return name.startswith(HUB_PREFIX) or (is_factory(name) and not Path(name).exists())


def is_factory(name: str) -> bool:
    """Return whether a network's name is `package.module:factory` and no path."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *attribute.split(".")))


def load_factory(name: str) -> Network:
    """Return the network that `package.module:factory` makes; the current folder is searched first."""
    module_name, _, attribute = name.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except SyntaxError as error:
        raise ValueError(f"{module_name} is no valid Python: {error}") from error
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if missing in (module_name, module_name.partition(".")[0]):
            raise ValueError(
                f"there is no module {module_name} in {folder} or among the installed packages; expected"
                " package.module:factory"
            ) from error
        raise ValueError(f"{module_name} needs the package {missing}, which is not installed") from error
    value = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            names = [other for other, item in vars(value).items() if callable(item) and not other.startswith("_")]
            raise ValueError(f"{module_name}: {unknown_name_message('function', [part], names)}")
        value = getattr(value, part)
    network = _call_factory(name, value) if callable(value) else value
    if not isinstance(network, Network):
        raise ValueError(f"{name} returned a {type(network).__name__}; expected a Network, as {ADAPTERS} return it")
    return network


def _call_factory(name: str, factory: Callable[[], Any]) -> Any:
    """Call the user's function; its errors are reported with the line of its file."""
    try:
        return factory()
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        user_file = getattr(sys.modules.get(name.partition(":")[0]), "__file__", None)
        line = next((frame.lineno for frame in reversed(frames) if frame.filename == user_file), None)
        place = f"{Path(user_file).name}, line {line}" if user_file and line else name
        raise ValueError(f"{place}: {type(error).__name__}: {error}") from error
