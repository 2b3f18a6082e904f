# %% [markdown]
# # A tour in five minutes
#
# Four questions to a trained video network: where and when does it look, does it need motion, which channels does it
# depend on, and which concepts does it use? Everything runs on two CPU cores, without downloads.
#
# `worlds_swin` is a small Video Swin network that ships with the package. Its clips are synthetic, so the right
# answers are known: a *key glyph* (green) and a *distractor* (white) move independently. The head `direction` says
# where the key glyph moves, the head `shape` says what it is.

# %%
import vtcav_jax as vtcav

network = vtcav.load("worlds_swin")
clips = vtcav.worlds.make_clips("small", n=4, seed=46)
clips.frames.shape, network.heads

# %% [markdown]
# ## Where and when does it look?
#
# A result displays itself: here the first clip, the map over it, and below both the share of each time step. The
# target `direction` is the class that the network predicts in this head.

# %%
maps = vtcav.attribute(network, clips.frames, target="direction", method="attn_lrp")
maps

# %% [markdown]
# Red raises the score of the predicted class, blue lowers it. The same maps as a matplotlib figure, one row per clip:

# %%
maps.plot()

# %% [markdown]
# The clips are synthetic, so the map can be checked: which share of it lies on the key glyph, and which share of the
# pixels does the glyph cover?

# %%
import numpy as np

relevance = np.abs(maps.map)
on_glyph = (relevance * clips.masks["key"]).sum((1, 2, 3)) / relevance.sum((1, 2, 3))
table = maps.to_dataframe()[["clip_index", "map_sum", "completeness_gap", "peak_step"]]
table.assign(on_key_glyph=on_glyph, covered_by_key_glyph=clips.masks["key"].mean((1, 2, 3))).round(3)

# %% [markdown]
# A high share says that these maps are about the right object in these clips. It does not say that the map is right
# in other networks; the notebook *Which method to trust* compares methods.
#
# ## Does it need motion?
#
# The class margin of each clip is compared with those of its frozen, shuffled and reversed copies.

# %%
motion = vtcav.measure_motion(network, "worlds:small:16:7", ["direction", "shape"])
motion

# %% [markdown]
# Shuffling the frames removes most of the margin of `direction` and next to nothing of `shape`, as it should. The
# intervals of single classes are wide, because each class has only a few clips here: the sentences say where there
# are too few for a conclusion.
#
# ## Which channels does it depend on?
#
# A class feature pyramid follows the score back to channels, level by level. Activations are relative to those of
# clips of other directions.

# %%
more = vtcav.worlds.make_clips("small", n=32, seed=8)
left = more.labels["direction"] == more.world.heads["direction"].index("left")
pyramid = vtcav.build_pyramid(network, more.frames[left], "direction:left", reference=more.frames[~left], depth=2)
pyramid

# %% [markdown]
# Filled marks have an interval above 0. A large share is no proof that a channel matters: `vtcav pyramid` removes the
# channels on other clips and compares the fall of the score with that of random channels.
#
# ## Which concepts does it use?
#
# A concept is a set of example clips. Here the sets are drawn by label from other clips: in `left` the key glyph
# moves left, in `ring` it is a ring. Each dynamic clip has matched controls, such as a frozen copy. Random sets of
# clips say which effects arise by chance.

# %%
import os
import tempfile

from vtcav_jax.concepts import MiningConfig, mine_labelled_clips, parse_concepts
from vtcav_jax.tcav import ExperimentConfig

os.chdir(tempfile.mkdtemp())  # for the concepts and the run
source = vtcav.open_source("worlds:small:420:3")
concepts = parse_concepts(["left=@direction:left", "ring=@shape:ring"])
mining = MiningConfig(concepts, max_clips=16, num_random_sets=6, min_pixels=1)
print(mine_labelled_clips(source, mining, network.clip_spec, "concepts").text)

# %%
config = ExperimentConfig(stages=("layers.1",), comparisons=("absolute", "motion"), max_target_clips=24)
results = vtcav.run_tcav(network, ["direction:left"], "worlds:small:120:5", "concepts", config, "runs/left")
results

# %% [markdown]
# Each sentence is a test that is significant after correction for all tests of the run. Tests that are not listed are
# not evidence of absence: their verdict in the table says whether they were inconclusive.
#
# The results are also tables and files:

# %%
scores = results.to_dataframe()
results.save("scores.csv")
results.save("effects.png")
scores[["concept", "clip_type", "negatives", "step_effect", "p_adjusted", "verdict"]]
