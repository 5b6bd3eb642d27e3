"""Pictures of cases: an axial slice with the outlines of truth and prediction.

Drawn from the prepared data and an evaluation's label maps; where those are not to
hand, an evaluation's own picture of the case is taken.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from attunet_jax import volume as volumes
from attunet_jax.data.case_id import is_case_id
from attunet_jax.data.dataset import Dataset
from attunet_jax.data.records import Case
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.evaluate.page.study.runs import Source
from attunet_jax.evaluate.pictures import WINDOW_HU
from attunet_jax.files import read_json

WIDTH = 260  # pixels of a slice as it is drawn
MARGIN_MM, LEAST_MM = 20.0, 90.0  # around the organ; of the slice's shorter side
TRUTH = (255, 255, 255)
# As the page's colours of networks on dark ground.
COLOURS = ("#64b5f6", "#ffa366", "#74d39b", "#cf9bea", "#f48ba6", "#d8c95a", "#66cfd9")
COLOURS += ("#c9b3a3",)
DASH = 7  # pixels
MOST_PIXELS = 30_000_000  # of a picture that is read


@dataclass(frozen=True)
class Drawn:
    """A picture, and in words what it shows."""

    image: Image.Image
    what: str
    is_wide: bool = False  # several planes side by side

    def encoded(self, width: int, quality: int) -> tuple[bytes, tuple[int, int]]:
        """Returns it as WebP with its size; `width` pixels, twice as many if wide."""
        width = min(width * (2 if self.is_wide else 1), self.image.width)
        height = max(round(self.image.height * width / self.image.width), 1)
        file = io.BytesIO()
        smaller = self.image.resize((width, height), Image.Resampling.LANCZOS)
        smaller.save(file, "WEBP", quality=quality, method=4)
        return file.getvalue(), (width, height)


class Slices:
    """Draws cases of evaluated networks."""

    def __init__(
        self,
        networks: Mapping[str, Sequence[Mapping]],
        sources: Mapping[str, Sequence[Source]],
        dataset: Dataset | None,
    ) -> None:
        self._sources = sources
        self._dataset = dataset
        self._shown: set[Path] = set()  # an evaluation's picture has all organs
        self._of_data = {
            name: dataset is not None and _is_of(rows, dataset)
            for name, rows in networks.items()
        }

    def of_case(self, case_id: str, organ: str) -> dict[str, Drawn]:
        """Returns network -> picture, of those networks that have what it takes."""
        if not is_case_id(case_id):  # it names files
            return {}
        of_case = {
            name: source.folder
            for name, of_name in self._sources.items()
            for source in of_name
            if case_id in source.case_ids
        }
        mapped = {
            name
            for name, folder in of_case.items()
            if self._of_data[name] and _map(folder, case_id).is_file()
        }
        case = self._case(case_id) if mapped else None
        drawn = {}
        for number, name in enumerate(self._sources):
            one = None
            if case is not None and name in mapped:
                one = self._slice(case, organ, of_case[name], number)
            if one is None and name in of_case:
                path = of_case[name] / f"{case_id}.png"
                one = None if path in self._shown else _stored_picture(path)
                self._shown.add(path)
            if one is not None:
                drawn[name] = one
        return drawn

    def _case(self, case_id: str) -> Case | None:
        assert self._dataset is not None
        try:
            return self._dataset.case(case_id)
        except (BadArguments, BadData, OSError):
            return None

    def _slice(self, case: Case, organ: str, folder: Path, number: int) -> Drawn | None:
        assert self._dataset is not None
        label = self._dataset.labels.values.get(organ)
        try:
            predicted = _prediction(case, organ, folder)
        except (BadData, OSError, ValueError):
            return None
        if label is None or predicted is None:
            return None
        truth = case.label == label
        shown = truth if truth.any() else predicted
        index = int(shown.sum(axis=(1, 2)).argmax())
        image = _draw(
            case.image_hu[index],
            {TRUTH: truth[index], _rgb(number): predicted[index]},
            case.spacing_mm[1:],
        )
        return Drawn(image, f"Axial slice {index + 1} of {len(truth)}")


def _is_of(rows: Sequence[Mapping], dataset: Dataset) -> bool:
    stamps = {row.get("manifest_sha256") for row in rows}
    return stamps <= {None, dataset.manifest_sha256}


def _map(folder: Path, case_id: str) -> Path:
    return folder / "label_maps" / f"{case_id}.nii.gz"


def _prediction(case: Case, organ: str, folder: Path) -> np.ndarray | None:
    """The organ's mask [D, H, W] in a label map of the evaluation, on the case's grid.

    Raises `BadData` or `ValueError` where the map is damaged or rotated.
    """
    try:
        names = read_json(folder / "label_maps" / "labels.json")
    except FileNotFoundError:
        return None
    values = [int(v) for v, name in dict(names).items() if name == organ]
    if not values:
        return None
    stored = volumes.read_labels(_map(folder, case.case_id))
    depth, height, width = case.image_hu.shape
    grid = volumes.Grid((depth, height, width), case.affine)
    mask = np.isin(stored.voxels, values)
    return volumes.onto_grid(mask, stored.affine, grid, order="nearest")


def _draw(
    image_hu: np.ndarray, masks: Mapping[tuple[int, ...], np.ndarray], pixel_mm
) -> Image.Image:
    """Draws a slice [H, W] around the masks; the first is solid, the others dashed."""
    box = _box(np.logical_or.reduce(list(masks.values())), np.asarray(pixel_mm, float))
    sides_mm = np.array([s.stop - s.start for s in box]) * pixel_mm
    size = (WIDTH, max(round(WIDTH * sides_mm[0] / sides_mm[1]), 1))
    low, high = WINDOW_HU
    grey = np.clip((image_hu[box].astype(np.float32) - low) / (high - low), 0, 1)
    scaled = Image.fromarray((grey * 255).astype(np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    pixels = np.array(scaled.convert("RGB"))
    rows, columns = np.indices(pixels.shape[:2])
    for i, (colour, mask) in enumerate(masks.items()):
        smooth = Image.fromarray(mask[box].astype(np.uint8) * 255).resize(
            size, Image.Resampling.BILINEAR
        )
        filled = np.array(smooth) > 127
        inside = ndimage.binary_erosion(filled, iterations=3)
        edge = filled & np.logical_not(inside)
        if i:
            edge &= (rows + columns) // DASH % 2 == 0
        pixels[edge] = colour
    return Image.fromarray(pixels)


def _box(mask: np.ndarray, pixel_mm: np.ndarray) -> tuple[slice, ...]:
    """A window around the mask with a margin; all of the slice if it is empty."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    window = []
    for part, length, mm in zip(found[0], mask.shape, pixel_mm, strict=True):
        middle = (part.start + part.stop) / 2
        half = max((part.stop - part.start) / 2 + MARGIN_MM / mm, LEAST_MM / 2 / mm)
        start, stop = max(int(middle - half), 0), min(int(middle + half) + 1, length)
        window.append(slice(start, stop))
    return tuple(window)


def _rgb(number: int) -> tuple[int, ...]:
    name = COLOURS[number % len(COLOURS)]
    return tuple(int(name[i : i + 2], 16) for i in (1, 3, 5))


def _stored_picture(path: Path) -> Drawn | None:
    """A picture that launch.evaluate drew of the case, if it did."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.width * image.height > MOST_PIXELS:
                return None
            return Drawn(image.convert("RGB"), "Slices through the organs", True)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
