"""Memory that is stated before the start, and what the kernel counted afterwards."""

import gzip
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SHAPE = 512, 512, 200
SCAN_BYTES = 2 * 512 * 512 * 200


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A scan of 512 x 512 x 200: rows of the same noise, which pack quickly."""
    import nibabel as nib

    folder = tmp_path_factory.mktemp("large")
    row = np.random.default_rng(0).integers(-900, 900, 512).astype(np.int16)
    label = np.zeros(512, np.uint8)
    label[100:300] = 1
    for kind, line in (("images", row), ("labels", label)):
        header = nib.Nifti1Header()  # pyright: ignore
        header.set_data_dtype(line.dtype)
        header.set_data_shape(SHAPE)
        header.set_sform(np.diag([-0.8, -0.8, 1, 1]), 1)
        header["vox_offset"] = 352
        header["magic"] = b"n+1"
        (folder / kind).mkdir()
        voxels = np.broadcast_to(line, SHAPE[::-1]).tobytes()
        path = folder / kind / "a.nii.gz"
        path.write_bytes(gzip.compress(header.binaryblock + bytes(4) + voxels, 1))
    return folder


# The kernel counts what a process was forked from as well, and pytest is large by now:
# so a small process starts the program, and says its figure.
BETWEEN = """
import os, sys
words = [sys.executable, "-m", *sys.argv[1:]]
_, status, usage = os.wait4(os.spawnv(os.P_NOWAIT, sys.executable, words), 0)
print(usage.ru_maxrss * 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def measured(program: str, *words: str) -> tuple[str, int]:
    """What a program says, and the most bytes its only process ever had."""
    more = ("--source=nifti", "--labels=spleen=1", "--workers=1")
    done = subprocess.run(
        [sys.executable, "-c", BETWEEN, program, *words, *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr, int(done.stdout.split()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit")
@pytest.mark.parametrize(
    ("more", "cases"), [((), 3), (("--blur_mm=0.75",), 1)], ids=["plain", "blurred"]
)
def test_a_process_takes_at_most_what_was_stated_and_six_times_a_scan(
    large, tmp_path, more, cases
):
    for path in large.glob("*/a.nii.gz"):
        for name in "abc"[:cases]:
            link = tmp_path / "scans" / path.parent.name / f"{name}.nii.gz"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    words = (f"--input={tmp_path / 'scans'}", f"--output={tmp_path / 'out'}", *more)
    said, used = measured("data_prep.prepare", *words)
    (stated,) = re.findall(r"^prepare: memory: at most (\S+) GB a process", said, re.M)
    # The whole program is this process, from Python's start to its end.
    assert SCAN_BYTES < used <= float(stated) * 1e9 <= 6 * SCAN_BYTES


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit")
def test_a_look_takes_at_most_what_was_stated(large, tmp_path):
    words = (f"--input={large}", f"--output={tmp_path / 'look'}")
    said, used = measured("data_prep.verify", *words)
    (stated,) = re.findall(r"^verify: memory: at most (\S+) GB a process", said, re.M)
    assert SCAN_BYTES < used <= float(stated) * 1e9 <= 6 * SCAN_BYTES


def test_a_statement_is_made_of_headers_alone(large, tmp_path):
    """The voxels of this copy are damaged, and nobody sees it."""
    from data_prep import resources
    from data_prep.case import Settings
    from data_prep.sources.layout import ScanPair

    content = bytearray((large / "images" / "a.nii.gz").read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    damaged = tmp_path / "a.nii.gz"
    damaged.write_bytes(content)
    settings = Settings({"spleen": (1,)}, (2.0, 2.0, 2.0), 0.0, False)
    needed = [
        resources.case_bytes(ScanPair("a", path, None), settings)
        for path in (damaged, large / "images" / "a.nii.gz")
    ]
    assert needed[0] == needed[1] > SCAN_BYTES


def test_without_workers_no_more_processes_start_than_memory_holds(
    large, monkeypatch, capfd
):
    from attunet_jax import workers
    from data_prep import resources
    from data_prep.case import Settings
    from data_prep.shard import ShardSpec
    from data_prep.sources.layout import ScanPair

    pair = ScanPair("a", large / "images" / "a.nii.gz", None)
    settings = Settings({"spleen": (1,)}, (2.0, 2.0, 2.0), 0.0, False)
    specs = [ShardSpec(i, 9, (pair,), large, settings) for i in range(9)]
    each = resources.prepare_bytes(specs)
    monkeypatch.setattr(workers, "core_count", lambda: 8)
    monkeypatch.setattr(workers, "available_bytes", lambda: 3 * each + 1)
    assert workers.choose_workers("prepare", each, 9, None) == 3
    assert "give fewer" not in capfd.readouterr().err
    assert workers.choose_workers("prepare", each, 9, 4) == 4  # a request counts
    assert "are available: give fewer --workers" in capfd.readouterr().err
