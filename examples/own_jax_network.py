# %% [markdown]
# # Your own JAX network
#
# Any flax `nnx` or `linen` module, or a function, can be explained. This notebook trains a small `nnx` network for
# some seconds, wraps it as a `Network`, and asks whether its accuracy comes from the right place.
#
# The network sees pairs of consecutive frames, cut into patches of 8 x 8 pixels.

# %%
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import vtcav_jax as vtcav


class PairNet(nnx.Module):
    def __init__(self, rngs):
        self.pairs = nnx.Linear(2 * 8 * 8 * 3, 64, rngs=rngs)
        self.mix = nnx.Linear(64, 64, rngs=rngs)
        self.head = nnx.Linear(64, 4, rngs=rngs)

    def __call__(self, video):
        b, t, h, w, c = video.shape
        x = video.reshape(b, t, h // 8, 8, w // 8, 8, c).swapaxes(3, 4).reshape(b, t, h // 8, w // 8, 64 * c)
        x = nnx.relu(self.pairs(jnp.concatenate([x[:, :-1], x[:, 1:]], -1)))
        x = nnx.relu(self.mix(x))
        return self.head(x.mean((1, 2, 3)))


# %% [markdown]
# Training is plain optax, on synthetic clips. The label is the direction in which the green key glyph moves.

# %%
clip = vtcav.ClipSpec(frames=8, size=32)
train = vtcav.worlds.make_clips("small", n=1024, seed=1)
classes = train.world.heads["direction"]
model = PairNet(nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adamw(3e-3, weight_decay=1e-2), wrt=nnx.Param)


@nnx.jit
def step(model, optimizer, video, labels):
    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(video), labels).mean()

    value, gradients = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradients)
    return value


random = np.random.default_rng(0)
for _ in range(200):
    rows = random.integers(0, len(train), 64)
    loss = step(model, optimizer, clip.normalise(train.frames[rows]), train.labels["direction"][rows])
print(f"loss after 200 steps: {float(loss):.3f}")

# %% [markdown]
# One call makes it a `Network`. Its submodules are the stages (layers) that can be explained.

# %%
network = vtcav.from_nnx(model, clip=clip, classes=classes, name="pair_net")
vtcav.tap.stages_of(network.model)

# %% [markdown]
# Its predictions on clips that it was not trained on, and the accuracy with its interval:

# %%
from vtcav_jax.stats.intervals import wilson_ci

test = vtcav.worlds.make_clips("small", n=200, seed=2)
predicted = np.asarray(vtcav.tap.compute_logits(network.model, clip.normalise(test.frames))).argmax(-1)
correct = int((predicted == test.labels["direction"]).sum())
low, high = wilson_ci(correct, len(test))
print(f"accuracy {correct / len(test):.1%} (95 % CI {low:.1%} to {high:.1%})")

# %% [markdown]
# ## Is it right for the right reason?
#
# Accuracy does not say what the network looks at. A map of the predicted class (`label` is the head of a network with
# one list of classes) at the pixels:

# %%
maps = vtcav.attribute(network, test.frames[:4], target="label", method="attn_lrp")
maps

# %%
relevance = np.abs(maps.map)
for name, glyph in (("key", "key glyph"), ("dis", "distractor")):
    share = (relevance * test.masks[name][:4]).sum((1, 2, 3)) / relevance.sum((1, 2, 3))
    area = test.masks[name][:4].mean((1, 2, 3))
    print(f"{glyph}: {share.mean():.0%} of the map on {area.mean():.0%} of the pixels")

# %% [markdown]
# And does it need motion? The loss of score in shuffled, frozen and reversed clips:

# %%
motion = vtcav.measure_motion(network, "worlds:small:32:7")
motion

# %% [markdown]
# Read the intervals before the numbers: with 32 clips, single classes are uncertain. Four maps are an illustration; a
# claim about the network needs many clips, as `vtcav attribute` makes them.
#
# ## On the command line
#
# Put a function that returns the `Network` into a file `my_networks.py`; every command then takes
# `--model=my_networks:FUNCTION`. The page *Your own network* of the documentation has an example of each kind of
# model.
