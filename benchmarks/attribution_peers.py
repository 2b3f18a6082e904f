"""The small 3D CNN of this package in torch, and calls of other attribution libraries as in their documentation."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from vtcav_jax.models.small_cnn import SmallCnn
from weights_conversion import torch_reference


class Peers:
    """The same network and clips in torch; each method returns a function that computes a map in our axis order."""

    def __init__(self, model: SmallCnn, video: np.ndarray, classes: np.ndarray):
        import torch

        self.torch, self.classes = torch, torch.tensor(classes)
        layers: list[Any] = []
        sizes = video.shape[1:4]
        for conv in model.convs:
            kernel, strides = np.asarray(conv.kernel[...]).transpose(4, 3, 0, 1, 2), tuple(conv.strides)  # type: ignore (nnx allows an int)
            pads = []  # "SAME" pads the odd element at the end; torch lists the last axis first
            for n, k, s in reversed(list(zip(sizes, kernel.shape[2:], strides))):
                missing = max((-(-n // s) - 1) * s + k - n, 0)
                pads += [missing // 2, missing - missing // 2]
            sizes = tuple(-(-n // s) for n, s in zip(sizes, strides))
            layer = torch.nn.Conv3d(kernel.shape[1], len(kernel), kernel.shape[2:], stride=strides)
            with torch.no_grad():
                layer.weight.copy_(torch.tensor(kernel))
                layer.bias.copy_(torch.tensor(np.asarray(conv.bias[...])))  # type: ignore (these layers have a bias)
            layers += [torch.nn.ConstantPad3d(tuple(pads), 0.0), layer, torch.nn.ReLU()]
        inputs, outputs = model.head.kernel[...].shape
        head = torch.nn.Linear(inputs, outputs)
        with torch.no_grad():
            head.weight.copy_(torch.tensor(np.asarray(model.head.kernel[...]).T))
            head.bias.copy_(torch.tensor(np.asarray(model.head.bias[...])))  # type: ignore (these layers have a bias)
        layers += [torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten(), head]
        self.network, self.outputs = torch.nn.Sequential(*layers).eval(), head.out_features
        self.last = layers[-4]
        self.video = torch.tensor(video).permute(0, 4, 1, 2, 3)

    def logits(self) -> np.ndarray:
        with self.torch.no_grad():
            return self.network(self.video).numpy()

    def captum_integrated_gradients(self, nodes: int) -> Callable[[], np.ndarray]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from captum.attr import IntegratedGradients
        method = IntegratedGradients(self.network)
        return lambda: self._sum_channels(method.attribute(self.video, target=self.classes, n_steps=nodes))

    def grad_cam(self, name: str) -> Callable[[], np.ndarray]:
        """Return a call of pytorch-grad-cam's `GradCAM` or `HiResCAM`, without its scaling and upsampling."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch_reference.video_models()
            import pytorch_grad_cam
        method = getattr(pytorch_grad_cam, name)(self.network, [self.last])
        rows = self.torch.arange(len(self.classes))

        def call() -> np.ndarray:
            hooks = method.activations_and_grads
            logits = hooks(self.video)
            self.network.zero_grad()
            logits[rows, self.classes].sum().backward()
            activations, gradients = hooks.activations[0].numpy(), hooks.gradients[0].numpy()
            return method.get_cam_image(self.video, self.last, None, activations, gradients, False)

        return call

    def zennit_lrp(self, epsilon: float | None) -> Callable[[], np.ndarray]:
        """Return a call of zennit with the epsilon rule in every layer, or z-plus if `epsilon` is None."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch_reference.video_models()
            from zennit import rules, types
            from zennit.attribution import Gradient
            from zennit.composites import LayerMapComposite
        z_plus = rules.ZPlus(stabilizer=1e-9, zero_params="bias")
        linear_rule = z_plus if epsilon is None else rules.Epsilon(epsilon=epsilon)
        composite = LayerMapComposite(
            layer_map=[
                (types.Activation, rules.Pass()),
                (types.AvgPool, rules.Norm(1e-9)),
                (types.Convolution, linear_rule),
                (types.Linear, linear_rule),
            ]
        )
        one_hot = self.torch.nn.functional.one_hot(self.classes, self.outputs)

        def call() -> np.ndarray:
            with Gradient(self.network, composite) as method:
                output_and_relevance = method(self.video.clone().requires_grad_(), lambda logits: logits * one_hot)
                assert output_and_relevance is not None
                return self._sum_channels(output_and_relevance[1])

        return call

    def _sum_channels(self, values: Any) -> np.ndarray:
        return values.detach().sum(1).numpy()
