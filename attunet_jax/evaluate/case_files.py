"""What an evaluation keeps of a case: a picture, a label map on the scan's own grid."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attunet_jax import volume as volumes
from attunet_jax.data.dataset import Dataset
from attunet_jax.data.records import Case
from attunet_jax.evaluate.pictures import overlay_png
from attunet_jax.predict.predictor import Predictor


@dataclass(frozen=True)
class CaseFiles:
    """Places and writes the files of cases in the folder of an evaluation."""

    folder: Path
    predictor: Predictor
    dataset: Dataset

    def picture(self, case_id: str) -> Path:
        return self.folder / f"{case_id}.png"

    def label_map(self, case_id: str) -> Path:
        return self.folder / "label_maps" / f"{case_id}.nii.gz"

    def draw(self, case: Case, prediction: np.ndarray, rows: list[dict]) -> None:
        """Draws slices with the outlines of truth and prediction, under their Dice."""
        dice = ", ".join(
            f"{row['organ']} {row['dice']:.2f}"
            for row in rows
            if row["dice"] is not None
        )
        overlay_png(
            self.picture(case.case_id),
            case.image_hu,
            self.dataset.labels.relabel(case.label, self.predictor.classes),
            prediction,
            case.spacing_mm,
            self.predictor.labels.values,
            f"{case.case_id}: Dice {dice}",
        )

    def write_label_map(self, case: Case, prediction: np.ndarray) -> None:
        """Writes a prediction [D, H, W] as it lies on the scan that was prepared."""
        depth, height, width = case.original_shape
        placement = case.original_placement
        if placement is not None:
            placement = volumes.Placement.of_numbers(placement)
        shape = (depth, height, width)
        grid = volumes.Grid(shape, case.original_affine, placement)
        on_grid = volumes.onto_grid(prediction, case.affine, grid, order="nearest")
        volumes.write_on_grid(self.label_map(case.case_id), on_grid, grid)
