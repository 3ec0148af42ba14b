# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The sdist is complete, a wheel can be built from it, and the wheel works on its own."""

import os
import shutil
import subprocess
import sys
import tarfile
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
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in source_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
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


def test_wheel_works_from_another_folder(built: dict[str, Path], tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", site,
        built["wheel"], cwd=elsewhere)  # fmt: skip
    version = run(sys.executable, "-c", USE, site, cwd=elsewhere, PYTHONPATH=str(site)).strip()
    assert f"nec_ext-{version}" in built["wheel"].name
