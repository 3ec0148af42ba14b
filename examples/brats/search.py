# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Search for the settings of a system on real slices, by the validation subjects alone.

    python -m examples.brats.search --list
    python -m examples.brats.search --data data --split split.json --only "delay auto"
    python -m examples.brats.search --page examples/brats/results/search

The command trains one setting on one core, or goes on with it after an interruption. It adds a line
to ``log.csv`` in the output folder: the options that the setting changes, what the training cost,
and the metrics at the best validation. ``curves`` gets a file with every validation. The test
subjects play no part. Commands for several settings can run side by side. ``--page``
writes a page and a figure from a folder that has log, curves and ``predictions.csv``: what was
expected of each setting, before it was trained.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from nec_ext._console import run_command

from ..common.commands import exit_code, make_parser
from .data.images import load_data
from .report.metrics import METRICS, free_predictions, score, summary
from .report.search import draw_curves, read_csv, tables
from .report.tables import TRAINING_ONLY
from .train.records import read_facts
from .train.runs import Run, make_run, slug, train_all
from .values import as_text

PRESET = "cpu-brats"
SHOWN = tuple(name for name in METRICS if name != "tumour_ratio")  # which needs labels
CURVE = "step", "images", "source_correlation", "ngf_weight", *SHOWN
COLUMNS = (
    *("name", "seed", "system", "options", "images", "subjects"),
    *("step", "seen", "minutes", "onset", "best_step", *SHOWN, "last_psnr"),
)
# Half precision, because a search on a CPU that has it takes a third less of the time.
STEPS: dict[str, object] = {"log_every": 100, "amp": "bf16"}
# Each name has a system and the options that it changes, beside those of STEPS.
SETTINGS: dict[str, tuple[str, dict[str, object]]] = {
    "NEC": ("nec", {}),
    "Pix2Pix": ("pix2pix", {}),
    "CycleGAN": ("cyclegan", {}),
    "CUT": ("cut", {}),
    "GAN alone": ("nec", {"lambda_ngf": 0}),
    # The settings before this start: without a bound of the output, and with a delay.
    "no bound": ("nec", {"output": "none"}),
    "translation and cutout": ("nec", {"discriminator_augment": "translation+cutout"}),
    "delay auto": ("nec", {"warmup": 0, "delay": "auto", "ramp": 0.1, "output": "none"}),
    "delay 0.13": ("nec", {"warmup": 0, "delay": 0.13, "ramp": 0.1, "output": "none"}),
}

PAGE = """\
# What NEC needs on real slices: a search on the validation subjects

Each run is a training with the preset `{preset}`, `{steps}` and the changes that its row names:
a name of `python -m examples.brats.search --list`, or options of `options.py`. "NEC" is the preset
with which the search ended. The runs with a delay or an abrupt warm-up came before it, with
`output=none`. An abrupt warm-up is one whose L1 term had a weight of 100 and ended at once after
5 % of the steps, in which the discriminator took negatives for real. What was expected of a
setting, and why, was written down before its run. All metrics are means over the images of the ten
validation subjects, at the validation with the best SSIM, by which a run is chosen.
[The results](../brats/README.md) define them.

{expected}

![PSNR over images and subjects](curves.png)

Left: all validations of single runs, seed 0. Right: the best validation over the number of subjects
that give T1, and of others that give T2, with an abrupt warm-up.

{runs}

"At the end" is PSNR after the last step, "loss from step" the step from which the NGF loss acts.

`python -m examples.brats.search --page FOLDER` writes this page from `log.csv`, `curves` and
`predictions.csv`.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 0, 1 with one sentence on an error, 130 if interrupted."""
    parser = make_parser("brats.search", __doc__)
    parser.add_argument("values", nargs="*", metavar="KEY=VALUE", help="further options")
    parser.add_argument("--list", action="store_true", help="print the settings, and train nothing")
    parser.add_argument("--data", help="folder of the files of all subjects")
    parser.add_argument("--split", help="JSON file of the subjects' groups")
    parser.add_argument("--only", metavar="NAME", default="NEC", help="the setting; default: NEC")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/search"))
    parser.add_argument("--page", type=Path, metavar="FOLDER", help="write a page of the log there")
    parsed = parser.parse_intermixed_args(arguments)
    if parsed.page:
        return exit_code(lambda: write_page(parsed.page))
    return exit_code(lambda: _list() if parsed.list else _search(parsed))


def _list() -> None:
    for name, (system, changes) in SETTINGS.items():
        print(f"{name}: {system} {as_words(changes)}".rstrip())


def _search(parsed: argparse.Namespace) -> None:
    name, out = parsed.only, parsed.out
    if name not in SETTINGS:
        raise ValueError(f"there is no setting {name!r}: --list names them all")
    if bad := [value for value in parsed.values if "=" not in value]:
        raise ValueError(f"options are given as key=value, got {bad[0]!r}")
    system, changes = SETTINGS[name]
    values: dict[str, object] = dict(value.split("=", 1) for value in parsed.values)
    places = {"data.data": parsed.data, "data.split": parsed.split}
    given = {key: value for key, value in places.items() if value}
    changes = {**changes, **values}
    label = " ".join([name, *parsed.values])
    run = make_run(label, system, PRESET, parsed.seed, out / "runs", STEPS, given, changes)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the training
    train_all([run], 1)
    curve = read_curve(run)
    path = out / "curves" / f"{run.options.folder.name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    _add(path, CURVE, [row for row in curve if row["ssim"]], fresh=True)
    log = out / "log.csv"
    logged = read_csv(log) if log.exists() else []
    known = {(row["name"], row["seed"]) for row in logged}
    rows = [*baselines(run), result(run, as_words(changes), curve)]
    _add(log, COLUMNS, [row for row in rows if (row["name"], str(row["seed"])) not in known])
    print(f"written: {log} and {path}")


def as_words(changes: Mapping[str, object]) -> str:
    return " ".join(f"{key}={as_text(value)}" for key, value in changes.items())


def read_curve(run: Run) -> list[dict[str, str]]:
    """Read the lines of a run, those of its validations among them."""
    return read_csv(run.options.folder / "metrics.csv")


def result(run: Run, changes: str, curve: list[dict[str, str]]) -> dict[str, object]:
    """Sum up a finished run in a line: its costs, and its metrics at the best validation."""
    facts = read_facts(run.options.folder)
    data = load_data(run.options.data)
    images = data.pairs if run.options.system == "pix2pix" else data.source
    best = next(row for row in curve if row["step"] == str(facts["best_step"]))
    waiting = [k for k, row in enumerate(curve) if not float(row.get("ngf_weight") or 0)]
    since = curve[waiting[-1] + 1 :] if waiting else curve  # the lines since the loss acts for good
    return {
        **{"name": run.name, "seed": run.options.seed, "system": run.options.system},
        **{"options": changes, "images": len(images), "subjects": len(set(images.subjects))},
        **{"step": facts["step"], "seen": curve[-1]["images"]},
        "minutes": round(facts["seconds"] / 60, 1),
        "onset": since[0]["step"] if since else "",
        "best_step": facts["best_step"],
        **{metric: best[metric] for metric in SHOWN},
        "last_psnr": curve[-1]["psnr"],
    }


def baselines(run: Run) -> list[dict[str, object]]:
    """Score on the validation images what needs no training, from all training subjects."""
    everyone = replace(run.options.data, **TRAINING_ONLY)
    data = load_data(everyone)
    rows = []
    for name, fake in free_predictions(data.pairs, data.validation).items():
        means = summary(score(fake, data.validation, run.options.metrics))
        row = {"name": f"{name}, {everyone.size} pixels", "seed": ""}
        rows.append({**row, **{key: means[key].mean for key in SHOWN if key in means}})
    return rows


def write_page(folder: Path) -> None:
    """Write the page and the figure of the log, the curves and the predictions in a folder."""
    log, predictions = (read_csv(folder / name) for name in ("log.csv", "predictions.csv"))
    first = {line["name"] for line in log if line["seed"] == "0"}
    files = {name: folder / "curves" / f"{slug(name)}-0.csv" for name in first}
    draw_curves(folder / "curves.png", log, {name: read_csv(files[name]) for name in first})
    expected, runs = tables(log, predictions)
    page = PAGE.format(preset=PRESET, steps=as_words(STEPS), expected=expected, runs=runs)
    (folder / "README.md").write_text(page, "utf-8")
    print(f"written: {folder}/README.md and curves.png")


def _add(
    path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, object]], fresh: bool = False
) -> None:
    """Add lines to a CSV file, with numbers to five digits."""
    names = list(columns)
    new = fresh or not path.exists()
    with path.open("w" if fresh else "a", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerows({key: _short(value) for key, value in row.items()} for row in rows)


def _short(value: object) -> object:
    try:
        return f"{float(str(value)):.5g}" if "." in str(value) else value
    except ValueError:
        return value


if __name__ == "__main__":
    run_command(main)
