"""Base class of residual networks with four lists of blocks."""

from typing import Any

from flax import nnx


class ResidualNetwork(nnx.Module):
    """Network whose blocks are in the lists `layer1` to `layer4`."""

    def blocks(self) -> dict[str, Any]:
        layers = {f"layer{i}": getattr(self, f"layer{i}") for i in range(1, 5)}
        return {f"{name}.{j}": block for name, blocks in layers.items() for j, block in enumerate(blocks)}

    def block_stages(self) -> list[str]:
        """Return the stages within each block, followed by the block itself."""
        return [
            stage
            for name, block in self.blocks().items()
            for stage in (*(f"{name}.{part}" for part in block.stages), name)
        ]
