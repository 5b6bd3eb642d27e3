r"""Segments scans with a trained network; writes label maps on the scans' own grids.

    python -m launch.predict --workdir=RUN --input=scan.nii.gz --output=DIR
    python -m launch.predict --workdir=RUN --input=DICOM_SERIES --output=DIR
    python -m launch.predict --workdir=RUN --input=FOLDER --output=DIR --pictures \
        --config.predict.checkpoint=latest --config.predict.average_flips=True

--input is a NIfTI file, the folder of a DICOM series, or a folder with NIfTI files and
folders of DICOM series below it. DIR gets NAME.nii.gz for each scan, with the scan's
shape and affine (for DICOM those that dcm2niix writes) and the values of
DIR/labels.json. Files that already exist are kept unless --overwrite is given. A scan
that cannot be read is named, the others are segmented, and the exit status is 3. Any
--config.predict field can be changed.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from attunet_jax import volume as volumes
from attunet_jax.errors import BadArguments, BadData, one_line
from attunet_jax.files import make_folder, write_text
from attunet_jax.volume.scan import find_scans
from launch import cli

FLAGS = cli.Flags(__doc__, config="base", group="predict.")
FLAGS.add("workdir", Path, None, "Folder of a trained run.", required=True)
FLAGS.add(
    "input",
    Path,
    None,
    "A NIfTI file, a DICOM series, or a folder of them.",
    required=True,
)
FLAGS.add(
    "series",
    str,
    None,
    "UID of the series to take where the folder --input holds several.",
)
FLAGS.add("output", Path, None, "Folder for the label maps.", required=True)
FLAGS.add("overwrite", bool, False, "Replace label maps that already exist.")
FLAGS.add("pictures", bool, False, "Also write a PNG of each scan with outlines.")


def main(values: cli.Values) -> int:
    scans = find_scans(values.input)
    if values.series and len(scans) > 1:
        raise BadArguments(
            "--series needs the one folder that holds this series as --input"
        )
    output = values.output

    from attunet_jax.predict.predictor import load_predictor  # late: imports jax

    predictor = load_predictor(values.workdir, values.predict_fields())
    make_folder(output)
    labels = dict(enumerate(predictor.classes))
    write_text(output / "labels.json", json.dumps(labels, indent=2) + "\n")
    failed = []
    for number, (name, scan) in enumerate(scans.items(), start=1):
        target = output / f"{name}.nii.gz"
        if target.exists() and not values.overwrite:
            print(f"[{number}/{len(scans)}] {target} already exists", flush=True)
            continue
        try:
            start_s = time.perf_counter()
            volume = volumes.read_scan(scan, values.series)
            if unlike := predictor.unlike_training(volume):
                print(
                    f"note: {scan}: not the values of training: {unlike}; is the scan "
                    "in HU?",
                    file=sys.stderr,
                    flush=True,
                )
            volumes_ml = _predict(predictor, volume, target, values.pictures)
        except BadData as error:
            failed.append(scan)
            print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
            continue
        found = "  ".join(f"{name} {ml:.0f} ml" for name, ml in volumes_ml.items())
        print(
            f"[{number}/{len(scans)}] {target}  {found}  "
            f"{time.perf_counter() - start_s:.1f} s",
            flush=True,
        )
    if failed:
        raise BadData(
            f"{len(failed)} of {len(scans)} scans could not be segmented, see above: "
            + ", ".join(map(str, failed))
        )
    return 0


def _predict(
    predictor: Any, volume: volumes.Volume, target: Path, picture: bool
) -> dict[str, float]:
    """Writes the label map of one scan; returns the volume of each organ in ml."""
    prediction = predictor.label_map(volume)
    volumes.write_on_grid(target, prediction, volume.grid)
    if picture:
        from attunet_jax.evaluate.pictures import overlay_png

        name = target.name.removesuffix(".nii.gz")
        overlay_png(
            target.with_name(f"{name}.png"),
            volume.voxels,
            None,
            prediction,
            volume.spacing_mm,
            {name: value for value, name in enumerate(predictor.classes) if value},
            name,
        )
    voxel_ml = float(np.prod(volume.spacing_mm)) / 1000
    return {
        name: float((prediction == value).sum()) * voxel_ml
        for value, name in enumerate(predictor.classes)
        if value
    }


if __name__ == "__main__":
    cli.run(FLAGS, main)
