# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors

# %% [markdown]
# # Edges agree, whatever the contrast
#
# The NGF loss on a pair of images, from the loss map to a registration. It takes half a minute on a
# CPU, in the environment that `make demo` has made. Set `T1` and `T2` to two NIfTI files of one
# subject to see your own images; without files it takes a brain phantom.

# %%
import functools
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from tqdm import tqdm

# For `examples`, from its own folder too.
sys.path += [str(path) for path in (Path.cwd(), Path.cwd().parent) if (path / "examples").exists()]

import nec_ext
from examples.common.affine import affine_error
from examples.common.eager import eager_ngf_loss
from examples.common.measure import loss_and_gradient, median_times, peak_memory
from examples.demo import phantom_pair, read_pair

T1 = T2 = None  # Path("t1n.nii.gz"), Path("t2w.nii.gz")

pair = read_pair(T1, T2) if T1 else phantom_pair((80, 96, 80))
t1, t2, spacing = pair.t1, pair.t2, pair.spacing  # (1, 1, X, Y, Z) in [-1, 1]; mm
middle = t1.shape[-1] // 2


def show(panels, **options):
    """Show the middle slice of some volumes side by side."""
    figure, axes = plt.subplots(1, len(panels), figsize=(2.2 * len(panels), 2.9), dpi=70)
    for ax, (title, volume) in zip(axes, panels.items(), strict=True):
        image = volume.detach().numpy()[0, 0, ::-1, ::-1, middle].T
        ax.imshow(image, "gray", **options)
        ax.set(title=title, xticks=[], yticks=[])
    figure.tight_layout()
    plt.show()


show({"T1": t1, "T2": t2})

# %% [markdown]
# ## The loss map
#
# `reduction="none"` gives the loss of each voxel: dark where both images have an edge in the same
# direction or in the opposite one. The contrast does not matter, so T1 and T2 of one head agree
# nearly everywhere where they have an edge. The maps show losses from 0.8 (black) to 1 (white). In
# the right map the T2 is shifted by three voxels: few edges agree any more.

# %%
options = {"eps": 0.15, "spacing": spacing}
aligned = nec_ext.ngf_loss(t2, t1, **options, reduction="none")
apart = nec_ext.ngf_loss(t2.roll(3, dims=2), t1, **options, reduction="none")
titles = f"aligned: {aligned.mean():.4f}", f"apart: {apart.mean():.4f}"
show(dict(zip(titles, (aligned, apart), strict=True)), vmin=0.8, vmax=1)

# %% [markdown]
# ## eps by eye
#
# eps is a noise level, in intensity per mm: gradients well below it do not count. In a good field
# the edges are bright and the noise is dark. A fifth of the mean gradient is a start.

# %%
estimate = nec_ext.estimate_eps(t2, 0.2, spacing=spacing, mask=t2 > t2.min()).item()
print(f"a fifth of the mean gradient in the brain: eps = {estimate:.3g}")
fields = {
    f"eps = {eps:.2g}": nec_ext.ngf_field(t2, eps, spacing=spacing).norm(dim=2)
    for eps in (estimate / 10, estimate, 10 * estimate, 100 * estimate)
}
show(fields, vmin=0, vmax=1)

# %% [markdown]
# ## An optimization
#
# A T1 that has been turned and moved goes back to the T2, by 50 steps along the gradient of the
# loss. Here the steps change an affine matrix; in a training they change a network.

# %%
true = torch.tensor([[[1, 0.06, 0, 0.04], [-0.06, 1, 0, -0.05], [0, 0, 1.0, 0.03]]])


def warp(image, matrix):
    grid = F.affine_grid(matrix, image.shape, align_corners=False)
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False)


moving = warp(t1, true)
matrix = torch.eye(3, 4)[None].requires_grad_()
optimizer = torch.optim.Adam([matrix], lr=0.005)
for _ in (bar := tqdm(range(50), mininterval=1)):
    optimizer.zero_grad()
    loss = nec_ext.ngf_loss(warp(moving, matrix), t2, **options)
    loss.backward()
    optimizer.step()
    bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)

matrices = torch.eye(3, 4)[None], matrix.detach()
before, after = (affine_error(m, true, t1 > t1.min(), spacing) for m in matrices)
print(f"mean error: {before:.2f} mm before, {after:.2f} mm after")
moved = warp(moving, matrix)
maps = (nec_ext.ngf_loss(image, t2, **options, reduction="none") for image in (moving, moved))
show(dict(zip(("loss before", "loss after"), maps, strict=True)), vmin=0.8, vmax=1)

# %% [markdown]
# ## Beside plain PyTorch
#
# `eager_ngf_loss` is the leanest formula known in plain PyTorch ([eager.py](common/eager.py)): the
# same number and the same gradient, at a higher cost in time and memory. Memory is what loss and
# gradient take at the worst moment beside the two images, in volumes of their size. The cell prints
# the times of your machine; run it.

# %%
functions = {"nec_ext": nec_ext.ngf_loss, "eager PyTorch": eager_ngf_loss}
calls = {
    name: functools.partial(loss_and_gradient, functools.partial(function, **options), t2, t1)
    for name, function in functions.items()
}
times = median_times(list(calls.values()), rounds=7)
for (name, call), ms in zip(calls.items(), times, strict=True):
    value, gradient = call()
    volumes = peak_memory(call) / (t1.numel() * t1.element_size())
    print(f"{name:<14} loss {value:.6f}, length of the gradient {gradient.norm():.3e}")
    print(f"{'':<14} {ms:.1f} ms, {volumes:.1f} volumes")
