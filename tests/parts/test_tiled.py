# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The loss tile by tile: the same bits as at once, from and to any memory."""

import re
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from covering import covering
from helpers import (
    FORMULAS,
    WANTED,
    Result,
    allocations,
    assert_result_close,
    assert_same_bits,
    evaluate,
    expected_result,
)
from inputs import Case, channels_last, contiguous, cropped, transposed
from tiles import SHAPE, WAYS, Slices, copy_tiles, floats, options_of, stored, tiled_result
from torch import Tensor

import nec_ext
from nec_ext import _devices, _ops, _reading, tiled

CASES = [
    Case("tiled_2d", (2, 2, 40, 21)),
    Case("tiled_3d", (2, 2, 9, 7, 8)),
    Case("tiled_short_rows_3d", (1, 2, 11, 70, 6)),
    Case("tiled_long_2d", (1, 1, 7, 1500)),  # more than a tile of the sweep
    Case("tiled_wide_3d", (1, 1, 6, 300, 20)),
    Case("tiled_flat_3d", (1, 2, 1, 9, 10)),
]
LAID_OUT = [
    case._replace(layout=layout)
    for layout in (transposed, channels_last, cropped)
    for case in CASES[:2]
]
TILES = (1, 2, 5, None)


@covering(
    case=[*CASES, *LAID_OUT],
    way=WAYS,
    dtype=[torch.float32, torch.float64],
    wanted=WANTED,
    mapped=[True, False],
    options={**FORMULAS, "reduction": ["mean", "sum"]},
    indirect=["way"],
)
def test_bits_of_the_plain_loss(
    case: Case, way: str, dtype: torch.dtype, wanted: str, mapped: bool, options: dict[str, Any]
) -> None:
    """Tiles follow the memory, and the spacing its axes."""
    images, options = case.images(dtype), {**options, **(options_of(case) if mapped else {})}
    expected = evaluate(nec_ext.ngf_loss, *images, 1.0, wanted, **options)
    for tiles in TILES:
        assert_same_bits(tiled_result(*images, wanted, tiles=tiles, **options), expected)


def test_rows_that_the_plain_loss_takes_across_planes(way: str) -> None:
    case = Case("tiled_small_planes", (1, 1, 90, 11, 7))
    results = [tiled_result(*case.images(), tiles=tiles, **options_of(case)) for tiles in (1, 5)]
    assert_same_bits(*results)
    assert_result_close(results[0], expected_result(*case.images(), 1.0, **options_of(case)))


@pytest.mark.parametrize("layout", [contiguous, transposed])
def test_planes_are_added_in_their_order(layout: Any, way: str) -> None:
    """It shows in the last bits of a loss that is far from 1."""
    input = CASES[1]._replace(layout=layout).images(torch.float64)[0]
    options = {"eps": 1e-6, "spacing": [0.7, 1.3, 2.5]}
    expected = nec_ext.ngf_loss(input, 1.3 * input, **options)
    assert expected < 0.6
    for tiles in TILES:
        found = nec_ext.tiled.ngf_loss(input, 1.3 * input, tiles=tiles, **options)
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "dtypes", [(torch.float16, torch.float16), (torch.bfloat16, torch.float32)], ids=str
)
def test_half_types(dtypes: tuple[torch.dtype, torch.dtype], way: str) -> None:
    images = CASES[1].images(*dtypes)
    options = {**options_of(CASES[1]), "reduction": "sum"}
    expected = expected_result(*images, 1.0, **options)
    first, *others = [tiled_result(*images, tiles=tiles, **options) for tiles in TILES]
    assert_result_close(first, expected)
    for other in others:
        assert_same_bits(other, first)
    # The gradient need not be a half, which a mean over many voxels needs.
    wide = tiled_result(*images, dtype=torch.float32, tiles=2, **options)
    assert_result_close(wide, expected)


@covering(case=CASES[:2], wanted=WANTED, options={**FORMULAS, "reduction": ["mean", "sum"]})
def test_without_kernels(
    case: Case, wanted: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, options = case.images(torch.float64), {**options_of(case), **options}
    expected = expected_result(*images, 1.0, wanted, **options)
    monkeypatch.setattr(_ops, "FUSED_DEVICES", frozenset())
    monkeypatch.setattr(_devices, "_warned", set())
    with pytest.warns(RuntimeWarning, match="takes its reference"):
        found = tiled_result(*images, wanted, tiles=3, **options)
    assert_result_close(found, expected)


def test_masks_of_zeros_and_small_weights(way: str) -> None:
    """The sum of the small weights is below 1."""
    images = CASES[1].images(torch.float64)
    found = tiled_result(*images, tiles=2, mask=torch.zeros(CASES[1].shape, dtype=torch.bool))
    assert all(tensor.count_nonzero() == 0 for tensor in found.tensors)
    mask = 1e-6 * options_of(CASES[1])["mask"]
    found = tiled_result(*images, tiles=2, mask=mask)
    assert_same_bits(found, evaluate(nec_ext.ngf_loss, *images, 1.0, mask=mask))


@pytest.mark.parametrize("order", ["C", "F"])
def test_files(tmp_path: Path, order: Any, way: str) -> None:
    shape, arrays, images = CASES[1].shape[2:], [], []
    for name, image in zip(("input", "target"), CASES[1].images(), strict=True):
        values = np.asarray(image[0, 0], order=order)
        np.save(tmp_path / f"{name}.npy", values)
        arrays.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r")[None, None])
        images.append(torch.from_numpy(values)[None, None])
    written = np.memmap(tmp_path / "gradient", np.float32, "w+", shape=shape, order=order)
    loss = nec_ext.tiled.ngf_loss(*arrays, grad_input=written[None, None], tiles=2)
    written.flush()
    read = np.fromfile(tmp_path / "gradient", np.float32).reshape(shape, order=order)
    found = Result(loss, torch.from_numpy(read)[None, None], None)
    assert_same_bits(found, evaluate(nec_ext.ngf_loss, *images, 1.0, "input"))


@pytest.mark.parametrize(("tiles", "count"), [(1, 1), (np.int64(4), 3), (8, 5), (99, 9)])
def test_no_more_tiles_than_asked_for(tiles: int, count: int) -> None:
    """Nine planes; all tiles but the last are of one size."""
    with mock.patch.object(tiled, "sums", wraps=tiled.sums) as calls:
        nec_ext.tiled.ngf_loss(*CASES[1].images(), tiles=tiles)
    sizes = [call.args[4] - call.args[3] for call in calls.call_args_list]
    assert len(sizes) == count
    assert sum(sizes) == 9 and set(sizes[:-1]) <= {sizes[0]}


def test_no_default_matters_and_no_required_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plane may take more than the default, which nobody has asked for."""
    monkeypatch.setattr(tiled, "DEFAULT_MEMORY", 1)
    images = [image.requires_grad_() for image in CASES[1].images()]
    expected = evaluate(nec_ext.ngf_loss, *images, 1.0)
    with torch.no_grad(), torch.device("meta"):
        assert_same_bits(tiled_result(*images), expected)


def test_gradients_alone_are_written() -> None:
    images = CASES[1].images()
    before = [image.clone() for image in images]
    around = torch.full((2, 2, 9, 7, 10), torch.nan)
    loss = nec_ext.tiled.ngf_loss(*images, grad_input=around[..., 1:-1], tiles=2)
    assert not loss.requires_grad
    assert around[..., 1:-1].isfinite().all()
    assert around[..., [0, -1]].isnan().all()
    assert all(torch.equal(*pair) for pair in zip(images, before, strict=True))


@pytest.mark.parametrize("order", [1, -1])
def test_memory_of_one_buffer(order: int) -> None:
    """A gradient may begin where an image ends, and no element before."""
    input, target = CASES[1].images()
    count = input.numel()
    buffer = torch.zeros(2 * count)
    first, second = buffer[:count].view_as(input), buffer[count:].view_as(input)
    image, gradient = (first, second)[::order]
    image.copy_(input)
    nec_ext.tiled.ngf_loss(image, target, grad_input=gradient)
    assert torch.equal(gradient, evaluate(nec_ext.ngf_loss, input, target, 1.0).grad_input)
    first, second = buffer[:count].view_as(input), buffer[count - 1 : -1].view_as(input)
    image, gradient = (first, second)[::order]
    with pytest.raises(ValueError, match="the memory range of grad_input must not overlap"):
        nec_ext.tiled.ngf_loss(image, target, grad_input=gradient)


IMAGE = CASES[1].images()[0]
READ_ONLY = np.zeros(IMAGE.shape, np.float32)
READ_ONLY.flags.writeable = False
SWAPPED = READ_ONLY.astype(READ_ONLY.dtype.newbyteorder())
GRADIENT = torch.ones_like(IMAGE)
LONG, SPARSE = READ_ONLY.astype(np.longdouble), IMAGE.int().to_sparse()
FLOATS = "float32, float64, float16, bfloat16"
SHAPES = "(B, C, H, W) or (B, C, D, H, W), got"
COLOURS = np.zeros(SHAPE, [("R", "u1")])
NIFTI = type("Nifti1Image", (), {"shape": SHAPE})()  # not its proxy
FILE = Slices(stored(0))
OF_FILE = {"input": FILE, "target": FILE, "grad_input": torch.zeros(1, 1, *SHAPE)}
WRITABLE = (
    "grad_input must be a tensor, or an array of numpy in native byte order with strides of whole "
    f"elements, none negative, got ndarray with strides {SWAPPED.strides}"
)
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("tiles must be at least 1, got 0", {"tiles": 0}),
    ("tiles and max_memory exclude each other", {"tiles": 1, "max_memory": 2**20}),
    ("max_memory must be at least", {"max_memory": 3}),
    ("device must be one that has values in float64, got meta", {"device": "meta"}),
    ("device must be a", {"device": "cuda:99"}),
    ("eps must be positive and finite", {"eps": torch.tensor(0.0)}),
    ("reduction must be 'mean' or 'sum'", {"reduction": "none"}),
    ("must not require a gradient", {"input": IMAGE.clone().requires_grad_()}),
    ("eps must not require a gradient, a", {"eps": torch.tensor(0.2, requires_grad=True)}),
    ("without a gradient", {"grad_input": IMAGE.clone().requires_grad_()}),
    ("grad_input must have the shape and device", {"grad_input": IMAGE[..., :3]}),
    ("must be writable, every", {"grad_input": GRADIENT[:1].expand_as(IMAGE)}),
    ("must be writable, every", {"grad_input": GRADIENT.as_strided(IMAGE.shape, (9, 9, 8, 1, 1))}),
    ("grad_input must be writable", {"grad_input": READ_ONLY}),
    ("the memory range of grad_input must not", {"grad_input": IMAGE, "input": IMAGE}),
    ("must not overlap", {"grad_input": GRADIENT, "grad_target": GRADIENT}),
    ("must not overlap", {"grad_input": GRADIENT, "mask": GRADIENT}),
    (WRITABLE, {"grad_input": SWAPPED}),
    (f"mask must be {FLOATS}, bool or an integer type, got {LONG.dtype.name}", {"mask": LONG}),
    ("input must be float32, float64, float16 or bfloat16, got int32", {"input": SPARSE}),
    ("mask must be a torch.Tensor, got object", {"mask": object()}),
    (f"input must have shape {SHAPES} 2 dimensions: (3, 4)", {"input": Slices(np.zeros((3, 4)))}),
    (f"input must have shape {SHAPES}", {"input": stored(0)}),
    ("float16, bfloat16 or an integer type, got bool", {"input": floats(stored(0)) > 0}),
    ("float16, bfloat16 or an integer type, got void8", {"input": Slices(COLOURS)}),
    ("input must be a tensor or an array, got Nifti1Image", {"input": NIFTI}),
    ("grad_input must have the shape and device of its image, (9, 7, 8) on cpu", OF_FILE),
]


@pytest.mark.parametrize(("sentence", "arguments"), WRONG)
def test_wrong_arguments(sentence: str, arguments: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(sentence)) as caught:
        nec_ext.tiled.ngf_loss(**{"input": IMAGE, "target": IMAGE.flip(2), **arguments})
    assert "\n" not in str(caught.value)


MEMORY = Case("tiled_memory", (1, 1, 64, 64, 64))
PLANE = 64 * 64 * 4


@pytest.mark.parametrize("masked", [False, True])
def test_memory_is_that_of_a_tile(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place tiles take nothing; else what was asked for, whether as planes or as bytes."""
    images, gradient = MEMORY.images(), torch.zeros(MEMORY.shape)
    options = {"mask": torch.ones(MEMORY.shape)} if masked else {}

    def peak(**how: Any) -> int:
        def call() -> Tensor:
            loss: Tensor = nec_ext.tiled.ngf_loss(*images, grad_input=gradient, **options, **how)
            return loss

        return allocations(call)[0]

    small = 64 * 1024
    assert peak(tiles=16) <= small
    copy_tiles(monkeypatch)
    tensors = len(images) + masked
    for planes in (1, 4, 16):
        held = ((planes + 4) * tensors + planes) * PLANE
        assert held - PLANE <= peak(tiles=64 // planes) <= held + small
        assert held - (tensors + 1) * PLANE < peak(max_memory=held) <= held + small
    least = (5 * tensors + 1) * PLANE
    with pytest.raises(ValueError, match=f"max_memory must be at least {least}"):
        peak(max_memory=least - 1)


def test_memory_of_what_few_or_all_planes_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a plane of three lie two others; a map that is the same for all is there once."""
    copy_tiles(monkeypatch)
    images = [image[:, :, :3] for image in MEMORY.images()]
    gradient, mask = torch.zeros_like(images[0]), torch.ones(64, 64)
    for options, planes in (({}, 2 * 3 + 1), ({"mask": mask}, 2 * 3 + 1 + 1)):
        with pytest.raises(ValueError, match=f"at least {planes * PLANE} bytes"):
            nec_ext.tiled.ngf_loss(
                *images, grad_input=gradient, max_memory=planes * PLANE - 1, **options
            )
        nec_ext.tiled.ngf_loss(*images, grad_input=gradient, max_memory=planes * PLANE, **options)


@pytest.mark.parametrize("name", ["eps", "mask"])
def test_a_bad_value_in_the_last_tile(name: str) -> None:
    """The search for it takes no more memory than a tile."""
    images = MEMORY.images()
    bad = torch.ones(MEMORY.shape)
    bad[..., -1, -1, -1] = -2

    def call() -> None:
        with pytest.raises(ValueError, match=f"{name} must .* got a value of -2.0"):
            nec_ext.tiled.ngf_loss(*images, tiles=16, **{name: bad})

    assert allocations(call)[0] <= 80 * 1024


def test_tiles_take_the_same_memory() -> None:
    """New memory for each of them would lie in pieces, and grow."""
    source = _reading.Source("input", torch.ones(1, 1, *SHAPE, dtype=torch.int16), is_map=False)
    source.turn(range(5), leads=True)
    source.expect(4)
    first, other = (source.planes(k, 9, torch.device("cpu")) for k in (5, 6))
    assert first.shape[2] == 4 and other.shape[2] == 3
    assert first.data_ptr() == other.data_ptr()


@pytest.mark.parametrize(("slope", "read"), [(1.0, 2), (0.5, 2 + 2 * 8)])
def test_memory_of_converted_tiles(slope: float, read: int) -> None:
    """Besides a float32, ``read`` bytes per voxel are counted; numpy's own are not seen here."""
    images = [Slices(stored(seed, shape=(64, 64, 64)), slope=slope) for seed in range(2)]
    gradient = torch.zeros(images[0].shape)
    for planes in (1, 16):
        memory = ((planes + 4) * (2 * 4 + read) + planes * 4) * 64 * 64
        images[0].sizes.clear()
        nec_ext.tiled.ngf_loss(*images, grad_input=gradient, max_memory=memory)
        assert max(size[0] for size in images[0].sizes) == planes + 4
