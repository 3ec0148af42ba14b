# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""What saves memory in a step and changes nothing else: accumulation, checkpointing, half types."""

from __future__ import annotations

import math

import pytest
import torch
from brats_runs import (
    VOLUMES,
    make_learner,
    pairs,
    random_images,
    random_volumes,
)
from torch import Tensor

from examples.brats.train.learner import Learner


def in_double(system: str = "nec", **changes: object) -> Learner:
    """Made alike whatever the changes are, for comparisons without rounding errors."""
    learner = make_learner(system, **changes)
    learner.system.double()
    return learner


def gradients(learner: Learner) -> list[Tensor]:
    return [weight.grad for weight in learner.system.parameters() if weight.grad is not None]


@pytest.mark.parametrize(("system", "coupled"), [("nec", True), ("cyclegan", False)])
def test_accumulation_is_a_larger_batch(system: str, coupled: bool) -> None:
    pair = [half.double() for half in next(pairs())]
    found = []
    for changes in ({"batch": 2}, {"batch": 1, "accumulate": 2}):
        learner = in_double(system, coupled_adam=coupled, **changes)
        losses = learner.learn(0, *pair)
        found.append(([losses[name] for name in sorted(losses)], gradients(learner)))
    (losses, whole), (same_losses, parts) = found
    torch.testing.assert_close(losses, same_losses, rtol=1e-9, atol=1e-12)
    assert len(whole) == len(parts) > 10
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_accumulation_holds_one_graph_at_a_time() -> None:
    def stored(count: int, **changes: object) -> int:
        learner, held, most = make_learner(**changes), 0, 0

        class Held:
            def __init__(self, tensor: Tensor) -> None:
                nonlocal held, most
                self.tensor = tensor
                held += tensor.nbytes
                most = max(most, held)

            def __del__(self) -> None:
                nonlocal held
                held -= self.tensor.nbytes

        images = random_images(count, 0), random_images(count, 1)
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda one: one.tensor):
            learner.learn(0, *images)
        return most

    one = stored(1, batch=1)
    assert stored(4, batch=4) > 3 * one
    assert stored(4, batch=1, accumulate=4) < 1.1 * one


def test_checkpointing_keeps_less_for_the_same_gradients() -> None:
    source = random_volumes().source.t1[0][:, :16, :16, :8].double()[None]
    found, saved = [], []
    for checkpointing in (False, True):
        learner = in_double(**VOLUMES, checkpointing=checkpointing, unet_channels=(4, 8, 16))
        kept: list[int] = []

        def note(tensor: Tensor, kept: list[int] = kept) -> Tensor:
            kept.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            fake = learner.generator(source)
        saved.append(sum(kept))
        fake.square().mean().backward()
        found.append([weight.grad for weight in learner.generator.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert saved[1] < 0.3 * saved[0]


@pytest.mark.parametrize(("amp", "changes"), [("bf16", {}), ("fp16", VOLUMES)])
def test_half_precision_only_inside_the_networks(amp: str, changes: dict[str, object]) -> None:
    data = random_volumes().source
    images = [image[0][None, :, :20, :20, :12] for image in (data.t1, data.t2)]
    images = images if changes else next(pairs())
    half, plain = make_learner(amp=amp, **changes), make_learner(**changes)
    dtypes: set[torch.dtype] = set()
    half.generator.register_forward_hook(lambda *call: dtypes.add(call[2].dtype))
    for step in range(3):
        losses, expected = half.learn(step, *images), plain.learn(step, *images)
    assert dtypes == {{"bf16": torch.bfloat16, "fp16": torch.float16}[amp]}
    assert all(weight.dtype == torch.float32 for weight in half.system.parameters())
    assert losses["ngf"].dtype == torch.float32
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=0.1)
        assert loss != expected[name]


def test_an_overflow_in_fp16_changes_no_weight_but_the_scale() -> None:
    learner = make_learner(amp="fp16")
    learner.learn(0, *next(pairs()))
    before = {name: weight.detach().clone() for name, weight in learner.system.named_parameters()}
    scale = learner.scaler.get_scale()
    state = learner.state()
    for weight in learner.system.parameters():
        weight.register_hook(lambda gradient: gradient * math.inf)
    learner.learn(1, *next(pairs()))
    for name, weight in learner.system.named_parameters():
        assert torch.equal(weight, before[name]), name
    assert learner.scaler.get_scale() == scale / 2
    learner.load(state)
    assert learner.scaler.get_scale() == scale
