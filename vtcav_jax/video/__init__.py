"""Clips out of video files, one by one (`read_clip`) or all of a source (`open_source`, `stream`)."""

from vtcav_jax.video.clip import Clip, How, read_clip
from vtcav_jax.video.decode import VideoError, VideoIndex, decoded, probe
from vtcav_jax.video.failures import failure_table, write_failures
from vtcav_jax.video.frames import Chosen, choose
from vtcav_jax.video.prepared import prepare
from vtcav_jax.video.reading import Read, stream
from vtcav_jax.video.resize import Views
from vtcav_jax.video.sources import Item, Source, open_source

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
