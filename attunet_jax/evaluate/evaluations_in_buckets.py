"""Copies what an evaluation in a bucket tells to this host; nothing of checkpoints.

Needs no JAX.
"""

import re
from pathlib import Path

from attunet_jax.files import is_url
from attunet_jax.storage.mirror import mirrored
from attunet_jax.storage.run_folder import DESCRIPTION

# RUN/evaluation/PART, whose run tells how its network came to be.
_OF_RUN = re.compile(r"(.+://.+)/(evaluation/[^/]+)")
# The journal says that an evaluation was interrupted.
_SCORES = re.compile(r"(evaluation/[^/]+/)?(cases\.jsonl|\.cases\.jsonl\.new)")
_PICTURES = r"(label_maps/(labels\.json|[^/]+\.nii\.gz)|[^/]+\.png)"


def local_evaluation(
    place: Path | str, cache_dir: Path | None = None, *, pictures: bool = False
) -> Path:
    """Returns a local folder with what is read of an evaluation; a path as it is.

    Args:
      place: a run, an evaluation of one, or any folder with cases.jsonl; here, or the
        URL of one.
      cache_dir: where copies of buckets lie.
      pictures: whether the evaluation's label maps and pictures are copied as well,
        and not scores alone with what describes the run.

    Raises `BadArguments` and `BadData` as `mirrored`.
    """
    if not is_url(place):
        return Path(place)
    match = _OF_RUN.fullmatch(str(place).rstrip("/"))
    run, part = (match[1], match[2]) if match else (place, "")
    folder = f"{re.escape(part)}/" if part else "(evaluation/test/)?"
    drawn = re.compile(folder + _PICTURES)

    def is_read(name: str) -> bool:
        if name in DESCRIPTION or _SCORES.fullmatch(name):
            return True
        return pictures and drawn.fullmatch(name) is not None

    return mirrored(run, cache_dir, wanted=is_read) / part
