"""Clips out of video files, one by one (`read_clip`) or all of a source (`open_source`, `stream`)."""

from vtcav_jax.data.clip import Clip, How, read_clip
from vtcav_jax.data.decode import VideoError, VideoIndex, decoded, probe
from vtcav_jax.data.decoded_dataset import prepare
from vtcav_jax.data.failure_report import failure_table, write_failures
from vtcav_jax.data.frame_sampling import Chosen, choose
from vtcav_jax.data.loader import Read, stream
from vtcav_jax.data.open import Item, Source, open_source
from vtcav_jax.data.resize import Views

__all__ = [
    "Chosen",
    "Clip",
    "How",
    "Item",
    "Read",
    "Source",
    "VideoError",
    "VideoIndex",
    "Views",
    "choose",
    "decoded",
    "failure_table",
    "open_source",
    "prepare",
    "probe",
    "read_clip",
    "stream",
    "write_failures",
]
