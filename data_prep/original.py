"""Prepared cases on their scans' own grids, from the folder that was prepared.

A prepared label map was resampled, so it cannot say how good a label map on the scan's
own grid is: the original is read again, and must be the file that was prepared.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attunet_jax.data.dataset import Dataset
from attunet_jax.data.records import Case
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.volume import Volume, as_ct, different_grids
from data_prep.case import Settings, label_values, source_entries
from data_prep.read import label_counts, read_pair
from data_prep.sources import SOURCES, find_cases
from data_prep.sources.layout import ScanPair


class OriginalCases:
    """The scans and label maps of which cases of a data set were prepared.

    Raises `BadArguments` where the data set does not say how it was prepared, or
    `folder` lacks one of `case_ids`.
    """

    def __init__(self, folder: Path, dataset: Dataset, case_ids: Iterable[str]) -> None:
        stored = dataset.manifest["settings"]
        source = stored.get("source")
        if source not in SOURCES or "organs" not in stored:
            raise BadArguments(
                f"{dataset.place}: does not say of which layout it was prepared, "
                "so scans cannot be found again: use --grid=prepared"
            )
        self._settings = _settings(stored)
        self._entries = {case["case_id"]: case for case in dataset.manifest["cases"]}
        pairs = {pair.case_id: pair for pair in find_cases(source, folder).pairs}
        if missing := [case_id for case_id in case_ids if case_id not in pairs]:
            raise BadArguments(
                f"--truth={folder}: has no case {', '.join(missing[:3])}"
                + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
                + f"; name the folder that was --input when {dataset.place} was "
                "prepared"
            )
        self._pairs = pairs

    def __call__(self, case_id: str) -> tuple[Volume, Case]:
        """Returns the scan in HU, and the case on its grid, labelled as when prepared.

        Raises `BadData` where the files are not those that were prepared.
        """
        pair, settings = self._pairs[case_id], self._settings
        self._check_unchanged(case_id, pair)
        image, labels = read_pair(pair, settings.organs)
        assert labels is not None
        if reason := different_grids(image, labels):
            raise BadData(reason)
        values = label_values(
            label_counts(labels.voxels), settings, pair.other_labels, labels.path
        )
        voxels = as_ct(image, settings.hu_range).voxels
        placement = image.grid.placement
        case = Case(
            image_hu=np.clip(np.rint(voxels), -32768, 32767).astype(np.int16),
            label=values[labels.voxels],
            spacing_mm=np.asarray(image.spacing_mm, float),
            affine=image.affine,
            original_shape=image.grid.shape,
            original_affine=image.grid.affine,
            original_placement=placement and placement.numbers(),
            case_id=case_id,
        )
        return image, case

    def _check_unchanged(self, case_id: str, pair: ScanPair) -> None:
        found = source_entries(pair, self._settings.organs)
        for half, what in (("image", "scan"), ("label", "label map")):
            stored = self._entries[case_id].get(half, {})
            if stored.get("sha256") not in (None, found[half]["sha256"]):
                path = pair.image if half == "image" else pair.label or pair.masks[0][0]
                raise BadData(
                    f"{path}: is another {what} than the one that case {case_id} was "
                    "prepared from; name the right --truth, or prepare again"
                )


def _settings(stored: Mapping[str, Any]) -> Settings:
    """What a manifest says of how label values were read."""
    return Settings(
        organs={organ: tuple(values) for organ, values in stored["organs"].items()},
        spacing_mm=tuple(stored["spacing_mm"]),
        blur_mm=0.0,
        ignore_unknown_labels=True,  # preparation has refused them, or was told so
        ignored=tuple(stored.get("ignored", ())),
    )
