# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The sdist is complete, and wheels work on their own, with and without the extension."""

import os
import shutil
import subprocess
import sys
import tarfile
from functools import partial
from pathlib import Path

import pytest
from helpers import ROOT

pytest.importorskip("build")
if not (ROOT / ".git").exists() or shutil.which("git") is None:
    pytest.skip("needs a git checkout", allow_module_level=True)

pytestmark = pytest.mark.slow

# What only a checkout has any use for.
NOT_IN_SDIST = (".editorconfig", ".github/", ".gitignore", ".pre-commit-config.yaml")
USE = """
import sys, torch, nec_ext
assert nec_ext.__file__.startswith(sys.argv[1]), nec_ext.__file__
assert nec_ext._C.__file__.startswith(sys.argv[1]), nec_ext._C.__file__
image, target = torch.rand(2, 1, 1, 8, 9, 10).unbind()
loss = nec_ext.ngf_loss(image.requires_grad_(), target)
torch.testing.assert_close(loss, nec_ext.reference.ngf_loss(image, target))
loss.backward()
print(nec_ext.__version__)
"""
USE_WITHOUT_EXTENSION = """
import sys, warnings, torch, nec_ext, nec_ext.distributed
assert nec_ext.__file__.startswith(sys.argv[1]), nec_ext.__file__
assert not hasattr(torch.ops.nec_ext, "ngf_forward")
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/group",
                                     rank=0, world_size=1)
input, target = torch.rand(2, 1, 1, 8, 9, 10, dtype=torch.float64).unbind()
input.requires_grad_()
options = {"eps": 0.3, "operator": "sobel", "mask": torch.rand(8, 9, 10), "weight": 1.7}
def step(function):
    loss = function(input, target, **options)
    return loss.detach(), torch.autograd.grad(-2.5 * loss, input)[0]
def tile_by_tile():
    gradient = torch.empty_like(target)
    loss = nec_ext.tiled.ngf_loss(input.detach(), target, tiles=3, grad_input=gradient, **options)
    return loss, -2.5 * gradient
expected = step(nec_ext.reference.ngf_loss)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    by_hand = nec_ext.ngf_loss_and_gradient(input, target, **options)
    found = [(by_hand[0], -2.5 * by_hand[1]), step(nec_ext.ngf_loss), tile_by_tile(),
             step(nec_ext.distributed.ngf_loss),
             step(lambda *images, mask, **given: nec_ext.NGFLoss(**given)(*images, mask=mask))]
torch.testing.assert_close(found, [expected] * 5)
print(*(warning.message for warning in caught))
print(nec_ext.build_info()["compiler"])
"""


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    result = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def source_files() -> list[str]:
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    return [name for name in listed.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in source_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    return source


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("dist")
    # torch's build looks for ninja on the path. The kernels have been compiled once already.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, cwd=source, PATH=path,
        NEC_EXT_CUDA="0")  # fmt: skip
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return {"sdist": sdist, "wheel": wheel}


def test_sdist_has_every_file(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as archive:
        packed = {member.name.partition("/")[2] for member in archive if member.isfile()}
    wanted = {name for name in source_files() if not name.startswith(NOT_IN_SDIST)}
    assert any(name.startswith("csrc/cuda/") and name.endswith(".cu") for name in wanted)
    assert wanted - packed == set()
    assert not [name for name in packed if name.endswith((".so", ".pyc"))]


def install(wheel: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Install a wheel; return its folder and another one, to start Python in."""
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", site, wheel,
        cwd=elsewhere)  # fmt: skip
    return site, elsewhere


def test_wheel_works_from_another_folder(built: dict[str, Path], tmp_path: Path) -> None:
    site, elsewhere = install(built["wheel"], tmp_path)
    version = run(sys.executable, "-c", USE, site, cwd=elsewhere, PYTHONPATH=str(site)).strip()
    assert f"nec_ext-{version}" in built["wheel"].name


def test_without_the_extension(source: Path, tmp_path: Path) -> None:
    """No compiler is asked for, the API is whole, and one warning tells what is missing."""
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path,
        cwd=source, NEC_EXT_BUILD="0", CXX="no-such-compiler")  # fmt: skip
    (wheel,) = tmp_path.glob("*-py3-none-any.whl")
    site, elsewhere = install(wheel, tmp_path)
    python = partial(run, sys.executable, cwd=elsewhere, PYTHONPATH=str(site))
    warnings, compiler = python("-c", USE_WITHOUT_EXTENSION, site).splitlines()
    assert warnings.count("takes its reference") == warnings.count("NEC_EXT_BUILD=0") == 1
    assert compiler == "None"
    report = python("-m", "nec_ext")
    assert "takes the reference: nec_ext was installed without its extension" in report
    assert report.endswith("ngf_loss takes its reference: no device here has kernels\n")
