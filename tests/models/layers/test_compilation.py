"""Programs that XLA's CPU compiler once refused; it depends on their shapes, and on the code that users run."""

import numpy as np
import pytest

from vtcav_jax import models
from vtcav_jax.runtime import Runtime
from vtcav_jax.tcav.features.encode import EncodeConfig, stream_gradients
from vtcav_jax.tcav.features.microbatches import in_memory


@pytest.mark.slow
@pytest.mark.parametrize("clips", [1, 3])
def test_gradients_of_many_classes_below_a_convolution_with_strides(clips):
    """A table of the places of a kernel was read within a fusion: "Failed to translate module to LLVM IR"."""
    network = models.load("worlds_cnn")
    batches = in_memory(np.zeros((clips, *network.clip_spec.shape), np.float32))
    table = np.tile(np.arange(8), (clips, 1))
    parts = list(stream_gradients(network.model, batches, table, ["convs.0"], EncodeConfig(), Runtime.local()))
    assert parts[0][2]["convs.0"].shape[:2] == (8, clips)
