# %% [markdown]
# # From your own videos to a page
#
# Three commands read videos and write into one run folder; the last step is a page that opens offline. Replace
# `videos` by a folder of your videos, or by a manifest with their labels, and `worlds_swin` by your network.
#
# To run without downloads, this notebook first writes some synthetic clips as MP4 files, with a manifest.

# %%
import os
import tempfile
from pathlib import Path

import vtcav_jax as vtcav
from vtcav_jax.data.world_export import write_clips

os.chdir(tempfile.mkdtemp())
paths = write_clips(vtcav.worlds.make_clips("small", n=12, seed=21), "videos")
print(Path("videos/manifest.csv").read_text()[:300])

# %% [markdown]
# One damaged file does not end a run. Here is one, to see what happens:

# %%
size = paths[0].write_bytes(paths[0].read_bytes()[:200])

# %% [markdown]
# ## Where and when does the network look?

# %%
# !vtcav attribute --model=worlds_swin --videos=videos/manifest.csv --targets=direction --methods=attn_lrp --run=mine

# %% [markdown]
# ## Does it need motion?
#
# The same run folder takes further tasks; its page then has a part for each.

# %%
# !vtcav motion --model=worlds_swin --videos=videos/manifest.csv --targets=direction,shape --run=mine

# %% [markdown]
# ## The results in Python
#
# The folder has everything: tables, arrays, animations, and the request with all versions. Repeating a command
# continues it or reuses its results.

# %%
run = vtcav.open_run_folder("runs/mine")
run

# %%
columns = ["target", "answer", "n_videos", "drop_shuffled", "drop_shuffled_low", "drop_shuffled_high"]
run.to_dataframe("motion_classes")[columns]

# %% [markdown]
# Eleven videos are few: compare the intervals of `direction` and `shape` over all clips, and conclude nothing about
# single classes.
#
# The damaged file is reported, with the reason:

# %%
run.to_dataframe("motion_failures")

# %% [markdown]
# ## The page
#
# The commands wrote it already; `write_report` does it again, for example after an update. Open the file in a
# browser: it is one file without scripts, and can be sent to others.

# %%
page = vtcav.write_report("runs/mine")
print(page, f"{page.stat().st_size / 1e6:.1f} MB")
