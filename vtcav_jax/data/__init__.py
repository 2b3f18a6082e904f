"""Reading of clips from videos: a single one (`read_clip`) or all clips of a source (`open_source`, `stream`)."""

from vtcav_jax.data.clip import Clip, SamplingConfig, read_clip
from vtcav_jax.data.decode import VideoError, VideoIndex, decode_frames, probe
from vtcav_jax.data.decoded_dataset import prepare_dataset
from vtcav_jax.data.failure_report import failure_table, write_failures
from vtcav_jax.data.frame_sampling import FrameSelection, select_frames
from vtcav_jax.data.loader import ReadResult, stream
from vtcav_jax.data.open import open_source
from vtcav_jax.data.resize import Views
from vtcav_jax.data.source import Source, SourceItem

__all__ = [
    "Clip",
    "FrameSelection",
    "ReadResult",
    "SamplingConfig",
    "Source",
    "SourceItem",
    "VideoError",
    "VideoIndex",
    "Views",
    "decode_frames",
    "failure_table",
    "open_source",
    "prepare_dataset",
    "probe",
    "read_clip",
    "select_frames",
    "stream",
    "write_failures",
]
