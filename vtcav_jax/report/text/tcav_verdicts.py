"""Texts of the verdicts of Video-TCAV tests."""

from vtcav_jax.tcav.experiment.verdicts import CONTRADICTED

FROZEN_TEXT = "Frozen copies also lose every other moment, so they alone are no evidence of motion"
VERDICT_TEXTS = {
    "supports": "the concept raises the class score; significant after correction",
    "opposes": "the concept lowers the class score; significant after correction",
    "motion_supports": "the difference between dynamic clips and their control clips raises the class score more than"
    f" the same difference of random clips; significant after correction. {FROZEN_TEXT}",
    "motion_opposes": "the difference between dynamic clips and their control clips lowers the class score more than"
    f" the same difference of random clips; significant after correction. {FROZEN_TEXT}",
    "not significant": "the effect is within the range of permuted labels after correction; this does not prove that"
    " there is no effect",
    "not encoded": "a classifier cannot separate the concept clips from the negatives at this stage, so the concept"
    " vector is noise and its effect means nothing, whatever its p-value",
    "too few videos": "the concept clips, the negatives or the target clips come from fewer than five source videos, so"
    " that no conclusion about other videos is possible",
    "differs from control": "dynamic clips and their own control clips have different effects; almost any network"
    " reacts to frozen or shuffled clips, so this alone says nothing about the concept",
    CONTRADICTED: "the test is significant, but when activations are moved by the whole step, the class score changes"
    " in the other direction than the derivative predicts",
    "sign uncertain": "the effect is significant for these clips, but the 95 % CI over source videos contains 0",
    "underpowered": "there are too few clips or permutations for any result to pass the correction",
    "no derivative": "the derivative is within rounding error of 0 at every clip",
    "no gradient": "the class score does not depend on this stage at any clip",
    "no vector": "no concept vector could be trained: concept clips and negatives are identical at this stage",
}
INCONCLUSIVE_REASONS = {
    "too few videos": "there are fewer than five source videos",
    "not encoded": "the clips cannot be separated from the negatives",
    "underpowered": "there are too few clips or permutations to pass the correction",
    "no derivative": "all derivatives are within rounding error of 0",
    "no gradient": "the score does not depend on the stage",
    "no vector": "no concept vector could be trained",
    CONTRADICTED: "moving the activations by the whole step changes the score in the other direction",
}
UNCERTAIN = "sign uncertain"
ORDER_CONTROLS = ("shuffled", "reversed")  # they have the same frames, so that only motion differs
INCONCLUSIVE_VERDICTS = tuple(INCONCLUSIVE_REASONS)
