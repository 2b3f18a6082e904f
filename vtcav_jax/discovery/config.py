"""Settings of concept discovery."""

from dataclasses import dataclass

from vtcav_jax.settings import BATCH_HELP, MAX_BATCH_SIZE, MAX_SEED, SEED_HELP, check_settings, setting

DECOMPOSITIONS = ("nmf", "convex_nmf", "topk_sae", "kmeans")


@dataclass(frozen=True)
class DiscoveryConfig:
    """Settings of `discover`.

    Half of the source videos fit the directions, the other half show the concepts: their clips are cut out.
    """

    discovery: str = setting(
        "nmf",
        "decomposition of the activations: nmf (non-negative sparse codes), convex_nmf (directions that are mixtures"
        " of activations), topk_sae (sparse autoencoder whose codes agree between neighbouring frames), kmeans",
        choices=DECOMPOSITIONS,
    )
    num_concepts: int | None = setting(
        None,
        "concepts per stage [default: as few of 8, 16, 24 and 32 as explain 95 % of what 32 explain, in videos to which"
        " they were not fitted]",
        minimum=1,
        maximum=10**4,
    )
    motion_only: bool = setting(
        False, "decompose the difference to the clip with its middle frame frozen, which contains nothing static"
    )
    clips_per_concept: int = setting(20, "clips in which a concept is strongest, at most one per video", minimum=2)
    importance_videos: int = setting(16, "videos in which the importance of concepts is measured", minimum=2)
    max_tokens: int = setting(
        20_000, "activations (one place and time of a clip each) per stage to decompose", minimum=64, maximum=10**7
    )
    num_random_sets: int = setting(10, "disjoint random sets", minimum=0, maximum=10**4)
    batch_size: int = setting(8, BATCH_HELP, minimum=1, maximum=MAX_BATCH_SIZE)
    seed: int = setting(0, SEED_HELP, minimum=0, maximum=MAX_SEED)

    def __post_init__(self):
        check_settings(self)
