"""Scans of a few voxels as NIfTI files, and the program run in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest

from attunet_jax.errors import exit_status
from data_prep import prepare


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def save_nifti() -> Callable[..., None]:
    """Writes an array with nibabel; without an affine, 2 mm voxels."""

    def save(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if affine is None:
            affine = np.diag([-2.0, -2.0, 2.0, 1.0])
        nib.save(nib.Nifti1Image(voxels, affine), path)  # pyright: ignore

    return save


@pytest.fixture(scope="session")
def make_scans(save_nifti) -> Callable[..., Path]:
    """Fills images/ and labels/ of a folder with scans of 8 x 9 x 10 voxels.

    Labels 1, 2 and 3 are blocks of 27, 18 and 12 voxels; one voxel is air.
    """

    def make(folder: Path, *names: str) -> Path:
        for seed, name in enumerate(names):
            label = np.zeros((8, 9, 10), np.uint8)
            label[1:4, 1:4, 1:4] = 1
            label[4:7, 4:7, 4:6] = 2
            label[1:3, 6:8, 6:9] = 3
            noise = np.random.default_rng(seed).integers(-90, 90, label.shape)
            noise[-1, -1, -1] = -1000
            save_nifti(folder / "images" / f"{name}.nii.gz", noise.astype(np.int16))
            save_nifti(folder / "labels" / f"{name}.nii.gz", label)
        return folder

    return make


@pytest.fixture
def prepare_here(capfd) -> Callable[..., Outcome]:
    """The program as a command line runs it, without the second a process takes."""

    def run(*words: object) -> Outcome:
        capfd.readouterr()
        try:
            status = exit_status(lambda: prepare.main([*map(str, words)]))
        except SystemExit as stop:  # argparse's own way out
            assert isinstance(stop.code, int)
            status = stop.code
        return Outcome(status, *capfd.readouterr())

    return run
