"""Command of the task review_concepts: write the page on which a user accepts or rejects concept clips."""

from dataclasses import dataclass

from vtcav_jax import concepts
from vtcav_jax.cli.tasks import CommandContext
from vtcav_jax.console import emit, info
from vtcav_jax.settings import concerning, required


@dataclass(frozen=True, kw_only=True)
class ReviewConceptsArguments:
    concept_dir: str = required("DIR", "folder of concept sets")


def review_concepts(args: ReviewConceptsArguments, context: CommandContext) -> None:
    """Write the review page of an existing concept folder."""
    with concerning("concept_dir"):
        path, failures = concepts.review_sets(args.concept_dir)
    emit(f"Review the concept clips and reject wrong ones: {path}")
    for name, reason in failures.items():
        info(f"not on the page: {name}: {reason}")
