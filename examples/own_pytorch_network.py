# %% [markdown]
# # Your own PyTorch network
#
# `from_torch` turns a PyTorch module into a `Network`: its weights and its forward become a JAX function, so that
# every method works. Needs `pip install 'vtcav-jax[torch]'`.
#
# The network here has **random weights**, so that nothing is downloaded. Its explanations are computed correctly and
# mean nothing about videos: read this notebook for the calls, not for the pictures.

# %%
import torch
from torch import nn

import vtcav_jax as vtcav


def random_cnn(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv3d(3, 8, 3, stride=(1, 2, 2), padding=1),
        nn.ReLU(),
        nn.Conv3d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    ).eval()


module = random_cnn(seed=0)

# %% [markdown]
# `clip` says which clips the module reads, `classes` what its outputs are. By default the module takes videos `(b, c,
# t, h, w)`; `layout` says otherwise.

# %%
clip = vtcav.ClipSpec(frames=8, size=32)
network = vtcav.from_torch(module, clip=clip, classes=("up", "down", "left", "right"), name="torch_cnn")
vtcav.tap.stages_of(network.model)

# %% [markdown]
# `from_torch` has already compared logits and one gradient with PyTorch for a random clip, and would have refused the
# module if they differed. Here is the comparison for other clips:

# %%
import numpy as np

clips = vtcav.worlds.make_clips("small", n=2, seed=0)
video = np.asarray(clip.normalise(clips.frames))
ours = np.asarray(vtcav.tap.compute_logits(network.model, video))
with torch.no_grad():
    theirs = module(torch.from_numpy(np.moveaxis(video, -1, 1).copy())).numpy()
print(f"largest difference {np.abs(ours - theirs).max():.1e}, largest logit {np.abs(theirs).max():.1e}")

# %% [markdown]
# Maps at the pixels, and at a layer by its PyTorch name:

# %%
maps = vtcav.attribute(network, clips.frames, target="left", method="lrp_epsilon")
maps

# %%
cams = vtcav.attribute(network, clips.frames, target="left", method="gradcam", stage="2")
cams.plot()

# %% [markdown]
# The colour scale ends at the largest values of each clip, however small they are, so that even random weights give
# pictures that look like explanations. That is why a picture alone proves nothing. A sanity check: does the map
# depend on the weights at all? Here is its rank correlation with that of the same module with other random weights.

# %%
from scipy.stats import spearmanr

other = vtcav.from_torch(random_cnn(seed=1), clip=clip, classes=("up", "down", "left", "right"), name="other_weights")
other_maps = vtcav.attribute(other, clips.frames, target="left", method="lrp_epsilon")
for i in range(2):
    print(f"clip {i}: {spearmanr(np.abs(maps.map[i]).ravel(), np.abs(other_maps.map[i]).ravel()).statistic:.2f}")

# %% [markdown]
# Values well above 0 mean that a part of every map comes from the clip and the architecture, and not from what was
# learned. `vtcav attribute --sanity_clips` makes such checks for your own network and clips.
#
# ## Larger modules
#
# torchvision and transformers models work in the same way; the page *Your own network* of the documentation shows
# them, and says how to name the tokens of transformers.
