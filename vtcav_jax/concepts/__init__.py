"""Mining of concept sets from videos: boxes, tracks, static and dynamic clips, controls, negatives, and review."""

from vtcav_jax.concepts.boxes import Box, read_boxes, write_boxes
from vtcav_jax.concepts.concept_sets import ConceptSets, forbid_leaks, letterboxed, load_frames, read_concepts
from vtcav_jax.concepts.concept_table import ConceptClip
from vtcav_jax.concepts.config import Concept, MiningConfig, parse_concept, parse_concepts
from vtcav_jax.concepts.crops import CLIP_TYPES, CONTROLS
from vtcav_jax.concepts.labelled_clips import mine_labelled_clips
from vtcav_jax.concepts.mining import MiningReport, mine, share_scans
from vtcav_jax.concepts.near_duplicates import near_duplicate_groups
from vtcav_jax.concepts.review.page import review_sets
from vtcav_jax.concepts.source_videos import clips_of_target_recordings, source_video_ids

__all__ = [
    "CLIP_TYPES",
    "CONTROLS",
    "Box",
    "Concept",
    "ConceptClip",
    "ConceptSets",
    "MiningConfig",
    "MiningReport",
    "clips_of_target_recordings",
    "forbid_leaks",
    "letterboxed",
    "load_frames",
    "mine",
    "mine_labelled_clips",
    "near_duplicate_groups",
    "parse_concept",
    "parse_concepts",
    "read_boxes",
    "read_concepts",
    "review_sets",
    "share_scans",
    "source_video_ids",
    "write_boxes",
]
