"""From videos to concept sets: boxes, tracks, static and dynamic clips, controls, negatives, and their review."""

from vtcav_jax.concepts.boxes import Box, read_boxes, write_boxes
from vtcav_jax.concepts.concept_sets import ConceptClip, ConceptSets, letterboxed, pictures, read_sets, refuse_leaks
from vtcav_jax.concepts.config import Concept, Mining, concept, concepts
from vtcav_jax.concepts.crops import CONTROLS, KINDS
from vtcav_jax.concepts.labelled_clips import whole_clips
from vtcav_jax.concepts.mining import Report, mine
from vtcav_jax.concepts.review.page import review_sets

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
