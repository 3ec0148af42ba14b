# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""One step: whose losses reach whose weights, in which order, at which rate."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from brats_runs import SYSTEMS, make_learner, pairs
from torch import Tensor, nn

import nec_ext


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in network.named_parameters()}


def changed(before: dict[str, Tensor], network: nn.Module) -> list[bool]:
    return [not torch.equal(before[name], now) for name, now in network.named_parameters()]


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
def test_two_steps_change_every_network(system: str) -> None:
    learner = make_learner(system, ema=0.9, pool=2)
    before = weights(learner.system)
    for step, pair in enumerate(pairs(2)):
        losses = learner.learn(step, *pair)
        assert losses.keys() == learner.system.weights(step).keys()
        assert all(loss.isfinite() and not loss.requires_grad for loss in losses.values())
    for name, weight in learner.system.named_parameters():
        assert weight.isfinite().all()
        # What instance normalization takes away again has no gradient: most biases.
        assert weight.dim() == 1 or not torch.equal(weight, before[name]), name


@pytest.mark.parametrize("system", SYSTEMS)
def test_generator_step_leaves_the_discriminators(system: str) -> None:
    """With a weight of 0 their own step has gradient 0: only the other step could change them."""
    learner = make_learner(system, lambda_discriminator=0)
    before = weights(learner.system.discriminators)
    generators = weights(learner.system.generators)
    for step, pair in enumerate(pairs()):
        learner.learn(step, *pair)
        # Their own step, which comes first, has left zeros; CycleGAN's comes after the generators'.
        for weight in learner.system.discriminators.parameters():
            assert weight.requires_grad
            assert weight.grad is None or not weight.grad.any()
    assert not any(changed(before, learner.system.discriminators))
    assert any(changed(generators, learner.system.generators))


def test_order_of_the_steps() -> None:
    """The second network to step sees the first one as it has become."""
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
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-6)


def test_rates_are_constant_and_then_fall_to_zero() -> None:
    learner = make_learner(lr_generator=1.0, lr_discriminator=0.1, steps=10, decay=0.4)
    rates = [learner.rate("generator", step) for step in range(10)]
    assert rates == pytest.approx([1.0] * 7 + [0.75, 0.5, 0.25])
    assert learner.rate("discriminator", 8) == pytest.approx(0.05)
    learner.learn(8, *next(pairs()))
    assert learner.optimizers["generator"].param_groups[0]["lr"] == pytest.approx(0.5)
    constant = make_learner(lr_generator=1.0, steps=10, decay=0)
    assert constant.rate("generator", 9) == 1.0


def test_ramp_and_warmup_of_nec() -> None:
    system = make_learner(lambda_ngf=3, delay=0, ramp=0.5, warmup=0.2, steps=10).system
    assert [system.weights(step)["ngf"] for step in (0, 1, 5, 9)] == pytest.approx([0, 0.6, 3, 3])
    assert [system.weights(step)["l1"] for step in (0, 1, 2)] == [100, 100, 0]
    late = make_learner(lambda_ngf=3, delay=0.3, ramp=0.5, steps=10).system
    assert [late.weights(k)["ngf"] for k in (0, 3, 4, 8, 9)] == pytest.approx([0, 0, 0.6, 3, 3])
    sudden = make_learner(lambda_ngf=3, delay=0.3, ramp=0, steps=10).system
    assert [sudden.weights(step)["ngf"] for step in (2, 3, 9)] == [0, 3, 3]


def test_warmup_takes_the_source_for_the_target() -> None:
    learner = make_learner(warmup=0.5)
    source, target = next(pairs())
    real = learner.system.discriminators["target"](source)
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


def test_backends_agree() -> None:
    """In the first steps of two runs, and at every step of one run.

    Independent runs part later whatever computes the loss: Adam turns a rounding error of a small
    gradient into a step, and a GAN amplifies it.
    """
    fused, eager = (make_learner(loss_backend=name, lambda_ngf=3) for name in ("fused", "eager"))
    for step, pair in enumerate(pairs(4)):
        expected = eager.learn(step, *pair)
        for name, loss in fused.learn(step, *pair).items():
            torch.testing.assert_close(loss, expected[name], rtol=1e-4, atol=0)
    for step, (source, target) in enumerate(pairs(20)):
        fused.learn(4 + step, source, target)
        fake = fused.system.generator(source).detach().requires_grad_()
        results = []
        for learner in (fused, eager):
            loss = learner.system.ngf_loss(fake, source)
            results.append((loss, *torch.autograd.grad(loss, fake)))
        (a, da), (b, db) = results
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)
        assert (da - db).norm() < 1e-5 * db.norm()
