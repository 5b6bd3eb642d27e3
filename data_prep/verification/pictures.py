"""A scan and its organs in; small axial, coronal and sagittal pictures as PNG out.

Indices into a palette in, the bytes of a PNG out: a third of what grey RGB takes.
"""

import colorsys
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from attunet_jax.volume import Volume, onto_grid
from data_prep.verification.measure import among

WINDOW_HU = (-160, 240)  # soft tissue
# In canonical order D runs feet to head, H front to back, W patient's right to left.
PLANES = {"axial": 0, "coronal": 1, "sagittal": 2}
# Of the first organs, told apart by those who see few colours; others go round the
# circle by the golden angle.
COLOURS = ("#ffb000", "#00d0ff", "#ff4f9a", "#7be36a", "#b58cff", "#ff7043", "#f5f564")
UNNAMED = "#ffffff"  # outline of labels that no organ has
WIDTH_PX, TALLEST_PX = 288, 400  # of axial slices; of long scans, head to feet
MOST_BYTES = 56_000  # of the three pictures of a case
_GREYS = (48, 32, 24, 16, 10)  # the first that keeps within it is taken


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
    """Slices through the centre of the labels drawn, or of the scan without any.

    As radiologists look at them: the patient's right on the left of axial and coronal
    slices, front up in axial and left in sagittal ones, head up; true proportions.
    `colours`: "#rrggbb" of the outline by label value; equal colours have one outline.
    Labels of another shape than the image's are laid onto it by their headers.
    """
    placed = None if labels is None else _placed(image, labels)
    spacing_mm = image.spacing_mm
    drawn = None if placed is None else among(placed, colours)
    centre = _centre(drawn, image.voxels.shape)
    px_per_mm = WIDTH_PX / float((spacing_mm * image.voxels.shape)[1:].max())
    names = [*dict.fromkeys(colours.values())]
    slices = []
    for plane, axis in PLANES.items():
        index = centre[axis]
        hu = image.voxels.take(index, axis)
        outlined = None if placed is None else placed.take(index, axis)
        pixel_mm = np.delete(spacing_mm, axis)
        grey, outline = _drawn(hu, outlined, pixel_mm, px_per_mm, colours, names)
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
                palette_png(
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
        if sum(len(picture.png) for picture in pictures) <= MOST_BYTES:
            break
    return pictures


def colour(number: int) -> str:
    """Outline of organ `number`, counted from 0."""
    if number < len(COLOURS):
        return COLOURS[number]
    rgb = colorsys.hsv_to_rgb(number * 0.381966 % 1, 0.65, 1.0)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def _placed(image: Volume, labels: Volume) -> np.ndarray | None:
    """Label values on the image's grid; None where the grids cannot be laid over."""
    if labels.voxels.shape == image.voxels.shape:
        return labels.voxels
    # A frame of background: what lies beyond the label map repeats its edge.
    framed = np.pad(labels.voxels, 1)
    affine = labels.affine.copy()
    affine[:3, 3] -= affine[:3, :3].sum(1)
    try:
        return onto_grid(framed, affine, image.grid, order="nearest")
    except ValueError:  # turned against each other
        return None


def _centre(mask: np.ndarray | None, shape: tuple[int, ...]) -> list[int]:
    """By axis, the slice nearest to the centre of the mask that shows some of it."""
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


def _drawn(
    hu: np.ndarray,
    labels: np.ndarray | None,
    pixel_mm: np.ndarray,
    px_per_mm: float,
    colours: Mapping[int, str],
    names: list[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Grey in [0, 1] and the outline (0 none, else 1 + place in `names`), in pixels."""
    sides_mm = np.array(hu.shape) * pixel_mm
    scale = min(px_per_mm, TALLEST_PX / sides_mm.max())
    shape = np.maximum(np.rint(sides_mm * scale), 1).astype(int)
    places = [
        (np.arange(n) + 0.5) * old / n - 0.5
        for n, old in zip(shape, hu.shape, strict=True)
    ]
    low, high = WINDOW_HU
    grey = np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1)
    # The mean of what falls into a pixel: less noise to look at and to store.
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
            values = [value for value, given in colours.items() if given == name]
            mask = np.isin(shown, values)
            if mask.any():
                outline[mask & np.logical_not(ndimage.binary_erosion(mask))] = number
    return np.clip(grey, 0, 1), outline


def _palette(greys: int, names: list[str]) -> np.ndarray:
    ramp = np.rint(np.linspace(0, 255, greys))[:, None].repeat(3, axis=1)
    hues = [[int(name[i : i + 2], 16) for i in (1, 3, 5)] for name in names]
    return np.vstack([ramp, np.array(hues).reshape(-1, 3)])


def palette_png(indices: np.ndarray, palette: np.ndarray) -> bytes:
    """`indices [H, W]` uint8, `palette [N, 3]` uint8 RGB, N at most 256."""
    height, width = indices.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    # Rows are stored as differences from the row above (filter 2): CT is smooth.
    above = np.vstack([np.zeros((1, width), np.uint8), indices[:-1]])
    rows = np.hstack([np.full((height, 1), 2, np.uint8), indices - above])
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)
        for name, body in (
            (b"IHDR", header),
            (b"PLTE", palette.astype(np.uint8).tobytes()),
            (b"IDAT", zlib.compress(rows.tobytes(), 6)),
            (b"IEND", b""),
        )
        for crc in [zlib.crc32(name + body)]
    )
