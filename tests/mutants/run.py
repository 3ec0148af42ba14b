# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Plants one mistake after the other and runs the tests that must see it.

Usage: ``python tests/mutants/run.py [--only TEXT] [--out FILE]``. The mistakes are in the ``.toml``
files beside this one. Each is planted in a copy of the sources, in which what it needs is built
again. The page that is written names the tests that failed. At least two test files must see a
mistake, and one in ``csrc/cuda``: ``test_cuda.cpp`` alone runs the kernels without a GPU.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
TIMEOUT = 900  # seconds; a mistake may make a test wait for ever
OPTIONS = ("-x", "-q", "--tb=no", "-rf", "-m", "not slow")
FAILED = 1  # pytest's exit code where tests failed; others tell of errors before them


class Mutant(NamedTuple):
    """A line of a file, the line that a careless change makes of it, and who must notice."""

    file: str
    line: str
    becomes: str
    reason: str
    tests: tuple[str, ...]

    @property
    def needed(self) -> int:
        return 1 if self.file.startswith("csrc/cuda/") else 2


def load() -> list[Mutant]:
    return [
        Mutant(file, entry["line"], entry["becomes"], entry["reason"], tuple(entry["tests"]))
        for path in sorted(FOLDER.glob("*.toml"))
        for file, entries in tomllib.loads(path.read_text("utf-8")).items()
        for entry in entries
    ]


def planted(mutant: Mutant, text: str) -> str:
    """Return a file's text with the mistake; ValueError unless its line occurs exactly once."""
    lines = text.split("\n")
    if lines.count(mutant.line) != 1:
        raise ValueError(f"{mutant.file} has {lines.count(mutant.line)} lines {mutant.line!r}")
    lines[lines.index(mutant.line)] = mutant.becomes
    return "\n".join(lines)


class Tree:
    """A copy of the sources with its own builds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._built: set[str] = set()  # the kinds of build that fit the sources
        shutil.rmtree(folder, ignore_errors=True)
        names = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(names, cwd=ROOT, capture_output=True, text=True, check=True)
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)

    def killers(self, mutant: Mutant) -> list[str]:
        """Plant a mistake, run its tests and return the names of those that failed."""
        path = self._folder / mutant.file
        right = path.read_text("utf-8")
        self._write(path, planted(mutant, right))
        try:
            return [name for test in mutant.tests if (name := self._first_failure(test))]
        finally:
            self._write(path, right)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, "utf-8")
        if path.suffix != ".py":
            self._built.clear()

    def _build(self, test: str) -> None:
        """Build what a test runs; CalledProcessError if it does not compile."""
        target = Path(test).stem if test.endswith(".cpp") else "extension"
        if target in self._built:
            return
        if target == "extension":
            self._run(sys.executable, "setup.py", "-q", "build_ext", "--inplace", check=True)
        else:
            self._run("cmake", "-S", ".", "-B", "build-cpp", "-G", "Ninja", check=True)
            self._run("cmake", "--build", "build-cpp", "--target", target, check=True)
        self._built.add(target)

    def _first_failure(self, test: str) -> str | None:
        self._build(test)
        ctest = ["ctest", "--test-dir", "build-cpp", "--stop-on-failure", "-R", Path(test).stem]
        pytest = [sys.executable, "-m", "pytest", *OPTIONS, test]
        try:
            result = self._run(*(ctest if test.endswith(".cpp") else pytest))
        except subprocess.TimeoutExpired:
            return f"{test} (without end)"
        if test.endswith(".cpp"):
            return test if result.returncode else None
        failed = re.search(r"^FAILED (.*?)(?: - .*)?$", result.stdout, re.MULTILINE)
        return failed[1] if failed and result.returncode == FAILED else None

    def _run(self, *command: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "NEC_EXT_CUDA": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        how: dict[str, Any] = {"cwd": self._folder, "env": environment, "timeout": TIMEOUT}
        return subprocess.run(command, **how, capture_output=True, text=True, check=check)


def page(mutants: list[Mutant], killers: list[list[str]]) -> str:
    dead = sum(len(names) >= m.needed for m, names in zip(mutants, killers, strict=True))
    lines = [
        "# Mutants",
        "",
        f"`make mutants`: {dead} of {len(mutants)} planted mistakes are seen by tests of at least "
        "two files, or in `csrc/cuda` by `test_cuda.cpp`, which runs the kernels without a GPU.",
        "",
        "| file | mistake | tests that see it |",
        "|---|---|---|",
    ]
    for mutant, names in zip(mutants, killers, strict=True):
        seen = "<br>".join(f"`{name}`" for name in names) or "**none**"
        lines.append(f"| `{mutant.file}` | {mutant.reason} | {seen} |".replace("\n", " "))
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the mutants; return exit code 1 if tests of too few files see one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="mutants of files whose names have this text")
    parser.add_argument("--out", type=Path, help="the page to write")
    parser.add_argument("--tree", type=Path, default=ROOT / "out/mutants", help="the copy")
    options = parser.parse_args()
    mutants = [mutant for mutant in load() if options.only in mutant.file]
    start, missed = time.monotonic(), 0

    def judge(mutant: Mutant, tree: Tree) -> list[str]:
        nonlocal missed
        names = tree.killers(mutant)
        seen = len(names) >= mutant.needed
        missed += not seen
        minutes = (time.monotonic() - start) / 60
        judged = "seen" if seen else f"SEEN BY FEWER THAN {mutant.needed}"
        print(f"{minutes:.0f} min: {judged}: {mutant.reason}", flush=True)
        return names

    def run(part: str, is_compiled: bool) -> list[list[str]]:
        chosen = [m for m in mutants if m.file.startswith("csrc/") == is_compiled]
        tree = Tree(options.tree / part)
        return [judge(mutant, tree) for mutant in chosen]

    # Two copies side by side; the C++ files are compiled in one of them alone.
    with ThreadPoolExecutor(2) as pool:
        parts = pool.map(run, ("compiled", "python"), (True, False))
        killers = [names for part in parts for names in part]
    mutants.sort(key=lambda mutant: not mutant.file.startswith("csrc/"))
    if options.out:
        options.out.write_text(page(mutants, killers), "utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
