# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The loss tile by tile of integers, and of what is read by slices: the bits of float32 tensors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from covering import covering
from helpers import Result, assert_result_close, assert_same_bits, evaluate, run_python
from tiles import SHAPE, WAYS, Slices, floats, stored
from torch import Tensor

import nec_ext
from nec_ext import _reading

OPTIONS = {"eps": 40.0, "spacing": (0.7, 1.3, 2.5)}
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


def check(
    input: Any, target: Any, as_floats: list[Tensor], masks: tuple[Any, Any] = (None, None)
) -> None:
    """Check that any tiles have the bits of the loss of the whole, and gradients their shapes."""
    expected = evaluate(nec_ext.ngf_loss, *as_floats, 1.0, mask=masks[1], **OPTIONS)
    for tiles in (1, 2, 5):
        gradients = [torch.full(tuple(image.shape), torch.nan) for image in (input, target)]
        written = dict(zip(("grad_input", "grad_target"), gradients, strict=True))
        loss = nec_ext.tiled.ngf_loss(
            input, target, tiles=tiles, mask=masks[0], **written, **OPTIONS
        )
        shown = (g.view(as_floats[0].shape) for g in gradients)
        assert_same_bits(Result(loss, *shown), expected)


@covering(dtype=INTEGERS, order=["C", "F"], way=WAYS, indirect=["way"])
def test_integers(dtype: str, order: str, way: str) -> None:
    """The mask has another type; large integers are rounded."""
    arrays = [stored(seed, dtype, order)[None, None] for seed in range(2)]
    if dtype.endswith("64"):
        arrays = [(2**40 + 1) * array for array in arrays]
    mask = stored(3, "int32")
    check(*arrays, [*map(floats, arrays)], (mask, torch.from_numpy(mask).float()))
    tensors = [torch.from_numpy(array) for array in arrays]
    check(*tensors, [*map(floats, arrays)])


@pytest.mark.parametrize("turn", [".newbyteorder", "backwards"])
def test_arrays_that_torch_refuses(turn: str, way: str) -> None:
    arrays = [stored(seed)[None, None] for seed in range(2)]
    if turn == "backwards":
        turned = [array[..., ::-1, :] for array in arrays]
    else:
        turned = [array.astype(array.dtype.newbyteorder()) for array in arrays]
    check(*turned, [floats(array.copy()) for array in turned])


@covering(order=["C", "F"], shape=[SHAPE, (2, 3, *SHAPE)], way=WAYS, indirect=["way"])
def test_what_is_read_by_slices(order: str, shape: tuple[int, ...], way: str) -> None:
    """Images are scaled, a mask is read so too, and no more is read at once than a tile."""
    images = [Slices(stored(k, order=order, shape=shape), order, 0.37, -5.1) for k in range(2)]
    mask = Slices(stored(3, "bool", order), order)
    as_floats = [floats(image.whole()) for image in images]
    check(*images, as_floats, (mask, torch.from_numpy(mask.whole())))
    for image in images:
        image.sizes.clear()
    nec_ext.tiled.ngf_loss(*images, tiles=9, **OPTIONS)
    cut = -1 if order == "F" else -3
    assert max(size[cut] for image in images for size in image.sizes) == 5  # two on each side
    rest = {tuple(n for k, n in enumerate(size) if k != len(size) + cut) for size in image.sizes}
    assert len(rest) == 1  # whole planes


def test_slices_that_are_not_in_c_order(way: str) -> None:
    """A graph of arrays that is computed when it is read does not tell their order."""
    for shape in (SHAPE, (1, 7, 8)):
        arrays = [stored(seed, "float32", "F", shape) for seed in range(2)]
        in_order = [floats(np.ascontiguousarray(array)) for array in arrays]
        check(*map(Slices, arrays), in_order)


def test_a_tensor_follows_what_is_read_by_slices(way: str) -> None:
    """A generated image has another order of memory than the file that is its target."""
    image = torch.rand(1, 1, *SHAPE, dtype=torch.float64)
    target = 1.3 * image
    file = Slices(np.asarray(target[0, 0].numpy(), order="F"), "F")
    options = {"eps": 0.5, "spacing": OPTIONS["spacing"]}
    results = []
    for tiles in (1, 3, 8):
        gradient = torch.empty_like(image)
        loss = nec_ext.tiled.ngf_loss(image, file, grad_input=gradient, tiles=tiles, **options)
        results.append(Result(loss, gradient, None))
        assert_same_bits(results[-1], results[0])
    assert {size[:2] for size in file.sizes} == {SHAPE[:2]}
    expected = evaluate(nec_ext.ngf_loss, image, target, 1.0, "input", **options)
    assert_result_close(results[0], expected)


def test_where_images_are_is_in_place() -> None:
    first, second = (torch.device("cuda", k) for k in range(2))
    assert _reading.is_same(torch.device("cuda"), second) and _reading.is_same(second, second)
    assert not _reading.is_same(first, second) and not _reading.is_same(first, torch.device("cpu"))


def test_nec_ext_imports_neither_numpy_nor_nibabel() -> None:
    """Modules that torch imports on its own do not count."""
    code = (
        "import sys, torch; before = set(sys.modules); import nec_ext; "
        "print({'numpy', 'nibabel'} & (set(sys.modules) - before))"
    )
    assert run_python("-c", code).stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("dtype", "ending", "scaled"),
    [("int16", "nii.gz", True), ("uint16", "nii", False), (">i2", "nii", True)],
)
def test_proxies_of_nibabel(tmp_path: Path, dtype: str, ending: str, scaled: bool) -> None:
    nibabel = pytest.importorskip("nibabel")
    images = []
    for seed in range(3):
        header = nibabel.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
        image = nibabel.Nifti1Image(stored(seed, dtype), np.eye(4), header, dtype=dtype)
        if scaled:
            image.header.set_slope_inter(0.37, -5.1)
        path = tmp_path / f"{seed}.{ending}"
        nibabel.save(image, path)
        images.append(nibabel.load(path).dataobj)
    *images, mask = images
    whole = [np.asarray(image) for image in images]
    assert whole[0].dtype == (np.float64 if scaled else np.dtype(dtype))
    weights = torch.from_numpy(np.asarray(mask).astype("float32"))
    check(*images, [*map(floats, whole)])
    if not scaled:
        check(*images, [*map(floats, whole)], (mask, weights))
