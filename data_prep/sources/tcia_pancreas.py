"""Pancreas-CT of The Cancer Imaging Archive (CT-82): DICOM scans, NIfTI label maps.

`PANCREAS_0001/STUDY/SERIES/*.dcm` and `label0001.nii.gz` lie anywhere below the folder,
as the NBIA Data Retriever and the archive's zip of labels leave them.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from attunet_jax.data.identity import series_folders
from attunet_jax.errors import BadData
from data_prep.sources.layout import Layout, ScanPair, one_pair

ORGANS = {"pancreas": (1,)}
# Withdrawn: these patients occur twice in the collection.
WITHDRAWN = (25, 70)
_SCAN = re.compile(r"PANCREAS_(\d{4})", re.IGNORECASE)
_LABEL = re.compile(r"label(\d{4})\.nii(\.gz)?", re.IGNORECASE)
_DEPTH = 3  # at which scans and label maps are searched, below the folder


def find_tcia_pancreas(folder: Path) -> Layout:
    """Finds the cases by their numbers. Raises `BadData` where the folder is missing.

    A scan of two series or of none, and a number that occurs twice, are returned as
    well: reading them reports why they cannot be used.
    """
    if not folder.is_dir():
        raise BadData(f"{folder}: no such folder")
    scans: dict[int, list[Path]] = defaultdict(list)
    labels: dict[int, list[Path]] = defaultdict(list)
    for path, is_folder in _below(folder, _DEPTH):
        pattern, found = (_SCAN, scans) if is_folder else (_LABEL, labels)
        if match := pattern.fullmatch(path.name):
            found[int(match[1])].append(path)
    pairs: list[ScanPair] = []
    for number in sorted(scans.keys() | labels.keys()):
        pair = one_pair(f"PANCREAS_{number:04}", scans[number], labels[number])
        series = [place for scan in scans[number] for place in series_folders(scan)]
        if number in WITHDRAWN and not series:
            continue
        if pair.image and len(series) == 1:
            pair = replace(pair, image=series[0])
        pairs.append(replace(pair, label_by_index=True))
    return Layout(pairs, ORGANS)


def _below(folder: Path, depth: int) -> Iterator[tuple[Path, bool]]:
    """Yields (path, whether it is a folder); does not enter cases or follow links."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        is_folder = entry.is_dir(follow_symlinks=False)
        if entry.name.startswith("."):
            continue
        yield Path(entry.path), is_folder
        if is_folder and depth > 1 and not _SCAN.fullmatch(entry.name):
            yield from _below(Path(entry.path), depth - 1)
