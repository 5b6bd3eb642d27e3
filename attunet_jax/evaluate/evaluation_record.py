"""What was evaluated: evaluation.json beside cases.jsonl, read without JAX.

    {"format": "attunet_jax.evaluation", "version": 1, "workdir": "RUN", "step": 300,
     "newest_step": 300, "weights": ..., "settings": {"checkpoint": "best", ...},
     "split": "80_20", "part": "test", "split_sha256": ..., "manifest_sha256": ...,
     "train_cases": 29, "parameters": 397612, "environment": {...},
     "inference": {"seconds": 0.09, "shape": [40, 48, 64], "device": "cpu"}}

Tables and reports need it beside the scores, and by it a finished evaluation is known.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attunet_jax.files import write_text
from attunet_jax.storage.names import shown
from attunet_jax.storage.run_folder import whole_steps

if TYPE_CHECKING:
    from attunet_jax.data.dataset import Dataset
    from attunet_jax.predict.predictor import Predictor

RECORD = "evaluation.json"
FORMAT, FORMAT_VERSION = "attunet_jax.evaluation", 1


def newest_step(workdir: Path) -> int | None:
    """Returns the newest step of which `workdir` has a whole checkpoint."""
    return max(whole_steps(workdir), default=None)


def write_record(
    folder: Path,
    predictor: "Predictor",
    dataset: "Dataset",
    *,
    workdir: Path,
    split: str | None,
    part: str,
    timing: bool,
) -> None:
    """Writes `folder/evaluation.json`.

    Args:
      workdir: of the run that was evaluated.
      split: the split whose `part` was evaluated; None for all cases.
      timing: whether a forward pass of the training's crops is timed for it.
    """
    import jax  # late: reading needs none of these

    from attunet_jax.train.state import parameter_count
    from attunet_jax.train.workdir import environment

    config = predictor.run["config"]
    inference = None
    if timing:
        depth, height, width = config["data"]["crop_shape"]
        inference = {
            "seconds": predictor.forward_seconds((depth, height, width)),
            "shape": [depth, height, width],
            "device": jax.devices()[0].device_kind,
        }
    of_split = {"split": split, "part": part, "split_sha256": None, "train_cases": None}
    if split is not None:
        of_split["split_sha256"] = dataset.split_sha256(split)
        of_split["train_cases"] = len(dataset.split(split)["train"])
    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "workdir": shown(workdir),
        "step": predictor.step,
        "newest_step": newest_step(workdir),
        "weights": predictor.identity["weights"],
        "settings": config["predict"],
        "manifest_sha256": dataset.manifest_sha256,
        **of_split,
        "parameters": parameter_count(predictor.variables["params"]),
        "inference": inference,
        "environment": environment(),
    }
    write_text(folder / RECORD, json.dumps(content, indent=2) + "\n")


def read_record(folder: Path) -> dict[str, Any] | None:
    """Reads `folder/evaluation.json`; None where there is none that can be used."""
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        known = content["format"], content["version"]
        _ = dict(content["settings"]), dict(content["environment"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content if known == (FORMAT, FORMAT_VERSION) else None
