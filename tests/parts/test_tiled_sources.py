# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The loss tile by tile of integers, and of what is read by slices: the bits of float32 tensors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Result, allocations, assert_result_close, assert_same_bits, evaluate, run_python
from test_tiled import IMAGE, copy_tiles
from torch import Tensor

import nec_ext
from nec_ext import _reading

SHAPE = (9, 7, 8)
OPTIONS = {"eps": 40.0, "spacing": (0.7, 1.3, 2.5)}
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


class Slices:
    """Like a proxy or a data set: values in a file, of which slices are read and scaled."""

    def __init__(self, stored: Any, order: str = "C", slope: float = 1.0, inter: float = 0.0):
        self._stored, self.order, self._scale = stored, order, (slope, inter)
        self.shape, self.dtype = stored.shape, stored.dtype
        self.sizes: list[tuple[int, ...]] = []  # of what was read

    def __getitem__(self, index: tuple[slice, ...]) -> Any:
        part = self._stored[index]
        self.sizes.append(part.shape)
        slope, inter = self._scale
        return part if self._scale == (1, 0) else part * slope + inter

    def whole(self) -> Any:
        return self[(slice(None),) * len(self.shape)]


def stored(seed: int, dtype: str = "int16", order: Any = "C", shape: Any = SHAPE) -> Any:
    found = np.random.default_rng(seed).integers(0, 127, shape).astype(dtype)
    return np.asarray(found, order=order)


def floats(array: Any) -> Tensor:
    """The float32 tensor of its values, in the same order of memory."""
    tensor = torch.from_numpy(np.asarray(array).astype("float32"))
    return tensor[(None,) * (5 - tensor.dim())]


def check(
    input: Any, target: Any, as_floats: list[Tensor], masks: tuple[Any, Any] = (None, None)
) -> None:
    """For any tiles the bits of the loss of the whole; gradients have their images' own shapes."""
    expected = evaluate(nec_ext.ngf_loss, *as_floats, 1.0, mask=masks[1], **OPTIONS)
    for tiles in (1, 2, 5):
        gradients = [torch.full(tuple(image.shape), torch.nan) for image in (input, target)]
        written = dict(zip(("grad_input", "grad_target"), gradients, strict=True))
        loss = nec_ext.tiled.ngf_loss(
            input, target, tiles=tiles, mask=masks[0], **written, **OPTIONS
        )
        shown = (g.view(as_floats[0].shape) for g in gradients)
        assert_same_bits(Result(loss, *shown), expected)


@pytest.fixture(params=[False, True], ids=["in place", "through copies"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the device of the images, or as on another one."""
    if request.param:
        copy_tiles(monkeypatch)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers(dtype: str, order: str) -> None:
    """Tensors and arrays of numpy, with a mask of another type; large ones are rounded."""
    arrays = [stored(seed, dtype, order)[None, None] for seed in range(2)]
    if dtype.endswith("64"):
        arrays = [(2**40 + 1) * array for array in arrays]
    mask = stored(3, "int32")
    check(*arrays, [*map(floats, arrays)], (mask, torch.from_numpy(mask).float()))
    tensors = [torch.from_numpy(array) for array in arrays]
    check(*tensors, [*map(floats, arrays)])
    check(tensors[0], floats(arrays[1]), [*map(floats, arrays)])


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("turn", [".newbyteorder", "backwards"])
def test_arrays_that_torch_refuses(turn: str) -> None:
    arrays = [stored(seed)[None, None] for seed in range(2)]
    if turn == "backwards":
        turned = [array[..., ::-1, :] for array in arrays]
    else:
        turned = [array.astype(array.dtype.newbyteorder()) for array in arrays]
    check(*turned, [floats(array.copy()) for array in turned])
    with pytest.raises(ValueError, match="grad_input must not share memory"):
        image = np.zeros((1, 1, *SHAPE), np.float32)
        gradient = torch.from_numpy(image)
        nec_ext.tiled.ngf_loss(image[..., ::-1], floats(arrays[1]), grad_input=gradient)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [SHAPE, (2, 3, *SHAPE), (2, 1, 20, 11)], ids=str)
def test_what_is_read_by_slices(shape: tuple[int, ...], order: str) -> None:
    """Scaled, of any shape, with a mask that is read so too; no more at once than a tile."""
    if len(shape) == 4:
        options = {"tiles": 3, "eps": 40.0}
        pair = [Slices(stored(seed, shape=shape, order=order), order) for seed in range(2)]
        tensors = [torch.from_numpy(image.whole()).float() for image in pair]
        loss = nec_ext.tiled.ngf_loss(*pair, **options)
        assert torch.equal(loss, nec_ext.ngf_loss(*tensors, eps=40.0))
        return
    images = [Slices(stored(k, order=order, shape=shape), order, 0.37, -5.1) for k in range(2)]
    mask = Slices(stored(3, "bool", order), order)
    as_floats = [floats(image.whole()) for image in images]
    check(*images, as_floats, (mask, torch.from_numpy(mask.whole())))
    for image in images:
        image.sizes.clear()
    nec_ext.tiled.ngf_loss(*images, tiles=9, **OPTIONS)
    cut = -1 if order == "F" else -3
    most = max(size[cut] for image in images for size in image.sizes)
    assert most == 5  # a plane, and two on each side
    rest = {tuple(n for k, n in enumerate(size) if k != len(size) + cut) for size in image.sizes}
    assert len(rest) == 1  # whole planes


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("eps", [0.5, 1e-6])
def test_a_tensor_follows_what_is_read_by_slices(eps: float) -> None:
    """A generated image in another order of memory than the file that is its target."""
    image = torch.rand(1, 1, *SHAPE, dtype=torch.float64)
    target = 1.3 * image
    file = Slices(np.asarray(target[0, 0].numpy(), order="F"), "F")
    options = {"eps": eps, "spacing": OPTIONS["spacing"]}
    expected = evaluate(nec_ext.ngf_loss, image, target, 1.0, "input", **options)
    results = []
    for tiles in (1, 3, 8):
        file.sizes.clear()
        gradient = torch.empty_like(image)
        loss = nec_ext.tiled.ngf_loss(image, file, grad_input=gradient, tiles=tiles, **options)
        assert {size[:2] for size in file.sizes} == {SHAPE[:2]}
        results.append(Result(loss, gradient, None))
        assert_same_bits(results[-1], results[0])
    if eps == 0.5:
        assert_result_close(results[0], expected)
    else:
        assert results[0].loss < 0.6  # where the order of a sum shows


def test_tiles_take_the_same_memory() -> None:
    """New memory for each of them would lie in pieces, and grow."""
    source = _reading.Source("input", torch.ones(1, 1, *SHAPE, dtype=torch.int16), is_map=False)
    source.turn(range(5), in_place=True)
    source.expect(4)
    first, other = (source.planes(k, 9, torch.device("cpu")) for k in (5, 6))
    assert first.shape[2] == 4 and other.shape[2] == 3
    assert first.data_ptr() == other.data_ptr()


@pytest.mark.parametrize("kind", ["tensors", "slices", "scaled slices"])
def test_memory_of_converted_tiles(kind: str) -> None:
    """What max_memory allows is enough, and is used; numpy's own memory is not counted here."""
    shape = (64, 64, 64)
    arrays = [stored(seed, shape=shape) for seed in range(2)]
    images: list[Any] = [array[None, None] for array in arrays]
    read = 0  # bytes per voxel besides a float32
    if "slices" in kind:
        slope = 0.5 if "scaled" in kind else 1.0
        images = [Slices(array, slope=slope) for array in arrays]
        read = 2 + 2 * 8 if "scaled" in kind else 2
    gradient = torch.zeros(images[0].shape)
    plane = 64 * 64
    least = 5 * plane * (2 * 4 + read) + plane * 4
    with pytest.raises(ValueError, match=f"max_memory must be at least {least} bytes"):
        nec_ext.tiled.ngf_loss(*images, grad_input=gradient, max_memory=least - 1)

    for planes in (1, 16):
        memory = (planes + 4) * plane * (2 * 4 + read) + planes * plane * 4

        def call(memory: int = memory) -> Tensor:
            loss: Tensor = nec_ext.tiled.ngf_loss(*images, grad_input=gradient, max_memory=memory)
            return loss

        if kind == "tensors":  # of which torch allocates all
            peak = allocations(call)[0]
            assert 2 * (planes + 4) * plane * 4 <= peak <= memory + 64 * 1024
        else:
            images[0].sizes.clear()
            call()
            assert max(size[0] for size in images[0].sizes) == planes + 4


DTYPES = "float32, float64, float16, bfloat16 or an integer type"
WRONG: dict[str, tuple[Any, str]] = {
    "two axes": (
        Slices(np.zeros((3, 4))),
        "input must have shape (B, C, H, W) or (B, C, D, H, W), got 2 dimensions: (3, 4)",
    ),
    "six axes": (Slices(np.zeros((1,) * 6)), "input must have shape (B, C, H, W) or (B, C, D,"),
    "an array of three": (stored(0), "input must have shape (B, C, H, W) or (B, C, D, H, W), got"),
    "no planes": (
        Slices(np.zeros((3, 0, 4))),
        "input must not be empty, got shape (1, 1, 3, 0, 4)",
    ),
    "a bool": (floats(stored(0)) > 0, f"input must be {DTYPES}, got bool"),
    "complex": (floats(stored(0)) + 1j, f"input must be {DTYPES}, got complex64"),
    "objects": (stored(0).astype(object), f"input must be {DTYPES}, got object"),
    "colours": (
        Slices(np.zeros(SHAPE, [("R", "u1"), ("G", "u1")])),
        f"input must be {DTYPES}, got void16",
    ),
    "an image of nibabel": (
        type("Nifti1Image", (), {"shape": SHAPE})(),
        "input must be a tensor or an array, got Nifti1Image",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_refused(name: str) -> None:
    image, sentence = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(sentence)}"):
        nec_ext.tiled.ngf_loss(image, floats(stored(0)))


def test_the_gradient_has_its_images_own_shape() -> None:
    image = Slices(stored(0))
    with pytest.raises(ValueError, match=r"^grad_input must have the shape .* \(9, 7, 8\) on cpu"):
        nec_ext.tiled.ngf_loss(image, image, grad_input=torch.zeros(1, 1, *SHAPE))


def test_where_images_are_is_in_place() -> None:
    assert _reading.is_same(torch.device("cpu"), torch.device("cpu"))
    assert _reading.is_same(torch.device("cuda"), torch.device("cuda", 1))
    assert _reading.is_same(torch.device("cuda", 1), torch.device("cuda", 1))
    assert not _reading.is_same(torch.device("cuda", 0), torch.device("cuda", 1))
    assert not _reading.is_same(torch.device("cuda", 0), torch.device("cpu"))


def test_nec_ext_imports_neither_numpy_nor_nibabel() -> None:
    """Beyond what torch does on its own."""
    code = (
        "import sys, torch; before = set(sys.modules); import nec_ext; "
        "print({'numpy', 'nibabel'} & (set(sys.modules) - before))"
    )
    assert run_python("-c", code).stdout.strip() == "set()"


# ------------------------------------------------------------------------------------------------
# Files
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(
    ("dtype", "ending"),
    [("int16", "nii"), ("uint16", "nii.gz"), ("uint8", "nii"), ("float32", "nii"), (">i2", "nii")],
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


def test_files_of_numpy(tmp_path: Path) -> None:
    """Integers that are mapped, and gradients too."""
    for seed in range(2):
        np.save(tmp_path / f"{seed}.npy", stored(seed, "uint16"))
    mapped = [np.load(tmp_path / f"{seed}.npy", mmap_mode="r")[None, None] for seed in range(2)]
    check(*mapped, [floats(array) for array in mapped])
    written = np.lib.format.open_memmap(tmp_path / "g.npy", "w+", "float32", SHAPE)[None, None]
    nec_ext.tiled.ngf_loss(*mapped, grad_target=written, tiles=3, **OPTIONS)
    as_floats = [floats(array) for array in mapped]
    expected = evaluate(nec_ext.ngf_loss, *as_floats, 1.0, "target", **OPTIONS).grad_target
    assert torch.equal(torch.from_numpy(written), expected)


@pytest.mark.parametrize("numpy_scalar", [np.float32(0.2), np.float64(0.2)])
def test_numbers_of_numpy(numpy_scalar: Any) -> None:
    loss = nec_ext.tiled.ngf_loss(IMAGE, IMAGE.flip(2), eps=numpy_scalar)
    assert torch.equal(loss, nec_ext.ngf_loss(IMAGE, IMAGE.flip(2), eps=float(numpy_scalar)))
