# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Builds nec_ext._C and names the version. Everything else is declared in pyproject.toml.

Environment:
    CXX: the compiler, if it is not the c++ or g++ or clang++ on the path, or on Windows clang-cl.
    NEC_EXT_BUILD=0: leave the extension out; the package then computes by its reference, slowly.
    NEC_EXT_CUDA=0: leave the CUDA kernels out. FORCE_CUDA=1: build them beside a torch without CUDA
        too, and fail where no CUDA toolkit is found.
    CUDA_HOME: the toolkit, if it is not the one of the nvcc on the path or in /usr/local/cuda.
    TORCH_CUDA_ARCH_LIST: GPU architectures, as for every extension of torch. Default: those of the
        GPUs in this machine, or without any all that ARCHITECTURES lists.
    NEC_EXT_CXX_FLAGS: more compiler and linker flags (a sanitizer's, say).
"""

import os
import shlex
import shutil
import subprocess
import sys
import zlib
from glob import glob
from pathlib import Path

import setuptools

# Before torch, which takes seconds, and before pyproject.toml is read, which older ones cannot.
if int(setuptools.__version__.partition(".")[0]) < 77:
    sys.exit(
        f"nec_ext is built by setuptools 77 or later, and this is {setuptools.__version__}: "
        'type  pip install "setuptools>=77"  and try again'
    )

try:
    import torch
except ModuleNotFoundError:
    sys.exit("nec_ext is built against torch, and there is none here: type  pip install torch")
if torch.__version__ < (2, 10):
    sys.exit(f"nec_ext needs torch 2.10 or later, and this is {torch.__version__}")

from torch.utils import cpp_extension
from torch.utils.cpp_extension import BuildExtension, CppExtension

WINDOWS = sys.platform == "win32"
VERSION = "0.2.0"  # the next one that is released, or the one of this commit's tag
ROOT = Path(__file__).resolve().parent
# Errno and traps for square roots would keep the compiler from vectorizing the loops. -ffast-math,
# which would also do, lets it drop NaNs, and is never used.
FLAGS = [
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",  # clang would fuse a product and a sum within one statement only
    "-fopenmp-simd",
    "-fvisibility=hidden",
    "-g0",
]
# A loop that copies a short row is faster than the call of memcpy that gcc would make of it.
GCC_FLAGS = ["-fno-tree-loop-distribute-patterns"]
# Whole AVX-512 vectors, where gcc's pragma says so for itself.
CLANG_X86_FLAGS = ["-mprefer-vector-width=512"]
# The host's part of the kernels only launches them. Several architectures are compiled at a time.
NVCC_FLAGS = ["-O3", "-Xcompiler=-fvisibility=hidden", "--threads=4"]
# For one architecture on one core.
MINUTES = 2
# The first of every generation since Turing, and for whatever comes, the last as PTX.
ARCHITECTURES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")
# The stable ABI of torch 2.10: a library built with any later torch runs with every torch from
# there on.
TORCH_2_10 = "-DTORCH_TARGET_VERSION=0x020a000000000000"
WITHOUT_COMPILER = "a wheel needs none, and NEC_EXT_BUILD=0 installs the slow reference alone"
EXTRA = os.environ.get("NEC_EXT_CXX_FLAGS", "").split()


def git(*arguments: str) -> str:
    """Run git in this folder and return its output; "" where there is no git or it refuses."""
    try:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def find_version() -> str:
    """Find the version: 0.2.0.dev41+g0123abc[.dirty] in a checkout, 0.2.0 at its tag.

    An sdist has its version in PKG-INFO.
    """
    if (ROOT / "PKG-INFO").exists():
        lines = (ROOT / "PKG-INFO").read_text(encoding="utf-8").splitlines()
        return next(line.split()[1] for line in lines if line.startswith("Version:"))
    # Another project's repository may hold this folder, and its commits say nothing of it.
    top = git("rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != ROOT:
        return f"{VERSION}.dev0"
    dirty = ".dirty" if git("status", "--porcelain", "--untracked-files=no") else ""
    if not dirty and f"v{VERSION}" in git("tag", "--points-at", "HEAD").split():
        return VERSION
    commit = git("rev-parse", "--short", "HEAD")
    if not commit:  # nothing is committed yet
        return f"{VERSION}.dev0"
    return f"{VERSION}.dev{git('rev-list', '--count', 'HEAD')}+g{commit}{dirty}"


def find_compiler() -> tuple[str, list[str]]:
    """Find the C++ compiler; return it with the flags that it knows."""
    wanted = os.environ.get("CXX")
    if WINDOWS:
        if not shutil.which(wanted or "clang-cl"):
            sys.exit(
                f"on Windows nec_ext is compiled by clang-cl, and {wanted or 'clang-cl'} is not on "
                "the path: add C++ Clang tools to Visual Studio's C++ tools, and start in its "
                f"command prompt; {WITHOUT_COMPILER}"
            )
        return wanted or "clang-cl", [f"/clang:{flag}" for flag in (*FLAGS, *CLANG_X86_FLAGS)]
    for compiler in [wanted] if wanted else ["c++", "g++", "clang++"]:
        command = [*shlex.split(compiler), "-dM", "-E", "-x", "c++", os.devnull]
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        macros = {line.split()[1] for line in result.stdout.splitlines()}
        if "__clang__" not in macros:
            return compiler, [*FLAGS, *GCC_FLAGS]
        return compiler, [*FLAGS, *CLANG_X86_FLAGS * ("__x86_64__" in macros)]
    sys.exit(
        f"nec_ext needs a C++ compiler, and {wanted or 'c++, g++ or clang++'} cannot be run: "
        "install one (apt install g++, dnf install gcc-c++, conda install cxx-compiler, "
        f"xcode-select --install), or set CXX to the one that you have; {WITHOUT_COMPILER}"
    )


def find_toolkit() -> str | None:
    """Find the CUDA toolkit; None where there is none or the kernels are not wanted."""
    forced = os.environ.get("FORCE_CUDA") == "1"
    if os.environ.get("NEC_EXT_CUDA") == "0" or torch.version.hip or WINDOWS:
        return None
    if not torch.version.cuda and not forced:
        return None
    chosen = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = os.path.realpath(shutil.which("nvcc") or "nvcc")
    homes = [chosen] if chosen else [os.path.dirname(os.path.dirname(nvcc)), "/usr/local/cuda"]
    for home in homes:
        # An nvcc without headers is a script that calls one elsewhere.
        headers = (f"{home}/include/cuda_runtime.h", f"{home}/targets/*/include/cuda_runtime.h")
        if os.path.exists(f"{home}/bin/nvcc") and any(map(glob, headers)):
            return home
    if forced:
        sys.exit(
            f"FORCE_CUDA=1, but there is no CUDA toolkit in {' or '.join(homes)}: set CUDA_HOME"
        )
    return None


def ask_nvcc(toolkit: str, option: str) -> str:
    """Return the answer of nvcc to a question about itself."""
    command = [f"{toolkit}/bin/nvcc", option]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def choose_architectures(toolkit: str) -> str:
    """Choose the GPU architectures, written as in TORCH_CUDA_ARCH_LIST."""
    if chosen := os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return chosen
    known = ask_nvcc(toolkit, "--list-gpu-code").split()
    gpus = {torch.cuda.get_device_capability(k) for k in range(torch.cuda.device_count())}
    for wanted in ([f"{major}.{minor}" for major, minor in sorted(gpus)], ARCHITECTURES):
        if chosen := [name for name in wanted if f"sm_{name.replace('.', '')}" in known]:
            return f"{' '.join(chosen)}+PTX"
    sys.exit(f"the nvcc of {toolkit} knows no GPU of {', '.join(ARCHITECTURES)}")


def generate_code(architectures: str) -> list[str]:
    """Return nvcc's flags for a list of architectures, in at most three passes of its front end.

    It would take one per architecture otherwise, half of the time of the build. The source differs
    from 8.0 and from 9.0 on alone (csrc/cuda/device.cuh); machine code is made for each.
    """
    names = architectures.removesuffix("+PTX").split()
    flags = []
    for low, high in ((0, 8), (8, 9), (9, 100)):
        if group := [name for name in names if low <= float(name) < high]:
            codes = [f"sm_{name.replace('.', '')}" for name in group]
            virtual = codes[0].replace("sm", "compute")
            codes += [virtual] * (group[-1] == names[-1])  # PTX for the GPUs to come
            flags.append(f"-gencode=arch={virtual},code=[{','.join(codes)}]")
    return flags


def choose_nvcc_flags(toolkit: str, architectures: str) -> list[str]:
    """Return the flags of every toolkit, and what the toolkit at hand needs."""
    # A sixth of the size. Drivers before CUDA 12.4 cannot read it, and those of 13 all can.
    compress = "release 12" not in ask_nvcc(toolkit, "--version")
    # ninja is told of the headers of .cu files only by a torch with CUDA: beside any other, a
    # change of theirs must be one of the command.
    headers = sorted(glob("csrc/cuda/*.*[hl]") + glob("csrc/math/*") + glob("csrc/*.h"))
    digest = zlib.crc32(b"".join(Path(header).read_bytes() for header in headers))
    flags = [*NVCC_FLAGS, *["--compress-mode=size"] * compress, f"-DNEC_EXT_HEADERS={digest}"]
    if not os.environ.get("TORCH_CUDA_ARCH_LIST"):  # whose names torch knows
        flags += generate_code(architectures)
    return flags


def add_cuda(extension: CppExtension, toolkit: str) -> None:
    """Add the kernels to the extension, which still loads under a torch without CUDA."""
    architectures = choose_architectures(toolkit)
    # torch reads these, and looks for a toolkit and architectures only where it has CUDA itself.
    cpp_extension.CUDA_HOME = toolkit
    extension.extra_compile_args["nvcc"] = choose_nvcc_flags(toolkit, architectures)
    os.environ["TORCH_CUDA_ARCH_LIST"] = architectures
    extension.sources += sorted(glob("csrc/cuda/*.cu"))
    shown = architectures.replace(";", " ")
    extension.define_macros.append(("NEC_EXT_CUDA_ARCHITECTURES", f'"{shown}"'))
    for folder in ("lib*", "targets/*/lib"):
        found = glob(f"{toolkit}/{folder}/libcudart_static.a")
        extension.library_dirs += [os.path.dirname(library) for library in found]
    extension.libraries += ["cudart_static", "rt", "pthread", "dl"]


class Build(BuildExtension):
    """Chooses compiler and flags, and says what takes long: pip reads this file more than once."""

    def __init__(self, *args, **options):
        # torch's build falls back by itself, with two lines about itself. On Windows its ninja
        # knows no compiler but cl, which has no vector types.
        use_ninja = cpp_extension.is_ninja_available() and not WINDOWS
        super().__init__(*args, **options, use_ninja=use_ninja)

    def run(self):
        """Build the extension."""
        # torch and setuptools each have their own default.
        os.environ["CXX"], flags = find_compiler()
        for extension in self.extensions:
            extension.extra_compile_args["cxx"] = [*flags, TORCH_2_10, *EXTRA]
        if not self.use_ninja and not WINDOWS:
            print("nec_ext: one file is compiled at a time; faster after  pip install ninja")
        if toolkit:
            architectures = os.environ["TORCH_CUDA_ARCH_LIST"]
            minutes = MINUTES * len(architectures.replace(";", " ").split()) / (os.cpu_count() or 1)
            print(
                f"nec_ext: compiling the CUDA kernels for {architectures} with {toolkit}, which "
                f"takes about {max(1, round(minutes))} min; NEC_EXT_CUDA=0 leaves them out"
            )
        sys.stdout.flush()
        super().run()

    def build_extensions(self):
        """Build it, on Windows with Visual Studio's headers and linker and its other compiler."""
        if WINDOWS:
            self.compiler.initialize()
            self.compiler.cc = os.environ["CXX"]
        super().build_extensions()


is_built = os.environ.get("NEC_EXT_BUILD") != "0"
toolkit = find_toolkit() if is_built else None
sources = set(glob("csrc/**/*.cpp", recursive=True))
extension = CppExtension(
    "nec_ext._C",
    sorted(sources if toolkit else sources - {"csrc/ops/ngf_cuda.cpp"}),
    depends=sorted(set(glob("csrc/**/*.*", recursive=True)) - sources),
    extra_compile_args={},
    extra_link_args=EXTRA,
)
# The stable ABI needs no symbol of torch's Python binding.
extension.libraries = [name for name in extension.libraries if name != "torch_python"]
if toolkit:
    # CUDAExtension would refuse a torch without CUDA.
    add_cuda(extension, toolkit)

setuptools.setup(
    version=find_version(),
    ext_modules=[extension] if is_built else [],
    cmdclass={"build_ext": Build},
)
