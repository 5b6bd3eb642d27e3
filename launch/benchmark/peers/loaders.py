"""Times another library's loader and augmentation in a process of its own.

    python -m launch.benchmark.peers.loaders nnunet FOLDER 96,160,160 2 2 16

FOLDER/*.npz hold `image_hu` and `label` of prepared scans of one spacing. Converts them
to the library's own data set, then times 16 batches of 2 patches with 2 processes,
after as many for warm-up. The last line of output is {"seconds": s, "versions": {}}.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np

NAMES = ("nnunet", "monai")


def main() -> None:
    name, folder, patch, batch_size, workers, count = sys.argv[1:]
    shape = tuple(int(n) for n in patch.split(","))
    load = {"nnunet": nnunet_batches, "monai": monai_batches}[name]
    with tempfile.TemporaryDirectory() as temporary:
        scans = sorted(Path(folder).glob("*.npz"))
        batches = load(scans, Path(temporary), shape, int(batch_size), int(workers))
        for _ in range(int(count)):
            next(batches)
        start = time.perf_counter()
        for _ in range(int(count)):
            next(batches)
        seconds = time.perf_counter() - start
        batches.close()  # pyright: ignore[reportAttributeAccessIssue]
    packages = ["torch", "monai" if name == "monai" else "nnunetv2"]
    answer = {"seconds": seconds, "versions": {p: version(p) for p in packages}}
    print(json.dumps(answer))


def nnunet_batches(
    scans: list[Path], dataset: Path, patch: tuple[int, ...], batch: int, workers: int
) -> Iterator:
    """Yields batches of `nnUNetDataLoader` with the trainer's augmentation."""
    from batchgenerators.dataloading.multi_threaded_augmenter import (  # pyright: ignore
        MultiThreadedAugmenter,
    )
    from nnunetv2.training.data_augmentation.compute_initial_patch_size import (  # pyright: ignore
        get_patch_size,
    )
    from nnunetv2.training.dataloading import (  # pyright: ignore
        data_loader,
        nnunet_dataset,
    )
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import (  # pyright: ignore
        nnUNetTrainer,
    )
    from nnunetv2.utilities.label_handling.label_handling import (  # pyright: ignore
        LabelManager,
    )

    blosc = nnunet_dataset.nnUNetDatasetBlosc2
    labels = {"background": 0, "spleen": 1, "pancreas": 2, "kidney": 3}
    for scan in scans:
        with np.load(scan) as arrays:
            image, label = arrays["image_hu"], arrays["label"]
        data = ((image - image.mean()) / image.std()).astype(np.float32)[None]
        segmentation = label.astype(np.int8)[None]
        locations = {v: np.argwhere(segmentation == v)[:10_000] for v in (1, 2, 3)}
        blocks, chunks = nnunet_dataset.comp_blosc2_params(data.shape, patch)
        blosc.save_case(
            data,
            segmentation,
            {"class_locations": locations},
            str(dataset / scan.stem),
            chunks,
            blocks,
        )
    rotation = (-30 / 180 * np.pi, 30 / 180 * np.pi)  # the trainer's for such patches
    read_shape = get_patch_size(patch, rotation, rotation, rotation, (0.85, 1.25))
    loader = data_loader.nnUNetDataLoader(
        blosc(str(dataset)),
        batch,
        read_shape,
        patch,
        LabelManager(labels, None),
        oversample_foreground_percent=0.33,
        transforms=nnUNetTrainer.get_training_transforms(
            patch, rotation, None, (0, 1, 2), False, foreground_labels=(1, 2, 3)
        ),
    )
    augmenter = MultiThreadedAugmenter(loader, None, workers, 2)
    try:
        while True:
            yield next(augmenter)
    finally:
        augmenter._finish()


def monai_batches(
    scans: list[Path], dataset: Path, patch: tuple[int, ...], batch: int, workers: int
) -> Iterator:
    """Yields batches of scans in memory, as in CacheDataset, with our augmentation."""
    import torch  # pyright: ignore[reportMissingImports]
    from monai import data  # pyright: ignore[reportMissingImports]
    from monai import transforms as t  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)  # the processes share the cores
    keys = ["image", "label"]
    cases = []
    for scan in scans:
        with np.load(scan) as arrays:
            image = torch.from_numpy(arrays["image_hu"].astype(np.float32))[None]
            cases.append(
                {"image": image, "label": torch.from_numpy(arrays["label"])[None]}
            )
    modes = ("bilinear", "nearest")
    read_shape = (patch[0], *(round(1.3 * n) for n in patch[1:]))
    chain = t.Compose(
        [
            t.RandSpatialCropd(keys, read_shape, random_size=False),
            t.SpatialPadd(keys, read_shape),
            t.RandAffined(
                keys,
                prob=1.0,
                rotate_range=(np.radians(15), 0, 0),
                translate_range=(0, 0.1 * patch[1], 0.1 * patch[2]),
                scale_range=(0, 0.3, 0.3),
                spatial_size=patch,
                mode=modes,
                padding_mode="border",
            ),
            t.RandFlipd(keys, prob=0.5, spatial_axis=1),
            t.RandFlipd(keys, prob=0.5, spatial_axis=2),
            t.NormalizeIntensityd(["image"]),
        ]
    )
    sampled = data.Dataset(cases, chain)
    loader = data.DataLoader(
        sampled, batch_size=batch, shuffle=True, num_workers=workers
    )
    while True:
        yield from loader


if __name__ == "__main__":
    main()
