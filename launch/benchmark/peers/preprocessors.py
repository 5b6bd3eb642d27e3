"""Prepares the same scans with another library in a process of its own.

    python -m launch.benchmark.peers.preprocessors monai SCANS FOLDER 2 2.0

Reads SCANS/images and SCANS/labels, writes into FOLDER with 2 processes at 2.0 mm. The
last line of output is {"seconds": s, "versions": {...}}; seconds exclude the start of
Python and the imports of this process.
"""

import json
import multiprocessing
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

NAMES = ("nnunet", "nnunet_linear", "monai")
# Orders of interpolation; nnU-Net's planner chooses cubic for CT.
_CUBIC, _LINEAR = 3, 1


def main() -> None:
    name, scans, folder, workers, spacing_mm = sys.argv[1:]
    run = run_monai if name == "monai" else run_nnunet
    order = _LINEAR if name == "nnunet_linear" else _CUBIC
    seconds = run(Path(scans), Path(folder), int(workers), float(spacing_mm), order)
    packages = ["torch", "monai" if name == "monai" else "nnunetv2"]
    print(
        json.dumps({"seconds": seconds, "versions": {p: version(p) for p in packages}})
    )


def run_monai(
    scans: Path, folder: Path, workers: int, spacing_mm: float, _: int
) -> float:
    """Runs LoadImaged to ScaleIntensityRanged, saves arrays and returns seconds."""
    import monai.transforms  # noqa: F401  # pyright: ignore[reportMissingImports]

    paths = sorted((scans / "images").iterdir())
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.starmap(
            _monai_case,
            [
                (p, scans / "labels" / p.name, folder / p.name, spacing_mm)
                for p in paths
            ],
            chunksize=1,
        )
    return time.perf_counter() - start


def _monai_case(image: Path, label: Path, output: Path, spacing_mm: float) -> None:
    import numpy as np
    import torch  # pyright: ignore[reportMissingImports]
    from monai import transforms as t  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)  # the processes share the cores
    keys = ["image", "label"]
    chain = t.Compose(
        [
            t.LoadImaged(keys),
            t.EnsureChannelFirstd(keys),
            t.Orientationd(keys, axcodes="RAS", labels=None),
            t.Spacingd(keys, pixdim=(spacing_mm,) * 3, mode=("bilinear", "nearest")),
            t.ScaleIntensityRanged(["image"], -1000, 1000, 0.0, 1.0, clip=True),
        ]
    )
    case = chain({"image": image, "label": label})
    for key in keys:
        np.save(f"{output}_{key}.npy", case[key].numpy())


def run_nnunet(
    scans: Path, folder: Path, workers: int, spacing_mm: float, order: int
) -> float:
    """Runs `DefaultPreprocessor.run`, as nnUNetv2_preprocess does; returns seconds."""
    raw, prepared = folder / "raw" / "Dataset001_Bench", folder / "pre"
    for path in sorted((scans / "images").iterdir()):
        case = path.name.removesuffix(".nii.gz")
        link(path, raw / "imagesTr" / f"{case}_0000.nii.gz")
        link(scans / "labels" / path.name, raw / "labelsTr" / path.name)
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "spleen": 1, "pancreas": 2, "kidney": 3},
        "numTraining": len(list((raw / "labelsTr").iterdir())),
        "file_ending": ".nii.gz",
    }
    for target in (raw, prepared / raw.name):
        target.mkdir(parents=True, exist_ok=True)
        (target / "dataset.json").write_text(json.dumps(description))
    (prepared / raw.name / "nnUNetPlans.json").write_text(
        json.dumps(_plans(raw.name, spacing_mm, order))
    )
    # nnU-Net reads these at import, in its own processes too.
    os.environ["nnUNet_raw"] = str(raw.parent)
    os.environ["nnUNet_preprocessed"] = str(prepared)
    os.environ["nnUNet_results"] = str(folder / "results")
    os.environ["OMP_NUM_THREADS"] = (
        "1"  # the processes share the cores, as nnU-Net advises
    )
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import (  # pyright: ignore
        DefaultPreprocessor,
    )

    start = time.perf_counter()
    DefaultPreprocessor(verbose=False).run(1, "3d_fullres", "nnUNetPlans", workers)
    return time.perf_counter() - start


def _plans(dataset: str, spacing_mm: float, order: int) -> dict:
    resampling = {
        "is_seg": False,
        "order": order,
        "order_z": 0,
        "force_separate_z": None,
    }
    normalization = {
        "mean": 80.0,
        "std": 60.0,
        "percentile_00_5": -150.0,
        "percentile_99_5": 250.0,
    }
    function = "resample_data_or_seg_to_shape"
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [96, 160, 160],
        "spacing": [spacing_mm] * 3,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": function,
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg": function,
        "resampling_fn_seg_kwargs": resampling | {"is_seg": True, "order": 1},
        "architecture": {},  # not used by preprocessing
    }
    return {
        "dataset_name": dataset,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": normalization},
    }


def link(path: Path, name: Path) -> None:
    name.parent.mkdir(parents=True, exist_ok=True)
    name.symlink_to(path.resolve())


if __name__ == "__main__":
    main()
