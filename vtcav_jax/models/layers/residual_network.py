"""What the residual networks have in common: four lists of blocks, and the stages within them."""

from typing import Any

from flax import nnx


class ResidualNetwork(nnx.Module):
    """A network whose blocks are in the lists `layer1` to `layer4`."""

    def blocks(self) -> dict[str, Any]:
        layers = {f"layer{i}": getattr(self, f"layer{i}") for i in range(1, 5)}
        return {f"{name}.{j}": block for name, blocks in layers.items() for j, block in enumerate(blocks)}

    def block_stages(self) -> list[str]:
        """Of each block its own stages, then the block."""
        return [
            stage
            for name, block in self.blocks().items()
            for stage in (*(f"{name}.{part}" for part in block.stages), name)
        ]
