"""Networks from PyTorch modules: torchax runs their forward in jax; every submodule is a stage, by its name."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vtcav_jax.adapters.stages import Classes, Tokens, adapt, axes_of, make_layout, number_calls, source_identity
from vtcav_jax.clip_spec import ClipSpec
from vtcav_jax.models.network import Network
from vtcav_jax.models.parameters import require_finite
from vtcav_jax.tap import Tap

if TYPE_CHECKING:
    import torch

# Of the norm, in float32. Gradients differ more: where rounding moves a value over the kink of a ReLU, and torch's own
# float32 gradient of a residual network is 2e-3 from that in float64
LOGITS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 2e-2
DATA_DEPENDENCE_ERRORS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def select_logits(output: Any) -> Any:
    """Return the logits of an output: its attribute `logits` if it has one, the first of a tuple, else itself."""
    output = getattr(output, "logits", output)
    return output[0] if isinstance(output, tuple) else output


def from_torch(
    module: "torch.nn.Module",
    *,
    clip: ClipSpec,
    classes: Classes | None = None,
    layout: str = "bcthw",
    argument: str | None = None,
    logits: Callable[[Any], Any] = select_logits,
    grids: Mapping[str, Tokens | str] | None = None,
    verify: bool = True,
    name: str | None = None,
) -> Network:
    """Return the network of a PyTorch module in evaluation mode; its weights are copied into jax.

    ```python
    module = torchvision.models.video.r3d_18(weights="DEFAULT").eval()
    network = from_torch(module, clip=ClipSpec(frames=16, size=112), classes=names)
    ```

    Stages are the submodules by name, such as `layer3.0.conv1`, in the order in which they run; a further call of the
    same submodule is `layer3.0.relu#2`. Values (b, c, t, h, w) become (b, t, h, w, c).

    Args:
        classes: class names, or for several heads the names by head; by default the numbers of the logits.
        layout: axes of the video that the module takes: bcthw, btchw or bthwc.
        argument: name of the video among the arguments of the module's forward, if it is not the first.
        logits: selects the logits of the output; by default its attribute `logits`, the first of a tuple, or itself.
        grids: for stages by name or pattern: `Tokens(t, h, w, prefix)` if they are (b, n, c), or the axes "bcthw" or
            "bthwc" where they cannot be seen from the sizes.
        verify: compare logits and a gradient with those of PyTorch, for a random clip.
    """
    import torch

    from vtcav_jax.adapters import torch_environment

    _check_module(module)
    axes, stage_layout = axes_of(layout), make_layout(grids, channels_first=True)
    environment = torch_environment.ENVIRONMENT

    def run(weights: dict[str, Array], video: Array, tap: Tap) -> Any:
        stage_tap = number_calls(lambda stage, value: stage_layout.apply(tap, stage, value))

        def hook(stage: str, part: Any, args: Any, output: Any) -> Any:
            first = output[0] if isinstance(output, tuple) and output else output
            if not isinstance(first, torch.Tensor) or not first.dtype.is_floating_point:
                return None
            first = environment.j2t_iso(stage_tap(stage, environment.t2j_iso(first)))
            return (first, *output[1:]) if isinstance(output, tuple) else first

        handles = [part.register_forward_hook(partial(hook, stage)) for stage, part in module.named_modules() if stage]
        try:
            with torch_environment.tracing():
                inputs = environment.j2t_iso((jnp.transpose(video, axes), weights))
                positional, named = ((), {argument: inputs[0]}) if argument else ((inputs[0],), {})
                output = torch.func.functional_call(module, inputs[1], positional, named)
                return environment.t2j_iso(logits(output))
        except DATA_DEPENDENCE_ERRORS as error:
            raise ValueError(_describe_data_dependence(error)) from error
        finally:
            for handle in handles:
                handle.remove()

    require_finite({key: value.detach().float().numpy() for key, value in module.named_parameters()})
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    network = adapt(
        run,
        {key: _to_jax(value) for key, value in tensors.items()},
        identity=_identity(module) + layout,
        clip=clip,
        classes=classes,
        name=name or type(module).__name__,
        grids=grids,
    )
    if verify:
        _verify(network, module, axes, argument, logits)
    return network


def _check_module(module: Any) -> None:
    import torch

    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"expected a torch.nn.Module, got {type(module).__name__}")
    if isinstance(module, torch.jit.ScriptModule) or any(
        isinstance(part, torch.jit.ScriptModule) for part in module.modules()
    ):
        raise ValueError("the module is compiled by TorchScript, which jax cannot run; pass the original module")
    if any(part.training for part in module.modules()):
        raise ValueError("the module is in training mode; call module.eval() first")


def _describe_data_dependence(error: Exception) -> str:
    """Return a sentence about control flow or shapes that depend on values."""
    if isinstance(error, jax.errors.NonConcreteBooleanIndexError):
        return (
            "the module's forward selects values by a boolean mask, so that shapes depend on values; use torch.where or"
            " masked_fill"
        )
    return (
        "the module's forward depends on values of its input (an if, a loop, .item() or bool()), which jax cannot"
        " compile; replace it by operations on tensors, such as torch.where"
    )


def _to_jax(value: "torch.Tensor") -> Array:
    import torch

    value = value.detach().cpu()
    if value.dtype == torch.bfloat16:  # numpy has no such type
        return jnp.asarray(value.float().numpy(), jnp.bfloat16)
    return jnp.asarray(value.numpy())


def _identity(module: "torch.nn.Module") -> str:
    """Return the hash of the sources of the user's modules, with the structure and the version of PyTorch."""
    import torch

    parts = {type(part) for part in module.modules() if not type(part).__module__.startswith("torch.")}
    return source_identity(*sorted(parts, key=str)) + repr(module) + torch.__version__


def _verify(
    network: Network,
    module: "torch.nn.Module",
    axes: tuple[int, ...],
    argument: str | None,
    logits: Callable[[Any], Any],
) -> None:
    """Raise ValueError if logits or the gradient of their weighted sum differ from those of PyTorch."""
    import torch

    rng = np.random.default_rng(0)
    video = rng.standard_normal((1, *network.clip_spec.shape), np.float32)
    parameter = next(iter(module.parameters()), None)
    inputs = torch.from_numpy(np.ascontiguousarray(video.transpose(axes)))
    inputs = inputs.to(**({} if parameter is None else {"device": parameter.device, "dtype": parameter.dtype}))
    inputs.requires_grad_()
    with torch.enable_grad():
        output = logits(module(**{argument: inputs}) if argument else module(inputs))
        weights = rng.standard_normal(tuple(output.shape), np.float32)
        (output * torch.from_numpy(weights).to(output)).sum().backward()
    inverse = np.argsort(axes)
    gradient = inputs.grad if inputs.grad is not None else torch.zeros_like(inputs)
    expected = output.detach().float().cpu().numpy(), gradient.float().cpu().numpy().transpose(inverse)
    computed = _logits_and_gradient(network.model, jnp.asarray(video), jnp.asarray(weights))
    tolerances = {"logits": LOGITS_TOLERANCE, "gradient": GRADIENT_TOLERANCE}
    if parameter is not None and parameter.dtype in (torch.float16, torch.bfloat16):
        tolerances = dict.fromkeys(tolerances, 0.1)
    for (what, tolerance), ours, theirs in zip(tolerances.items(), computed, expected):
        difference = float(np.linalg.norm(np.asarray(ours, np.float32) - theirs))
        norm = float(np.linalg.norm(theirs))
        if not difference <= tolerance * max(norm, 1e-6):
            raise ValueError(
                f"the {what} in jax and in PyTorch differ by {difference / max(norm, 1e-6):.2g} of their norm, expected"
                f" at most {tolerance:g}; an operation of the module is not supported (verify=False skips this check)"
            )


@jax.jit
def _logits_and_gradient(model: Any, video: Array, weights: Array) -> tuple[Array, Array]:
    def weighted_sum(video: Array) -> tuple[Array, Array]:
        output = model(video)
        return (output * weights.astype(output.dtype)).sum(), output

    (_, output), gradient = jax.value_and_grad(weighted_sum, has_aux=True)(video)
    return output, gradient
