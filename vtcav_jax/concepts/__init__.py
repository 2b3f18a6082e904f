"""From videos to concept sets: boxes, tracks, static and dynamic clips, controls, negatives, and their review."""

from vtcav_jax.concepts.boxes import Box, read_boxes, write_boxes
from vtcav_jax.concepts.crops import CONTROLS, KINDS
from vtcav_jax.concepts.mining import Report, mine
from vtcav_jax.concepts.review import review_sets
from vtcav_jax.concepts.sets import ConceptClip, ConceptSets, letterboxed, pictures, read_sets, refuse_leaks
from vtcav_jax.concepts.settings import Concept, Mining, concept, concepts
from vtcav_jax.concepts.whole import whole_clips

__all__ = [
    "CONTROLS",
    "KINDS",
    "Box",
    "Concept",
    "ConceptClip",
    "ConceptSets",
    "Mining",
    "Report",
    "concept",
    "concepts",
    "letterboxed",
    "mine",
    "pictures",
    "read_boxes",
    "read_sets",
    "refuse_leaks",
    "review_sets",
    "whole_clips",
    "write_boxes",
]
