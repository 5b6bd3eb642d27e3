"""Writes synthetic CT scans of the abdomen with label maps, the same for equal seeds.

    python -m data_prep.phantom --output=SCANS --cases=40 --seed=1
    python -m data_prep.phantom --output=SCANS --cases=4 --size=full

SCANS gets images/phantom_000.nii.gz, labels/phantom_000.nii.gz and so on (labels: 1
spleen, 2 pancreas, 3 kidney), in the layout of data_prep.prepare --source=nifti. Sizes,
spacings and axis orders differ from scan to scan. Existing scans are kept. SCANS may be
in a bucket, gs:// or s3://: each scan is uploaded when it is written.
"""

import json
import os
import re
from itertools import permutations
from pathlib import Path

import numpy as np
from tqdm import tqdm

from attunet_jax.errors import BadArguments, BadData, exit_status
from attunet_jax.files import write_text
from attunet_jax.interrupts import leave
from attunet_jax.storage.names import shown
from attunet_jax.storage.staging import Staging, staged
from attunet_jax.volume import write_nifti
from attunet_jax.workers import run_in_processes
from data_prep.phantoms.patient import make_patient
from launch import cli

VERSION, SETTINGS = 1, "phantom.json"
_OURS = re.compile(r"phantom\.json|(images|labels)/phantom_\d+\.nii\.gz")
# Field of view [D, H, W] in mm, and ranges of slice and in-plane spacing in mm.
SIZES = {
    "small": ((176, 216, 300), (2.5, 5.0), (2.6, 3.4)),
    "full": ((190, 400, 400), (1.0, 2.0), (0.7, 0.8)),
}

FLAGS = cli.Flags(__doc__)
FLAGS.add("output", cli.writable, None, "Folder for the scans.", required=True)
FLAGS.add_cache_dir()
FLAGS.add("cases", int, 40, "How many.")
FLAGS.add("seed", int, 0, "Of everything random.")
FLAGS.add(
    "size",
    str,
    "small",
    "small: some 100x72x50 voxels, in a second; full: 512x512x130.",
    choices=sorted(SIZES),
)
FLAGS.add("workers", int, None, "Processes (default: as many as cores).")


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    with staged(
        arguments.output,
        arguments.cache_dir,
        bring=lambda name: name == SETTINGS,
        wanted=lambda name: _OURS.fullmatch(name) is not None,
    ) as stage:
        return _write_all(arguments, stage)


def _write_all(arguments: cli.Values, stage: Staging) -> int:
    output = stage.folder
    _acquire_output(output, {"version": VERSION, **_settings(arguments)})
    stage.send(output / SETTINGS)
    stale = [*output.glob("*/.phantom_*.part"), *output.glob(f".{SETTINGS}.*.new")]
    for path in stale:
        path.unlink()
    todo = [
        number
        for number in range(arguments.cases)
        if not all(path.exists() for path in _paths(output, number))
    ]
    done = arguments.cases - len(todo)
    work = [(output, number, arguments.seed, arguments.size) for number in todo]
    with tqdm(total=arguments.cases, initial=done, unit="scan", desc="phantoms") as bar:

        def on_written(number: int, _: None) -> None:
            paths = _paths(output, todo[number])
            stage.send(*paths)
            stage.drop(*paths)
            bar.update()

        if arguments.workers == 1 or len(work) < 2:
            for number, words in enumerate(work):
                on_written(number, write_case(*words))
        else:
            run_in_processes(write_case, work, arguments.workers, output, on_written)
    print(f"{arguments.cases} phantoms in {shown(output)} ({done} were there)")
    if more := len([*(output / "images").glob("phantom_*.nii.gz")]) - arguments.cases:
        print(f"{more} more are there; --source=nifti takes all of the folder")
    return 0


def parse(argv: list[str] | None) -> cli.Values:
    arguments = FLAGS.parse(argv)
    if arguments.workers is None:
        arguments.workers = os.cpu_count() or 1
    if arguments.cases < 1 or arguments.workers < 1 or arguments.seed < 0:
        raise BadArguments("--cases and --workers must be 1 or more, --seed 0 or more")
    return arguments


def make_case(
    seed: int, number: int, size: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (image, label, affine) of one phantom, in a random axis order."""
    rng = np.random.default_rng([seed, number])
    extent_mm, slice_mm, plane_mm = SIZES[size]
    spacing = np.array([rng.uniform(*slice_mm), *[rng.uniform(*plane_mm)] * 2])
    shape = [round(e / s) for e, s in zip(extent_mm, spacing, strict=True)]
    if size == "full":
        shape[1:] = 512, 512
    image, label = make_patient(rng, shape, spacing)
    # Canonical (d, h, w): D to the head, H to the back, W to the patient's left.
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = spacing * (1, -1, -1)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2) + rng.normal(0, 30, 3)
    affine[3, 3] = 1
    order = list(permutations(range(3)))[rng.integers(6)]
    flips = [axis for axis in range(3) if rng.random() < 0.5]
    to_canonical = np.zeros((4, 4))
    to_canonical[3, 3] = 1
    for axis, source in enumerate(order):
        to_canonical[source, axis] = -1 if axis in flips else 1
        if axis in flips:
            to_canonical[source, 3] = shape[source] - 1
    image, label = (np.flip(x.transpose(order), flips) for x in (image, label))
    return image, label, affine @ to_canonical


def write_case(output: Path, number: int, seed: int, size: str) -> None:
    """Writes the scan and its label map, each atomically."""
    image, label, affine = make_case(seed, number, size)
    image_path, label_path = _paths(output, number)
    write_nifti(image_path, image, affine)
    write_nifti(label_path, label, affine)


def _paths(output: Path, number: int) -> tuple[Path, Path]:
    name = f"phantom_{number:03}.nii.gz"
    return output / "images" / name, output / "labels" / name


def _settings(arguments: cli.Values) -> dict:
    return {"seed": arguments.seed, "size": arguments.size}


def _acquire_output(output: Path, settings: dict) -> None:
    """Makes the folders and stores the settings in phantom.json.

    Raises `BadArguments` where the folder holds phantoms of other settings, `BadData`
    where it cannot be written.
    """
    path = output / SETTINGS
    try:
        for name in ("images", "labels"):
            (output / name).mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_text(path, json.dumps(settings) + "\n")
            return
        before = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadData(
            f"{output}: cannot be written ({error.strerror}); choose another --output"
        ) from None
    except ValueError:
        raise BadData(f"{path}: damaged; remove {output} and start again") from None
    if before != settings:
        raise BadArguments(
            f"{output} holds phantoms of {before}, not {settings}: use another --output"
        )


if __name__ == "__main__":
    leave(exit_status(main))
