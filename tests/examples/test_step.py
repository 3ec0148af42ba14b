# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats/train/learner.py: whose losses reach whose weights, and what saves memory."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from brats_runs import (
    SYSTEMS,
    VOLUMES,
    assert_equal,
    make_learner,
    pairs,
    random_images,
    random_volumes,
)
from covering import covering
from torch import Tensor, nn

import nec_ext
from examples.brats.train.learner import Learner


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in network.named_parameters()}


@pytest.mark.parametrize(
    ("system", "name", "share"),
    [("nec", "ngf", 0.9), ("pix2pix", "l1", 0.5), ("cyclegan", "cycle", 0.7), ("cut", "nce", 0.7)],
)
def test_what_keeps_the_anatomy_is_learned(system: str, name: str, share: float) -> None:
    learner = make_learner(
        system, lambda_gan=0, steps=60, decay=0, lr_generator=5e-3, unet_channels=(16, 32)
    )
    batch = next(pairs())
    found = [learner.learn(step, *batch)[name].item() for step in range(60)]
    assert found[-1] < share * found[0]


@pytest.mark.parametrize("system", SYSTEMS)
def test_both_steps_change_their_own_networks_alone(system: str) -> None:
    """Give one step the weight and gradient 0: only the other could change its networks."""
    for own, changed, other in (
        ({}, "generators", ""),
        ({"lambda_discriminator": 0}, "generators", "discriminators"),
        ({"ema": 0.9, "pool": 2}, "discriminators", ""),
    ):
        learner = make_learner(system, **own)
        before = copy.deepcopy(learner.system)
        for step, pair in enumerate(pairs()):
            losses = learner.learn(step, *pair)
            assert losses.keys() == learner.system.weights(step).keys()
            assert all(loss.isfinite() and not loss.requires_grad for loss in losses.values())
        for (name, weight), old in zip(
            learner.system.named_parameters(), before.parameters(), strict=True
        ):
            assert weight.requires_grad and weight.isfinite().all()
            if name.split(".")[0] == other:
                assert torch.equal(weight, old), name
                assert weight.grad is None or not weight.grad.any()
            # What instance normalization takes away again has no gradient: most biases.
            elif name.split(".")[0] == changed and weight.dim() > 1:
                assert not torch.equal(weight, old), name


def test_order_of_the_steps() -> None:
    """Show the second network to step the first one as it has become."""
    source, target = next(pairs())
    for system in ("nec", "cyclegan"):
        learner = make_learner(system, adversarial="bce", pool=0)
        old = copy.deepcopy(learner.system)
        losses = learner.learn(0, source, target)
        with torch.no_grad():
            fakes = old.generate(source, target)
            before = old.generator_losses(source, target, fakes)["gan"]
            old.discriminators = learner.system.discriminators
            after = old.generator_losses(source, target, fakes)["gan"]
        expected = {"nec": after, "cyclegan": before}[system]
        torch.testing.assert_close(losses["gan"], expected)
        assert abs(after - before) > 1e-3


def test_losses_of_nec_and_pix2pix() -> None:
    source, target = next(pairs())
    for system in ("nec", "pix2pix"):
        learner = make_learner(system)
        fake = learner.system.generator(source).detach()
        logits = learner.system.discriminators["target"](fake)
        real_logits = learner.system.discriminators["target"](target)
        losses = learner.learn(0, source, target)
        if system == "nec":
            ngf = nec_ext.ngf_loss(fake, source, eps_mode="quadrature", operator="sobel")
            torch.testing.assert_close(losses["ngf"], ngf)
        torch.testing.assert_close(losses["l1"], F.l1_loss(fake, [target, source][system == "nec"]))
        d_fake = sum(F.softplus(one).mean() for one in logits) / len(logits)
        d_real = sum(F.softplus(-one).mean() for one in real_logits) / len(logits)
        torch.testing.assert_close(losses["d_fake"], d_fake)
        torch.testing.assert_close(losses["d_real"], d_real)


def test_cyclegans_cycles_and_identities() -> None:
    learner = make_learner("cyclegan")
    source, target = next(pairs())
    to_t2, to_t1 = (copy.deepcopy(learner.system.generators[n]) for n in ("target", "source"))
    losses = learner.learn(0, source, target)
    cycle = F.l1_loss(to_t1(to_t2(source)), source) + F.l1_loss(to_t2(to_t1(target)), target)
    identity = F.l1_loss(to_t2(target), target) + F.l1_loss(to_t1(source), source)
    torch.testing.assert_close(losses["cycle"], cycle)
    torch.testing.assert_close(losses["identity"], identity)
    assert learner.system.weights(0)["identity"] == 5.0


def test_coupled_adam_gives_the_discriminator_the_generators_gradient_too() -> None:
    learner = make_learner(coupled_adam=True, lambda_gan=0.7, lambda_discriminator=1.0)
    assert list(learner.optimizers) == ["generator"]
    source, target = next(pairs())
    discriminator = copy.deepcopy(learner.system.discriminators["target"])
    fake = learner.system.generator(source).detach()
    objective = sum(
        F.softplus(-real).mean() + F.softplus(made).mean() + 0.7 * F.softplus(-made).mean()
        for real, made in zip(discriminator(target), discriminator(fake), strict=True)
    ) / len(discriminator(fake))
    expected = torch.autograd.grad(objective, list(discriminator.parameters()))
    learner.learn(0, source, target)
    for weight, gradient in zip(learner.system.discriminators.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-6)


def test_rates_are_constant_and_then_fall_to_zero() -> None:
    learner = make_learner(lr_generator=1.0, lr_discriminator=0.1, steps=10, decay=0.4)
    rates = [learner.rate("generator", step) for step in range(10)]
    assert rates == pytest.approx([1.0] * 7 + [0.75, 0.5, 0.25])
    assert learner.rate("discriminator", 8) == pytest.approx(0.05)
    learner.learn(8, *next(pairs()))
    assert learner.optimizers["generator"].param_groups[0]["lr"] == pytest.approx(0.5)
    assert make_learner(lr_generator=1.0, steps=10, decay=0).rate("generator", 9) == 1.0


def test_delay_ramp_and_warmup_of_nec() -> None:
    for changes, steps, expected in (
        ({"delay": 0, "ramp": 0.5, "warmup": 0.2}, (0, 1, 5, 9), [0, 0.6, 3, 3]),
        ({"delay": 0.3, "ramp": 0.5}, (0, 3, 4, 8, 9), [0, 0, 0.6, 3, 3]),
        ({"delay": 0.3, "ramp": 0}, (2, 3, 9), [0, 3, 3]),
    ):
        system = make_learner(lambda_ngf=3, steps=10, **changes).system
        assert [system.weights(step)["ngf"] for step in steps] == pytest.approx(expected)
    learner = make_learner(warmup=0.2, steps=10)
    assert [learner.system.weights(step)["l1"] for step in (0, 1, 2)] == [100, 100, 0]
    source, target = next(pairs())
    real = learner.system.discriminators["target"](source)  # the source is the target
    expected = sum(F.softplus(-one).mean() for one in real) / len(real)
    torch.testing.assert_close(learner.learn(0, source, target)["d_real"], expected)


def test_average_of_the_generator() -> None:
    learner = make_learner(ema=0.9)
    first, second = pairs(2)
    learner.learn(0, *first)
    expected = weights(learner.system.generator)  # the average starts with the first step
    learner.learn(1, *second)
    now = weights(learner.system.generator)
    for name, weight in learner.generator.named_parameters():
        torch.testing.assert_close(weight, 0.9 * expected[name] + 0.1 * now[name])


@pytest.mark.parametrize("system", ["cut", "cyclegan"])
def test_a_learner_that_is_loaded_goes_on_as_the_one_that_was_saved(system: str) -> None:
    learner, other = (make_learner(system, ema=0.9, pool=3, seed=seed) for seed in (0, 0))
    (first, second, third), steps = pairs(3), []
    for step, pair in enumerate((first, second)):
        learner.learn(step, *pair)
    other.load(copy.deepcopy(learner.state()))
    for one in (learner, other):
        torch.rand(3)  # what else draws random numbers does not matter
        steps.append(one.learn(2, *third))
    assert_equal(*steps)
    assert_equal(learner.state(), other.state())


# --- Memory ---------------------------------------------------------------------------------------


def in_double(system: str = "nec", **changes: object) -> Learner:
    """Make learners alike whatever the changes, to be compared without rounding errors."""
    learner = make_learner(system, **changes)
    learner.system.double()
    return learner


@covering(system=["nec", "cyclegan"], coupled=[True, False])
def test_accumulation_is_a_larger_batch(system: str, coupled: bool) -> None:
    pair = [half.double() for half in next(pairs())]
    found = []
    for changes in ({"batch": 2}, {"batch": 1, "accumulate": 2}):
        learner = in_double(system, coupled_adam=coupled, **changes)
        losses = learner.learn(0, *pair)
        gradients = [weight.grad for weight in learner.system.parameters()]
        found.append(
            ([losses[name] for name in sorted(losses)], [g for g in gradients if g is not None])
        )
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
    before, scale, state = weights(learner.system), learner.scaler.get_scale(), learner.state()
    for weight in learner.system.parameters():
        weight.register_hook(lambda gradient: gradient * math.inf)
    learner.learn(1, *next(pairs()))
    assert_equal(weights(learner.system), before)
    assert learner.scaler.get_scale() == scale / 2
    learner.load(state)
    assert learner.scaler.get_scale() == scale
