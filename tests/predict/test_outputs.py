"""Where label maps go."""

from pathlib import Path

import pytest

from attunet_jax.data.identity import Found, FoundScan
from attunet_jax.errors import BadArguments
from attunet_jax.predict.outputs import outputs_of


def test_a_scan_whose_record_would_be_labels_json_is_refused():
    scan = Path("in/labels.nii.gz")
    found = Found([FoundScan("labels", scan, (scan,))])
    with pytest.raises(BadArguments, match=r"in/labels.nii.gz.*labels\.json"):
        outputs_of(found, scan, Path("out"))
    (one,) = outputs_of(found, scan, Path("out/organs.nii.gz"))
    assert one.label_map == Path("out/organs.nii.gz")
