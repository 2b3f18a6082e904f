"""Sources made of the official annotation files of public data sets and the folder of their videos."""

from vtcav_jax.data.annotations.datasets import ANNOTATION_KINDS, open_annotations

__all__ = ["ANNOTATION_KINDS", "open_annotations"]
