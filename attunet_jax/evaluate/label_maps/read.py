"""Reads a truth and a prediction onto one grid, the truth's."""

from attunet_jax.data.segments import of_slicer
from attunet_jax.errors import BadData
from attunet_jax.evaluate.label_maps.find import LabelMapFile, Pair
from attunet_jax.evaluate.label_maps.masks import read_masks
from attunet_jax.evaluate.label_maps.meaning import Meaning
from attunet_jax.volume import (
    GEOMETRY_TOLERANCE_MM,
    Volume,
    checks,
    labels_on_grid_of,
    on_image,
    read_grid,
    read_labels,
    same_geometry,
)
from attunet_jax.volume.volume import sizes_text

RESAMPLE = "--resample puts the prediction onto the truth's grid"


def read_label_map(file: LabelMapFile, wanted: set[int] | None = None) -> Volume:
    """Reads a label map, `[D, H, W]`, uint8 or uint16.

    Of masks those with the values `wanted`, or all. Raises `BadData` where the file is
    damaged, or a scan.
    """
    if file.masks:
        return read_masks(file.masks, wanted or {value for _, value in file.masks})
    volume = read_labels(file.path)
    if not checks.is_label_map(volume.voxels):
        raise BadData(
            f"{file.path}: a scan, not a label map (values up to {volume.voxels.max()}"
            ", no areas of one value); give the folder of the label maps"
        )
    return volume


def read_pair(
    pair: Pair, meaning: Meaning | None, *, resample: bool
) -> tuple[Volume, Volume, bool]:
    """Reads both; the last result says whether the prediction was resampled.

    Raises `BadData` as `read_label_map`, and where the two lie on other grids, unless
    `resample`: then the prediction is put onto the truth's by nearest neighbour.
    """
    wanted: list[set[int] | None] = [None, None]
    if meaning is not None:
        of_truth = {value for organ in meaning.organs for value in organ.truth}
        of_prediction = {v for organ in meaning.organs for v in organ.prediction}
        wanted = [of_truth, of_prediction]
    truth = read_label_map(pair.truth, wanted[0])
    prediction = read_label_map(pair.prediction, wanted[1])
    # 3D Slicer cuts its label maps to what is labelled.
    organs = meaning.organs if meaning else ()
    if pair.truth.of_slicer:
        named = {organ.name: organ.truth for organ in organs}
        truth = of_slicer(truth, prediction, named)
    if pair.prediction.of_slicer:
        named = {organ.name: organ.prediction for organ in organs}
        prediction = of_slicer(prediction, truth, named)
    prediction = on_image(prediction, truth)
    if not (difference := other_grid(truth, prediction)):
        return truth, prediction, False
    if not resample:
        raise BadData(difference)
    return truth, labels_on_grid_of(prediction, truth), True


def other_grid_of_headers(pair: Pair) -> str | None:
    """Says so where the headers of a pair are of other grids; no voxel is read.

    None for headers that cannot be read, or of label maps that are cut: reading the
    files says why.
    """
    if pair.truth.of_slicer or pair.prediction.of_slicer:
        return None
    try:
        truth, prediction = (
            read_grid(file.files[0])[0] for file in (pair.truth, pair.prediction)
        )
    except (BadData, OSError):
        return None
    return other_grid(truth, on_image(prediction, truth))


def other_grid(truth: Volume, prediction: Volume) -> str | None:
    """Says so where voxels of equal index do not lie at the same place."""
    difference = same_geometry(truth, prediction, GEOMETRY_TOLERANCE_MM)
    if difference is None:
        return None
    return (
        f"{prediction.path}: {grid_text(prediction)}, its truth {grid_text(truth)} "
        f"(D x H x W){_where(truth, prediction, difference)}; {RESAMPLE}"
    )


def grid_text(volume: Volume) -> str:
    """Returns sizes and spacing, D x H x W."""
    sizes = sizes_text(volume.voxels.shape)
    return f"{sizes} voxels of {sizes_text(volume.spacing_mm.round(4))} mm"


def _where(truth: Volume, prediction: Volume, difference: str) -> str:
    if truth.voxels.shape != prediction.voxels.shape:
        return ""
    return f": {difference}"
