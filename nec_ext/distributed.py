# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The fused loss of volumes that are split across processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from ._agreement import Record, agree, backends_of, check_backend, describe
from ._arguments import DEFAULT_EPS, Gradients, Options, Wanted, check_no_gradient, parse_options
from ._autograd import scale_stored
from ._dtensor import Split, local_part, splits_of
from ._halo import Shard
from ._parts import HALO, TENSORS, check_device, check_scalar_reduction, volume_tensors
from ._torch import is_transforming
from ._values import arithmetic_dtype, check_maps, loss_dtype, may_have_bad_values

__all__ = ["ngf_loss"]


def ngf_loss(
    input: Tensor,
    target: Tensor,
    *,
    group: dist.ProcessGroup | None = None,
    dim: int = 2,
    check: bool = True,
    eps: float | Tensor = DEFAULT_EPS,
    target_eps: float | Tensor | None = None,
    eps_mode: str = "additive",
    operator: str = "central",
    spacing: float | Sequence[float] | None = None,
    mask: Tensor | None = None,
    weight: float = 1.0,
    reduction: str = "mean",
    form: str = "squared",
) -> Tensor:
    """Compute :func:`nec_ext.ngf_loss` of images that are split across ranks along a spatial axis.

    Every rank passes its planes, in the order of the ranks, and gets the loss of the whole images;
    after ``loss.backward()`` on every rank, each has its planes of the whole gradient. All
    communication takes place in forward: the check of the arguments, one exchange of two planes
    with each neighbour, and one all-reduce of two numbers. Besides the images, a rank holds their
    gradients and a few planes.

    The parameters of a network that made the images get, on each rank, the gradient of its part of
    the loss: add them up over ``group``. ``DistributedDataParallel`` over another axis of a mesh
    averages over that axis, as it does for any loss; one over all ranks divides by the size of
    ``group`` too, which ``weight`` makes good::

        mesh = init_device_mesh("cuda", (2, 4), mesh_dim_names=("data", "space"))
        model = DistributedDataParallel(model)  # over all 8
        loss = nec_ext.distributed.ngf_loss(model(x), x, group=mesh["space"].get_group(), weight=4)

    A ``DTensor`` brings its group and axis along. Its placements may be ``Replicate``, and
    ``Shard`` over samples, channels or one spatial axis. Its gradient is a DTensor of the same
    placements. :func:`nec_ext.ngf_loss` takes DTensors too once this module is imported. With the
    reductions "sum" and "none" samples and channels stay split there; in all other cases the
    DTensor is gathered, because a sharding rule can neither fetch planes of neighbours nor divide
    by the voxels of all ranks.

    Args:
        input: ``(B, C, H, W)`` or ``(B, C, D, H, W)``, this rank's planes of the generated image.
            Ranks may have different numbers of planes, at least one each.
        target: the source image, of the same shape and on the same device.
        group: the ranks that share the images, in the order of their planes, with a backend for
            the device of the images, which for a GPU is not gloo. Default: all.
        dim: the axis that is split: 2 for D (or, in 2D, H), 3 and 4 for the others. It is left out
            for DTensors.
        check: whether ranks first compare their arguments, in 1 KB each. They then wait for each
            other, and for the GPU if the group has no backend for the CPU. Without the check, wrong
            arguments may make ranks wait for ever, and every rank needs two planes or more.
        eps, target_eps, mask: as in :func:`nec_ext.ngf_loss`; a tensor that varies along ``dim`` is
            split as the images are, any other is the same on every rank.
        eps_mode, operator, spacing, weight, form: as in :func:`nec_ext.ngf_loss`, the same on every
            rank.
        reduction: ``"mean"`` over the voxels (or the mask) of all ranks, or ``"sum"``.

    Returns:
        A scalar, the same on every rank. float64 if an image is, else float32. It has no second
        derivative.

    Raises:
        TypeError, ValueError: as :func:`nec_ext.ngf_loss`, and if ranks differ in anything but
            the number of their planes; on every rank.
        RuntimeError: the gradient itself is to be differentiated, or ``torch.func`` transforms it.

    Example:
        >>> part = volume.chunk(dist.get_world_size(), dim=2)[dist.get_rank()]
        >>> nec_ext.distributed.ngf_loss(generator(part), part).backward()

    References:
        See :func:`nec_ext.ngf_loss`.
    """
    options: dict[str, Any] = {
        "eps": eps,
        "target_eps": target_eps,
        "eps_mode": eps_mode,
        "operator": operator,
        "spacing": spacing,
        "mask": mask,
        "weight": weight,
        "reduction": reduction,
        "form": form,
    }
    splits = [Split(group, dim)]
    if isinstance(input, DTensor):
        if group is not None:
            raise ValueError("group must be left out for a DTensor, whose mesh has it")
        if dim != 2:
            raise ValueError("dim must be left out for a DTensor, whose placements have it")
        splits = splits_of(input)
    backends = [backends_of(split.group) for split in splits]
    call, failure = _parse(input, target, options, dim, backends)
    device = input.device if isinstance(input, Tensor) else None
    records: dict[int, list[Record]] = {}
    for split in splits if check else ():
        own = {} if call is None else describe(call.tensors, call.options, split.dim)
        records[split.dim], failure = agree(own, failure, split.group, device)
    if check and len(splits) > 1:  # a failure that the last group found must reach the others
        failure = _share_failure(failure, splits, device)
    if failure is not None:
        raise failure
    assert call is not None
    loss: Tensor = _ShardedLoss.apply(*call.tensors[:2], _plan(call, splits, records))  # type: ignore
    # A bad value in a map shows in the loss, which every rank sees. All ranks must decide alike
    # here, so that the type of the tensors, which may differ, is not asked for.
    on_cpu = input.device.type == "cpu" and not torch.compiler.is_compiling()
    if check and call.options.has_maps and on_cpu and may_have_bad_values(loss):
        _check_maps(call.options, loss.dtype, splits, input.device)
    return loss


class _Call(NamedTuple):
    """Checked arguments of one rank."""

    tensors: list[Tensor | None]
    options: Options


class _Plan(NamedTuple):
    """Arguments of forward."""

    shard: Callable[[], Shard]  # begins the exchange of planes
    options: Options
    voxels: int  # of this rank
    masked: bool
    groups: list[dist.ProcessGroup | None]  # that share the sum
    wanted: Wanted


def _parse(
    input: Tensor, target: Tensor, options: dict[str, Any], dim: int, backends: list[dict[str, str]]
) -> tuple[_Call | None, Exception | None]:
    try:
        if is_transforming():
            raise RuntimeError(
                "nec_ext.distributed.ngf_loss has no vmap, grad or other transform of torch.func"
            )
        target = local_part("target", target, input)
        options = {name: local_part(name, value, input) for name, value in options.items()}
        input = local_part("input", input, input)
        input, target, o = parse_options(input, target, **options)
        check_scalar_reduction(o.reduction)
        check_no_gradient(o, "a volume in parts")
        check_device("the device of input", input.device)
        for known in backends:
            check_backend(known, input.device)
        if isinstance(dim, bool) or not isinstance(dim, int):
            raise TypeError(f"dim must be an int, got {type(dim).__name__}")
        if dim not in range(2, input.dim()):
            raise ValueError(f"dim must be a spatial axis, 2 to {input.dim() - 1}, got {dim}")
        return _Call(volume_tensors(input, target, o), o), None
    except Exception as error:  # the other ranks must hear of any error
        return None, error


def _share_failure(
    failure: Exception | None, splits: list[Split], device: torch.device | None
) -> Exception | None:
    """Return the failure of this rank, or of any other rank in one of its groups."""
    for split in splits:
        _, failure = agree({}, failure, split.group, device)
    return failure


def _check_maps(o: Options, result: torch.dtype, splits: list[Split], device: torch.device) -> None:
    failure: Exception | None = None
    try:
        check_maps(o, arithmetic_dtype(result, o))
    except ValueError as error:
        failure = error
    failure = _share_failure(failure, splits, device)
    if failure is not None:
        raise failure


def _plan(call: _Call, splits: list[Split], records: dict[int, list[Record]]) -> _Plan:
    input, target, *_, mask = call.tensors
    assert input is not None and target is not None
    group, dim = next((split for split in splits if split.dim >= 2), (None, None))
    if dim is None:
        dim, rank, planes, is_split = 2, 0, [input.shape[2]], [False] * len(call.tensors)
    else:
        rank = dist.get_rank(group)
        if dim in records:
            planes = [record["planes"] for record in records[dim]]
        else:
            planes = [HALO] * dist.get_world_size(group)
            planes[rank] = input.shape[dim]
        if len(planes) > 1 and min(planes) < HALO and dim not in records:
            raise ValueError("every rank must have two planes or more without a check, got one")
        # A map of one plane is split where it is split on a rank that has more of them.
        told = {name: value for record in records.get(dim, []) for name, value in record.items()}
        is_split = [
            t is not None and told.get(f"whether {name} is split", t.shape[dim] == input.shape[dim])
            for name, t in zip(TENSORS, call.tensors, strict=True)
        ]
    enabled = torch.is_grad_enabled()
    return _Plan(
        partial(Shard, call.tensors, is_split, dim, planes, rank, group),
        call.options.without_tensors(),
        input.numel(),
        mask is not None,
        [split.group for split in splits],
        (enabled and input.requires_grad, enabled and target.requires_grad),
    )


class _ShardedLoss(torch.autograd.Function):
    """Forward stores the gradients of the sum over voxels; backward multiplies them by a number."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, target: Tensor, plan: _Plan) -> Tensor:
        shard = plan.shard()
        gradients, values = _sweep(shard, input, target, plan.options, plan.wanted)
        if plan.masked:
            count = shard.mask_sum(plan.options)
        else:
            count = torch.full_like(values, plan.voxels)
        total = torch.cat([count, values])
        for group in plan.groups:
            dist.all_reduce(total, group=group)
        count, values = total.unbind()
        factor = torch.full_like(count, plan.options.weight)
        if plan.options.reduction == "mean":  # over no voxel it is 0 with gradient 0
            factor = torch.where(count == 0, 0.0, factor / count)
        dtype = loss_dtype(input, target)
        # autograd keeps the maps and the planes of other ranks too, and frees them after backward.
        ctx.save_for_backward(*gradients, factor.to(dtype), *shard.release())
        ctx.shard, ctx.consumed = shard, False
        ctx.options, ctx.wanted = plan.options, plan.wanted
        base, scale = plan.options.base_and_scale
        return (factor * (base * count - scale * values)).to(dtype)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the gradient of nec_ext.distributed.ngf_loss cannot be differentiated: "
                "leave create_graph out"
            )
        *gradients, factor = ctx.saved_tensors[:3]
        if ctx.consumed:  # the graph was retained for a second backward
            held = ctx.saved_tensors[3:]
            ctx.shard.restore(held)
            gradients = list(_sweep(ctx.shard, held[0], held[1], ctx.options, ctx.wanted)[0])
            ctx.shard.release()
        return (*scale_stored((gradients[0], gradients[1]), upstream, factor, ctx), None)


def _sweep(
    shard: Shard, input: Tensor, target: Tensor, options: Options, wanted: Wanted
) -> tuple[Gradients, Tensor]:
    """Compute the gradients of the sum over voxels, and the sum of ``mask * value``."""
    gradients = (
        torch.empty_like(input) if wanted[0] else None,
        torch.empty_like(target) if wanted[1] else None,
    )
    return gradients, shard.sum(options._replace(weight=1.0), gradients)
