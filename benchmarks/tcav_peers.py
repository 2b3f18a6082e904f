"""Concept vectors and concept tests with scikit-learn and captum, called as in their documentation."""

import tempfile
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np


def sklearn_vector(x: np.ndarray, label: np.ndarray, l2: float) -> np.ndarray:
    """Minimise the mean log-loss plus l2/2 |w|^2; scikit-learn's C weights the sum over examples instead."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / (l2 * len(x)), tol=1e-7, max_iter=1000)
    return model.fit(x.astype(np.float64), label).coef_[0]


def captum_vector(x: np.ndarray, label: np.ndarray, l2: float) -> np.ndarray:
    del l2  # captum's classifier has its own regularisation
    import torch
    from captum.concept._utils.classifier import DefaultClassifier
    from torch.utils.data import DataLoader, TensorDataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier = DefaultClassifier()
        classifier.train_and_eval(DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(label)), 64))
    return classifier.weights()[1].numpy()


class Captum:
    """captum's TCAV on the same clips, with its own classifier or with fixed vectors."""

    names: ClassVar[dict[str, str]] = {f"layers.{i}": f"features.{2 * i}" for i in range(4)}

    def __init__(self, network: Any, clips: Any, targets: Any, clip_indices: np.ndarray, stages: Sequence[str]):
        self.network, self.clips, self.targets, self.clip_indices, self.n_forwards = (
            network,
            clips,
            targets,
            clip_indices,
            0,
        )
        self.layers = {stage: self.names[stage] for stage in stages}
        network.register_forward_pre_hook(self._count)

    def _count(self, module: Any, inputs: tuple[Any, ...]) -> None:
        self.n_forwards += len(inputs[0])

    def run(self, target: int, fixed: dict[str, np.ndarray] | None = None) -> Any:
        from captum.concept import TCAV, Concept
        from torch.utils.data import DataLoader

        sets = [
            Concept(i, f"set_{i}", DataLoader(self.clips[rows].permute(0, 4, 1, 2, 3), batch_size=len(rows)))
            for i, rows in enumerate(self.clip_indices)
        ]
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layers = list(self.layers.values())
            tcav = TCAV(self.network, layers, save_path=folder, classifier=_fixed_classifier(fixed) if fixed else None)
            pairs = [[sets[0], other] for other in sets[1:]]
            return tcav.interpret(self.targets.permute(0, 4, 1, 2, 3), pairs, target=target)


def _fixed_classifier(fixed: dict[str, np.ndarray]) -> Any:
    """Return a classifier class that is not trained: it looks up the vector by the labels of its data."""
    import torch
    from captum.concept import Classifier

    by_size = {vectors.shape[1]: vectors for vectors in fixed.values()}

    class FixedClassifier(Classifier):
        def __init__(self) -> None:
            pass

        def train_and_eval(self, dataloader: Any, **_: Any) -> dict:
            seen = [(inputs.shape[1], label) for inputs, label in dataloader]
            self.ids = sorted({int(i) for _, label in seen for i in label})
            self.vector = torch.from_numpy(np.asarray(by_size[seen[0][0]][self.ids[1] - 1], np.float32))
            return {"accs": torch.tensor(1.0)}

        def weights(self) -> Any:
            return torch.stack([self.vector, -self.vector])

        def classes(self) -> list[int]:
            return self.ids

    return FixedClassifier()
