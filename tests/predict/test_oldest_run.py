"""A run of the oldest version that can still be run predicts what it predicted then.

oldest_run/ was written by commit 0a9b888 (2026-11-23) with today's packages: a network
of two scales trained for 60 steps on made-up balls, one of these scans, and the label
map that `launch.predict` of that commit wrote for it.
"""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np

import attunet_jax as aj
from attunet_jax.volume import write_on_grid

OLDEST = Path(__file__).parent / "oldest_run"


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.Nifti1Image.from_filename(path).dataobj)


def test_the_oldest_run_still_predicts_the_label_map_of_its_time(tmp_path):
    shutil.copytree(OLDEST, tmp_path / "run")  # opened, a run may be written to
    predictor = aj.load(tmp_path / "run")
    assert predictor.run["config"]["data"]["normalisation"] == "scan"
    scan = aj.read_scan(OLDEST / "scan.nii.gz")
    write_on_grid(tmp_path / "labels.nii.gz", predictor(scan), scan.grid)
    expected = voxels(OLDEST / "labels.nii.gz")
    assert len(np.unique(expected)) > 2
    np.testing.assert_array_equal(voxels(tmp_path / "labels.nii.gz"), expected)
    size = sum(path.stat().st_size for path in OLDEST.rglob("*") if path.is_file())
    assert size <= 200_000
