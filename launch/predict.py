"""Segments scans with a trained network: label maps on each scan's own grid.

    python -m launch.predict --workdir=RUN --input=scan.nii.gz --output=DIR
    python -m launch.predict --workdir=RUN --input=FOLDER --output=DIR --pictures \
        --config.predict.checkpoint=latest --config.predict.average_flips=True

--input is a NIfTI file or a folder of them. DIR gets NAME.nii.gz for each (same shape
and affine as the scan, values as in DIR/labels.json); files that are there already
are kept unless --overwrite. A scan that cannot be read is named, the rest is still
done, and the exit status is 3. Any --config.predict field can be changed.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags

from attunet_jax.errors import BadData, one_line
from launch import program

program.define_config("base")
flags.DEFINE_string("workdir", None, "Folder of a trained run.")
flags.DEFINE_string("input", None, "A NIfTI file, or a folder of them.")
flags.DEFINE_string("output", None, "Folder for the label maps.")
flags.DEFINE_bool("overwrite", False, "Predict again what is there already.")
flags.DEFINE_bool("pictures", False, "A PNG of each scan with the outlines drawn.")


def main(values: Any) -> int:
    scans = find_scans(Path(program.required("input")))
    output = Path(program.required("output"))
    workdir = Path(program.required("workdir"))
    program.make_folder(output)

    from attunet_jax.predict.predictor import load_predictor  # late: imports jax

    predictor = load_predictor(workdir, program.prediction_overrides())
    labels = dict(enumerate(predictor.classes))
    program.write_text(output / "labels.json", json.dumps(labels, indent=2) + "\n")
    failed = []
    for number, scan in enumerate(scans, start=1):
        target = output / (_stem(scan) + ".nii.gz")
        if target.exists() and not values.overwrite:
            print(f"[{number}/{len(scans)}] {target} is there already", flush=True)
            continue
        try:
            began = time.perf_counter()
            volumes_ml = _predict(predictor, scan, target, values.pictures)
        except BadData as error:
            failed.append(scan)
            print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
            continue
        found = "  ".join(f"{name} {ml:.0f} ml" for name, ml in volumes_ml.items())
        print(
            f"[{number}/{len(scans)}] {target}  {found}  "
            f"{time.perf_counter() - began:.1f} s",
            flush=True,
        )
    if failed:
        raise BadData(
            f"{len(failed)} of {len(scans)} scans were left out, see above: "
            + ", ".join(str(scan) for scan in failed)
        )
    return 0


def _predict(
    predictor: Any, scan: Path, target: Path, picture: bool
) -> dict[str, float]:
    """Writes one label map; returns the volume of each organ in ml."""
    import numpy as np

    from attunet_jax import volume as volumes

    volume = volumes.read_image(scan)
    prediction = predictor.label_map(volume)
    volumes.write_on_grid(target, prediction, volume.grid)
    if picture:
        from attunet_jax.evaluate.figures import overlay_png

        overlay_png(
            target.with_name(_stem(scan) + ".png"),
            volume.voxels,
            None,
            prediction,
            volume.spacing_mm,
            {name: value for value, name in enumerate(predictor.classes) if value},
            _stem(scan),
        )
    voxel_ml = float(np.prod(volume.spacing_mm)) / 1000
    return {
        name: float((prediction == value).sum()) * voxel_ml
        for value, name in enumerate(predictor.classes)
        if value
    }


def find_scans(path: Path) -> list[Path]:
    """The NIfTI files meant by `--input`, sorted. Raises `BadData` if none."""
    if path.is_file():
        return [path]
    if not path.exists():
        raise BadData(f"{path}: no such file or folder")
    scans = sorted(
        p
        for p in path.iterdir()
        if p.name.endswith((".nii", ".nii.gz")) and not p.name.startswith(".")
    )
    if not scans:
        raise BadData(f"{path}: no .nii or .nii.gz file in this folder")
    return scans


def _stem(scan: Path) -> str:
    return scan.name.removesuffix(".gz").removesuffix(".nii")


if __name__ == "__main__":
    program.run(main, __doc__ or "")
