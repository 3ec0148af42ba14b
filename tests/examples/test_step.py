# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats/train/learner.py: whose losses reach whose weights, and what saves memory."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from brats_runs import SYSTEMS, VOLUMES, assert_equal, make_learner, pairs, random_volumes
from covering import covering
from torch import Tensor, nn

import nec_ext


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in network.named_parameters()}


@pytest.mark.parametrize("system", SYSTEMS)
def test_both_steps_change_their_own_networks_alone(system: str) -> None:
    for own, changed, other in (
        ({}, "generators", ""),
        ({"lambda_discriminator": 0}, "generators", "discriminators"),  # only the other step could
        ({"ema": 0.9, "pool": 2}, "discriminators", ""),
    ):
        learner = make_learner(system, **own)
        before = copy.deepcopy(learner.system)
        for step, pair in enumerate(pairs()):
            learner.learn(step, *pair)
        for (name, weight), old in zip(
            learner.system.named_parameters(), before.parameters(), strict=True
        ):
            if name.split(".")[0] == other:
                assert torch.equal(weight, old), name
            # What instance normalization takes away again has no gradient: most biases.
            elif name.split(".")[0] == changed and weight.dim() > 1:
                assert not torch.equal(weight, old), name


@pytest.mark.parametrize("system", ["nec", "pix2pix"])
def test_losses_of_nec_and_pix2pix(system: str) -> None:
    source, target = next(pairs())
    learner = make_learner(system)
    fake = learner.system.generator(source).detach()
    logits, real_logits = map(learner.system.discriminators["target"], (fake, target))
    losses = learner.learn(0, source, target)
    expected = {
        "l1": F.l1_loss(fake, source if system == "nec" else target),
        "d_fake": sum(F.softplus(one).mean() for one in logits) / len(logits),
        "d_real": sum(F.softplus(-one).mean() for one in real_logits) / len(logits),
    }
    if system == "nec":
        expected["ngf"] = nec_ext.ngf_loss(fake, source, eps_mode="quadrature", operator="sobel")
    torch.testing.assert_close({name: losses[name] for name in expected}, expected)


def test_nec_waits_until_the_contrast_has_turned() -> None:
    changes = {"delay": "auto", "delay_steps": (0, 100), "ramp": 0.0, "lambda_ngf": 7, "steps": 9}
    learner, other = make_learner(**changes), make_learner(**changes)
    source, target = next(pairs())
    losses = learner.learn(0, source, target)
    assert -1 < losses["source_correlation"] < 1
    onset, weights = learner.system.onset, learner.system.weights
    expected = torch.lerp(torch.tensor(1.0), losses["source_correlation"], 0.02)
    torch.testing.assert_close(onset.correlation, expected)
    assert weights(1)["ngf"] == 0
    onset.correlation.fill_(-1.0)
    learner.learn(1, source, target)
    other.load(copy.deepcopy(learner.state()))
    assert (weights(1)["ngf"], weights(2)["ngf"], other.system.weights(2)["ngf"]) == (0, 7, 7)


@pytest.mark.parametrize(
    "changes",
    [
        {"discriminator_norm": "spectral"},
        {"discriminator_augment": "brightness+translation+cutout"},
    ],
    ids=str,
)
def test_options_of_the_discriminator_reach_it(changes: dict[str, str]) -> None:
    plain, learner = make_learner(), make_learner(**changes)
    before, losses = (one.learn(0, *next(pairs())) for one in (plain, learner))
    assert losses["d_real"] != before["d_real"]
    old, new = (weights(one.system.discriminators) for one in (plain, learner))
    assert all(not torch.equal(old[n], new[n]) for n in old.keys() & new if old[n].dim() > 1)


def test_cyclegans_cycles_and_identities() -> None:
    learner = make_learner("cyclegan")
    source, target = next(pairs())
    to_t2, to_t1 = (copy.deepcopy(learner.system.generators[n]) for n in ("target", "source"))
    losses = learner.learn(0, source, target)
    cycle = F.l1_loss(to_t1(to_t2(source)), source) + F.l1_loss(to_t2(to_t1(target)), target)
    identity = F.l1_loss(to_t2(target), target) + F.l1_loss(to_t1(source), source)
    torch.testing.assert_close((losses["cycle"], losses["identity"]), (cycle, identity))


def test_coupled_adam_gives_the_discriminator_the_generators_gradient_too() -> None:
    """And R1, half the mean squared derivative of the sum of all logits, is part of it."""
    weighted = {"lambda_gan": 0.7, "lambda_discriminator": 1.0, "lambda_r1": 6.0}
    learner = make_learner(coupled_adam=True, **weighted)
    source, target = next(pairs())
    target.requires_grad_()
    discriminator = copy.deepcopy(learner.system.discriminators["target"])
    reals, fakes = map(discriminator, (target, learner.system.generator(source).detach()))
    (slope,) = torch.autograd.grad(sum(real.sum() for real in reals), target, create_graph=True)
    objective = 3 * slope.square().mean() + sum(
        F.softplus(-real).mean() + F.softplus(made).mean() + 0.7 * F.softplus(-made).mean()
        for real, made in zip(reals, fakes, strict=True)
    ) / len(fakes)
    expected = torch.autograd.grad(objective, list(discriminator.parameters()))
    learner.learn(0, source, target.detach())
    for weight, gradient in zip(learner.system.discriminators.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-6)


def test_rates_are_constant_and_then_fall_to_zero() -> None:
    learner = make_learner(lr_generator=1.0, lr_discriminator=0.1, steps=10, decay=0.4)
    rates = [learner.rate("generator", step) for step in range(10)]
    assert rates == pytest.approx([1.0] * 7 + [0.75, 0.5, 0.25])
    assert learner.rate("discriminator", 8) == pytest.approx(0.05)
    learner.learn(8, *next(pairs()))
    assert learner.optimizers["generator"].param_groups[0]["lr"] == pytest.approx(0.5)


def test_average_of_the_generator() -> None:
    learner = make_learner(ema=0.9)
    first, second = pairs(2)
    learner.learn(0, *first)
    expected = weights(learner.system.generator)  # the average starts with the first step
    learner.learn(1, *second)
    now = weights(learner.system.generator)
    for name, weight in learner.generator.named_parameters():
        torch.testing.assert_close(weight, 0.9 * expected[name] + 0.1 * now[name])


def test_cut_compares_features_of_a_generator_that_leaves_the_background() -> None:
    losses = make_learner("cut", output="head").learn(0, *next(pairs()))
    assert losses["nce"].isfinite()


@pytest.mark.parametrize("system", ["cut", "cyclegan"])
def test_a_learner_that_is_loaded_goes_on_as_the_one_that_was_saved(system: str) -> None:
    learner, other = (make_learner(system, ema=0.9, pool=3) for _ in range(2))
    (first, second, third), steps = pairs(3), []
    for step, pair in enumerate((first, second)):
        learner.learn(step, *pair)
    other.load(copy.deepcopy(learner.state()))
    for one in (learner, other):
        torch.rand(3)  # what else draws random numbers does not matter
        steps.append(one.learn(2, *third))
    assert_equal(*steps)
    assert_equal(learner.state(), other.state())


@covering(system=["nec", "cyclegan"], coupled=[True, False])
def test_accumulation_is_a_larger_batch(system: str, coupled: bool) -> None:
    pair = [half.double() for half in next(pairs())]
    found = []
    for changes in ({"batch": 2}, {"batch": 1, "accumulate": 2}):
        learner = make_learner(system, coupled_adam=coupled, **changes)
        learner.system.double()
        losses = learner.learn(0, *pair)
        gradients = [weight.grad for weight in learner.system.parameters()]
        found.append((losses, [gradient for gradient in gradients if gradient is not None]))
    (losses, whole), (same_losses, parts) = found
    torch.testing.assert_close(losses, same_losses, rtol=1e-9, atol=1e-12)
    assert len(whole) > 10
    torch.testing.assert_close(whole, parts, rtol=1e-6, atol=1e-9)


def test_checkpointing_keeps_less_for_the_same_gradients() -> None:
    source = random_volumes().source.t1[0][:, :16, :16, :8].double()[None]
    found, saved = [], []
    for checkpointing in (False, True):
        learner = make_learner(**VOLUMES, checkpointing=checkpointing, unet_channels=(4, 8, 16))
        generator = learner.generator.double()
        kept: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, kept=kept: kept.append(tensor) or tensor, lambda tensor: tensor
        ):
            fake = generator(source)
        saved.append(sum(tensor.nbytes for tensor in kept))
        fake.square().mean().backward()
        found.append([weight.grad for weight in generator.parameters()])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)
    assert saved[1] < 0.3 * saved[0]


def test_half_precision_only_inside_the_networks() -> None:
    half, plain = make_learner(amp="bf16"), make_learner()
    dtypes: set[torch.dtype] = set()
    half.generator.register_forward_hook(lambda *call: dtypes.add(call[2].dtype))
    for step, images in enumerate(pairs()):
        losses, expected = half.learn(step, *images), plain.learn(step, *images)
    assert dtypes == {torch.bfloat16}
    assert all(weight.dtype == torch.float32 for weight in half.system.parameters())
    assert losses["ngf"].dtype == torch.float32
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=0.1)
        assert loss != expected[name]


def test_an_overflow_in_fp16_changes_no_weight_but_the_scale() -> None:
    learner = make_learner(amp="fp16")
    learner.learn(0, *next(pairs()))
    before, scale = weights(learner.system), learner.scaler.get_scale()
    for weight in learner.system.parameters():
        weight.register_hook(lambda gradient: gradient * math.inf)
    learner.learn(1, *next(pairs()))
    assert_equal(weights(learner.system), before)
    assert learner.scaler.get_scale() == scale / 2
