"""Draws axial, coronal and sagittal slices of a scan with its organs, as small PNGs.

A PNG with a palette takes a third of the bytes of one with RGB.
"""

import colorsys
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from attunet_jax.volume import Volume, onto_grid
from data_prep.verification.measure import isin_by_slices

WINDOW_HU = (-160, 240)  # soft tissue
# The axis across each plane. D runs feet to head, H front to back, W right to left.
PLANES = {"axial": 0, "coronal": 1, "sagittal": 2}
# Of the first organs, chosen for colour-blind readers; further ones go round the colour
# circle by the golden angle.
COLOURS = ("#ffb000", "#00d0ff", "#ff4f9a", "#7be36a", "#b58cff", "#ff7043", "#f5f564")
UNNAMED = "#ffffff"  # outline of label values without an organ
WIDTH_PX, MAX_HEIGHT_PX = 288, 400  # of axial slices; of long scans, head to feet
MAX_BYTES = 56_000  # of the three pictures of a case
_GREYS = (48, 32, 24, 16, 10)  # numbers of grey levels; the first within it is taken


@dataclass(frozen=True)
class Picture:
    """One slice; `index` of `count` along the axis across it, counted from 0."""

    plane: str
    index: int
    count: int
    width: int
    height: int
    png: bytes


def case_pictures(
    image: Volume, labels: Volume | None, colours: Mapping[int, str]
) -> list[Picture]:
    """Draws slices through the centre of the labels, or of a scan without labels.

    They are oriented as radiologists view them: the patient's right on the left of
    axial and coronal slices, front up in axial and left in sagittal ones, head up.
    Proportions are true. `colours` are "#rrggbb" of the outline by label value; label
    values of equal colour have one outline. Labels of another shape than the image's
    are placed by their headers.
    """
    placed = None if labels is None else _place(image, labels)
    spacing_mm = image.spacing_mm
    drawn = None if placed is None else isin_by_slices(placed, colours)
    centre = _centre(drawn, image.voxels.shape)
    pixels_per_mm = WIDTH_PX / float((spacing_mm * image.voxels.shape)[1:].max())
    names = [*dict.fromkeys(colours.values())]
    slices = []
    for plane, axis in PLANES.items():
        index = centre[axis]
        hu = image.voxels.take(index, axis)
        outlined = None if placed is None else placed.take(index, axis)
        pixel_mm = np.delete(spacing_mm, axis)
        grey, outline = _draw(hu, outlined, pixel_mm, pixels_per_mm, colours, names)
        if plane != "axial":
            grey, outline = grey[::-1], outline[::-1]
        slices.append((plane, index, image.voxels.shape[axis], grey, outline))
    pictures = []
    for greys in _GREYS:
        palette = _palette(greys, names)
        pictures = [
            Picture(
                plane,
                index,
                count,
                grey.shape[1],
                grey.shape[0],
                encode_png(
                    np.where(
                        outline,
                        greys + outline - 1,
                        np.minimum(grey * greys, greys - 1),
                    ).astype(np.uint8),
                    palette,
                ),
            )
            for plane, index, count, grey, outline in slices
        ]
        if sum(len(picture.png) for picture in pictures) <= MAX_BYTES:
            break
    return pictures


def colour(number: int) -> str:
    """Colour of the outline of organ `number`, counted from 0."""
    if number < len(COLOURS):
        return COLOURS[number]
    rgb = colorsys.hsv_to_rgb(number * 0.381966 % 1, 0.65, 1.0)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def _place(image: Volume, labels: Volume) -> np.ndarray | None:
    """Label values on the image's grid; None where the axes are not parallel."""
    if labels.voxels.shape == image.voxels.shape:
        return labels.voxels
    # Voxels beyond the label map repeat its edge: with this border it is background.
    framed = np.pad(labels.voxels, 1)
    affine = labels.affine.copy()
    affine[:3, 3] -= affine[:3, :3].sum(1)
    try:
        return onto_grid(framed, affine, image.grid, order="nearest")
    except ValueError:
        return None


def _centre(mask: np.ndarray | None, shape: tuple[int, ...]) -> list[int]:
    """For each axis, the slice nearest to the centre of the mask that contains it."""
    indices = []
    for axis, count in enumerate(shape):
        middle = (count - 1) / 2
        shown = np.arange(count)
        if mask is not None:
            across = tuple({0, 1, 2} - {axis})
            voxels = np.count_nonzero(mask, axis=across)
            if voxels.any():
                middle = float(voxels @ shown / voxels.sum())
                shown = np.flatnonzero(voxels)
        indices.append(int(shown[np.abs(shown - middle).argmin()]))
    return indices


def _draw(
    hu: np.ndarray,
    labels: np.ndarray | None,
    pixel_mm: np.ndarray,
    pixels_per_mm: float,
    colours: Mapping[int, str],
    names: list[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns grey in [0, 1], and the outlines: 0 for none, else 1 + index in `names`.

    Both are resampled to the pixels of the picture.
    """
    sides_mm = np.array(hu.shape) * pixel_mm
    scale = min(pixels_per_mm, MAX_HEIGHT_PX / sides_mm.max())
    shape = np.maximum(np.rint(sides_mm * scale), 1).astype(int)
    places = [
        (np.arange(n) + 0.5) * old / n - 0.5
        for n, old in zip(shape, hu.shape, strict=True)
    ]
    low, high = WINDOW_HU
    grey = np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1)
    # The mean over a pixel: it has less noise to look at and to store.
    size = np.maximum(np.rint(np.array(hu.shape) / shape), 1).astype(int)
    grey = ndimage.uniform_filter(grey, size.tolist(), mode="nearest")
    grey = ndimage.map_coordinates(
        grey, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest"
    )
    outline = np.zeros(grey.shape, np.int32)
    if labels is not None:
        nearest = [
            np.clip(np.floor(p + 0.5), 0, n - 1).astype(int)
            for p, n in zip(places, labels.shape, strict=True)
        ]
        shown = labels[np.ix_(*nearest)]
        for number, name in enumerate(names, start=1):
            values = [value for value, colour_ in colours.items() if colour_ == name]
            mask = np.isin(shown, values)
            if mask.any():
                outline[mask & np.logical_not(ndimage.binary_erosion(mask))] = number
    return np.clip(grey, 0, 1), outline


def _palette(greys: int, names: list[str]) -> np.ndarray:
    """RGB of the grey levels, then of the colours `names`, "#rrggbb"."""
    ramp = np.rint(np.linspace(0, 255, greys))[:, None].repeat(3, axis=1)
    hues = [[int(name[i : i + 2], 16) for i in (1, 3, 5)] for name in names]
    return np.vstack([ramp, np.array(hues).reshape(-1, 3)])


def encode_png(indices: np.ndarray, palette: np.ndarray) -> bytes:
    """PNG of `indices [H, W]` uint8 into `palette [N, 3]`, RGB, N at most 256."""
    picture = Image.fromarray(indices)
    picture.putpalette(palette.astype(np.uint8).tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
