"""Names of the files of attention coefficients: no scans and no label maps.

`NAME_attention_gate2_sub1.nii.gz` beside the label map NAME: of the gate of scale 2,
its first sub-gate. Without `_sub1` where each gate has one.
"""

import re
from pathlib import Path

from attunet_jax.volume.endings import split_ending

ENDING = ".nii.gz"
_NAME = re.compile(r"(.+)_attention_gate\d+(?:_sub\d+)?")


def attention_file(label_map: Path, gate: int, sub_gate: int | None) -> Path:
    """Returns the file of a gate's coefficients, or of one of its several sub-gates."""
    of_sub_gate = f"_sub{sub_gate}" if sub_gate else ""
    name = f"{_stem(label_map)}_attention_gate{gate}{of_sub_gate}{ENDING}"
    return label_map.with_name(name)


def is_attention_name(file: str) -> bool:
    """Returns whether a file is named as attention coefficients are."""
    return _NAME.fullmatch(split_ending(file)[0]) is not None


def is_attention_of(file: str, label_map: Path) -> bool:
    """Returns whether a file is named as attention coefficients beside a label map."""
    match = _NAME.fullmatch(split_ending(file)[0])
    return match is not None and file.endswith(ENDING) and match[1] == _stem(label_map)


def _stem(label_map: Path) -> str:
    return split_ending(label_map.name)[0]
