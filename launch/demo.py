"""Runs the whole job on scans it makes up: records, training, Table 1, a report.

    python -m launch.demo --output=demo_output
    python -m launch.demo --output=longer --config.train.steps=2000

This is what `make demo` runs. It prints each command before running it; a second run
continues with what is there. The scans are phantoms, the networks small and trained for
minutes: the numbers show that every stage works and say nothing about real scans.
"""

import json
import shlex
import time
from pathlib import Path

import numpy as np

from attunet_jax.errors import BadArguments
from attunet_jax.files import make_folder
from attunet_jax.volume import read_labels
from launch import cli
from launch.child import python, run_program
from launch.devices import check_devices

FLAGS = cli.Flags(__doc__, config="demo")
FLAGS.add("output", Path, Path("demo_output"), "Folder for everything the demo makes.")
FLAGS.add("cases", int, 40, "Phantoms to make.")

ORGANS = {"spleen": 1, "pancreas": 2, "kidney": 3}  # in the phantoms' label maps
SPLIT = "80_20"
ABOUT = (
    "Phantoms, not patients; a small network, minutes of training: these numbers show "
    "that every stage works, nothing about accuracy on real scans."
)


def main(values: cli.Values) -> None:
    if values.cases < 10:
        raise BadArguments(f"--cases={values.cases}: a table needs at least 10")
    output = values.output
    check_devices()
    make_folder(output)
    start_s = time.perf_counter()
    scans, data, runs = output / "scans", output / "data", output / "runs"
    _run("data_prep.phantom", output=scans, cases=values.cases, seed=1)
    _run(
        "data_prep.prepare",
        source="nifti",
        input=scans,
        output=data,
        labels=",".join(f"{organ}={value}" for organ, value in ORGANS.items()),
        spacing_mm=4,
        test_fraction=0.2,
    )
    _run(
        "launch.tables",
        *values.config_words(),
        table=1,
        data=data,
        workdir=runs,
        splits=SPLIT,
        paper="false",  # its numbers on patients are not comparable with phantoms
        about=ABOUT,
        label_maps="true",  # for the report's pictures of the worst cases
    )
    trained = runs / SPLIT / "attention_unet"
    splits = json.loads((data / "splits.json").read_text(encoding="utf-8"))["splits"]
    scan = f"{splits[SPLIT]['test'][0]}.nii.gz"
    predictions = output / "predictions"
    _run(
        "launch.predict",
        workdir=trained,
        input=scans / "images" / scan,
        output=predictions,
        attention="true",
        overwrite="true",
    )
    figures, unet = output / "figures", runs / SPLIT / "unet"
    _run("launch.figures", workdir=trained, data=data, against=unet, output=figures)
    print(f"\nA test case, {scan}:")
    print(_volumes_text(scans / "labels" / scan, predictions / scan))
    minutes = (time.perf_counter() - start_s) / 60
    pictures = ", ".join(str(p) for p in sorted(trained.glob("evaluation/test/*.png")))
    print(f"\nAttention against none: {_difference_text(unet, trained)}")
    attention = sorted(figures.glob("*.png"))
    print(
        f"\nDone in {minutes:.1f} minutes. {ABOUT}\n"
        f"report    {runs / 'table1.html'} (open it in a browser)\n"
        f"table     {runs / 'table1.md'}\n"
        f"pictures  {pictures}\n"
        f"          {trained / 'progress.png'} (learning curve)\n"
        f"attention {', '.join(map(str, attention))}\n"
        f"label map {predictions / scan} (on the scan's own grid)\n"
        "next      your own scans: see 'Train on your own scans' in README.md"
    )


def _run(module: str, *more: str, **options: object) -> None:
    """Runs a program of the project; ends with its status where it fails."""
    words = [f"--{name}={value}" for name, value in options.items()] + list(more)
    print(f"\n$ python -m {module} {shlex.join(words)}", flush=True)
    run_program([*python(module), *words])


def _difference_text(*runs: Path) -> str:
    """Returns what the test cases support of a difference between the runs' Dice."""
    from attunet_jax.evaluate.evaluations import read_evaluation  # late: SciPy
    from attunet_jax.evaluate.page.headline import difference_text
    from attunet_jax.evaluate.statistics.comparison import compare_networks

    networks = {run.name: read_evaluation(run).rows for run in runs}
    metrics = ["dice"]
    return difference_text(
        compare_networks(networks, organs=list(ORGANS), metrics=metrics)
    )


def _volumes_text(truth: Path, prediction: Path) -> str:
    """Returns a line for each organ with its true and its predicted volume in ml."""
    names = json.loads((prediction.parent / "labels.json").read_text(encoding="utf-8"))
    outputs = {organ: int(value) for value, organ in names.items()}
    true_ml = _volumes_ml(truth, ORGANS)
    predicted_ml = _volumes_ml(prediction, outputs)
    return "\n".join(
        f"  {organ:9} {ml:6.0f} ml true, {predicted_ml[organ]:6.0f} ml predicted"
        for organ, ml in true_ml.items()
        if organ in predicted_ml
    )


def _volumes_ml(label_map: Path, values: dict[str, int]) -> dict[str, float]:
    volume = read_labels(label_map)
    voxel_ml = float(np.prod(volume.spacing_mm)) / 1000
    counts = np.bincount(volume.voxels.ravel(), minlength=max(values.values()) + 1)
    return {organ: float(counts[value]) * voxel_ml for organ, value in values.items()}


if __name__ == "__main__":
    cli.run(FLAGS, main)
