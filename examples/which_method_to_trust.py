# %% [markdown]
# # Which method to trust
#
# Two attribution methods often disagree about the same clip. Which one is right? With videos of the world nobody
# knows. On synthetic clips the cause is known, and a method can be scored against it.
#
# This notebook scores a few methods on few clips. `vtcav evaluate_methods` scores all of them on several networks;
# its results are on the page *Evaluation of methods* of the documentation.

# %%
import vtcav_jax as vtcav

network = vtcav.load("worlds_swin")
clips = vtcav.worlds.make_clips("small", n=1, seed=46)
lrp, gradcam = (vtcav.attribute(network, clips.frames, "direction", name) for name in ("attn_lrp", "gradcam"))
lrp

# %%
gradcam

# %% [markdown]
# ## Scores with intervals
#
# The question: where and when is the evidence for the direction of the key glyph? The score is 0 for chance and 1 for
# a perfect map. A mean over several measures (`TRUTH`), it has a 95 % interval over the clips. The maps that use no
# network (`random`, `sobel`, `frame_difference`, ...) and those made from the known cause (`oracle`, `exact_box`) are
# the floor and the ceiling.

# %%
scores = vtcav.compare_methods(network, ["attn_lrp", "gradient_x_input", "gradcam", "occlusion"], ["W2"], n_clips=24)
scores

# %%
table = scores.to_dataframe()
truth = table[table.metric == "TRUTH"].sort_values("value", ascending=False)
truth[["method", "stage", "value", "low", "high", "forward_passes"]].round(2)

# %% [markdown]
# ## How to read it
#
# - Compare intervals, not ranks: methods whose intervals overlap widely are not told apart by 24 clips. The methods
#   are scored on the same clips, so a difference can be more certain than the two intervals suggest.
# - A method that is not clearly above `frame_difference` or `sobel` says no more than a filter that never saw the
#   network.
# - CAMs have one score per stage. Picking the best of several stages favours them; the rows `CHOSEN` of `vtcav
#   evaluate_methods` correct for it.
# - The score is that of this network and these clips. A small network on clips of 32 x 32 pixels is not your network:
#   the ranking is a reason to prefer a method, and no proof that its maps are right elsewhere. For your own network,
#   use the metrics without known causes (`vtcav attribute --faithfulness_clips`) and the sanity checks.

# %%
scores.plot()
