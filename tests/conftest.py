"""What every test runs on: eight simulated CPU devices and the optional shared data."""

import os
import signal
from importlib.metadata import version
from pathlib import Path

# Before jax is imported anywhere: the device count is fixed at its first use.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Optimised machine code takes longer to make than these tests run it.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if version("jaxlib").startswith("0.10."):  # later ones end at a flag they do not know
    QUICK += " --xla_cpu_use_fusion_emitters=false"  # a third of the time to compile
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count=8 {QUICK}")

import pytest  # noqa: E402
from absl import flags  # noqa: E402

from tests.storage.emulators import (  # noqa: E402, F401
    _gs_server,
    _s3_server,
    buckets,
    gs,
    s3,
)

# A shell that starts the suite in the background has it ignore Ctrl-C, and whatever it
# starts would inherit that: the tests of Ctrl-C need the handler.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Grain asks absl for flags even where no program has parsed any.
flags.FLAGS.mark_as_parsed()

DOCS = Path(__file__).resolve().parents[1] / "docs"
SHARED = Path(__file__).resolve().parents[2] / "shared"


# What lasts longest begins first: begun last, it would leave the other process idle.
LONGEST = (
    "launch/test_demo.py",
    "launch/test_fine_tuning.py",
    "launch/test_gpu_check.py",
    "train/test_resume.py",
    "train/test_sharded_step.py",
    "ops/test_cpu_forms.py",
    "launch/cluster/test_several_processes.py",
    "data_prep/test_stopped_runs.py",
    "launch/benchmark/test_benchmark.py",
    "test_tutorial.py",
    "train/test_split_depth.py",
    "launch/test_evaluate.py",
    "launch/test_predict_attention.py",
    "launch/test_train.py",
    "launch/test_predict.py",
)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # xdist: files with most tests first


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {Path(__file__).parent / name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-docs",
        action="store_true",
        help="write the generated tables of docs/ instead of comparing them",
    )


@pytest.fixture
def check_generated(request):
    """Compares a generated block of a page of docs/, or writes it (--write-docs)."""

    def check(page: str, block: str, content: str) -> None:
        text = (DOCS / page).read_text(encoding="utf-8")
        begin, end = f"<!-- {block}: begin -->\n", f"<!-- {block}: end -->\n"
        before, _, rest = text.partition(begin)
        written, found, after = rest.partition(end)
        assert found, f"docs/{page} has no block {block}"
        if request.config.getoption("--write-docs"):
            text = before + begin + content + end + after
            (DOCS / page).write_text(text, encoding="utf-8")
        else:
            assert written == content, f"docs/{page}: run with --write-docs"

    return check


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real scans and reference figures kept beside a developer's checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no folder shared/ with real data beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def scan_folder(tmp_path_factory) -> Path:
    """Ten small scans with label maps as NIfTI files: bright balls in noise."""
    import nibabel as nib
    import numpy as np

    folder = tmp_path_factory.mktemp("scans")
    for name in ("images", "labels"):
        (folder / name).mkdir()
    affine = np.diag([-2.0, -2.0, 2.5, 1.0])
    axes = np.ogrid[:36, :40, :30]
    for i in range(10):
        rng = np.random.default_rng(i)
        label = np.zeros((36, 40, 30), np.uint8)
        for value in (1, 2, 3):
            centre = rng.integers(9, 21, 3)
            apart = sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True))
            label[apart < 49] = value
        image = np.array([-300, 0, 150, 300])[label] + rng.normal(0, 40, label.shape)
        for kind, voxels in (("images", image.astype(np.int16)), ("labels", label)):
            nifti = nib.Nifti1Image(voxels, affine)  # pyright: ignore
            nib.save(nifti, folder / kind / f"ball_{i}.nii.gz")  # pyright: ignore
    return folder


@pytest.fixture(scope="session")
def write_series():
    """Writes a DICOM CT series as a scanner would: one file a slice, without ending.

    `hu [slice, row, column]`; `origin` is the centre of its first voxel in DICOM's
    LPS mm, `spacing` that of slices, rows, columns. Further words are tags; a tuple
    gives each slice its own. Returns the files in the order of the slices.
    """
    import numpy as np
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

    def write(
        folder: Path,
        hu,
        *,
        origin=(-30.0, -40.0, 50.0),
        spacing=(2.5, 0.75, 0.5),
        orientation=(1, 0, 0, 0, 1, 0),
        slope=1,
        intercept=-1024,
        name="IM{:04}",
        uid="1.2.826.0.1.3680043.8.498.1",
        **tags,
    ) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        normal = np.cross(orientation[:3], orientation[3:])
        files = []
        for index, values in enumerate(hu):
            data = Dataset()
            data.file_meta = FileMetaDataset()
            data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
            own = UID(f"{uid}.{index + 1}")
            data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = own
            data.SeriesInstanceUID, data.StudyInstanceUID = uid, "1.2.826.0.1.9"
            data.Modality, data.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
            data.InstanceNumber, data.SeriesDescription = index + 1, "Abdomen 2.5"
            place = np.add(origin, index * spacing[0] * normal)
            data.ImagePositionPatient = [round(float(p), 6) for p in place]
            data.ImageOrientationPatient = list(orientation)
            data.PixelSpacing = [spacing[1], spacing[2]]
            data.Rows, data.Columns = values.shape
            data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
            data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
            data.RescaleSlope, data.RescaleIntercept = slope, intercept
            data.PixelRepresentation = 1
            stored = np.round((values.astype(float) - intercept) / slope)
            data.PixelData = stored.astype("<i2").tobytes()
            for tag, value in tags.items():
                setattr(data, tag, value[index] if type(value) is tuple else value)
            files.append(folder / name.format(index + 1))
            data.save_as(files[-1], enforce_file_format=True)
        return files

    return write


@pytest.fixture(scope="session")
def prepared(scan_folder, tmp_path_factory) -> Path:
    """The same scans prepared at 4 mm: shards, manifest.json and splits.json."""
    from data_prep import prepare

    folder = tmp_path_factory.mktemp("prepared")
    status = prepare.main(
        [
            "--source=nifti",
            f"--input={scan_folder}",
            f"--output={folder}",
            "--labels=spleen=1,pancreas=2,kidney=3",
            "--spacing_mm=4",
            "--workers=1",
            "--cases_per_shard=4",
        ]
    )
    assert status == 0
    return folder


@pytest.fixture(scope="session")
def tiny_flags() -> tuple[str, ...]:
    """A network and crops so small that a program's run is mostly start-up."""
    return (
        "--config.model.widths=(4,6)",
        "--config.model.gating_channels=6",
        "--config.data.crop_shape=(16,16,16)",
        "--config.data.read_shape=(16,20,20)",
        "--config.optimizer.learning_rate=0.01",
        # The form whose programs can be kept: a second start compiles nothing.
        "--config.model.convolution=compiler",
    )


@pytest.fixture(scope="session")
def quick_program(tmp_path_factory) -> dict[str, str]:
    """The environment of a program that compiles fast, and nothing a second time.

    What it compiled is kept for the programs of all the suite's processes.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    return {
        "XLA_FLAGS": QUICK,
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compilation_cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture(scope="module")
def compiled_once(quick_program):
    """What the tests of a file compile in this process is kept for all the others."""
    import jax
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    kept = {
        "jax_compilation_cache_dir": quick_program["JAX_COMPILATION_CACHE_DIR"],
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }
    before = {name: jax.config.values[name] for name in kept}
    for name, value in kept.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()  # or the files after this one would use it too


@pytest.fixture(scope="session")
def run_program(quick_program):
    """Starts a program as a user would, on one CPU device; returns the process."""
    import subprocess
    import sys

    def start(module: str, *words: object) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", module, *map(str, words)],
            cwd=Path(__file__).resolve().parents[1],
            env=os.environ | quick_program,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def read_events():
    """(tag, step, value) of all scalars in TensorBoard's files, in their order."""
    from tensorboardX.proto import event_pb2

    def read(folder: Path) -> list[tuple[str, int, float]]:
        found = []
        for path in sorted(folder.iterdir()):
            content = path.read_bytes()
            while content:
                # A record: its length (8 bytes), a checksum (4), itself, another (4).
                length = int.from_bytes(content[:8], "little")
                event = event_pb2.Event.FromString(content[12 : 12 + length])  # pyright: ignore[reportAttributeAccessIssue]
                content = content[16 + length :]
                found += [
                    (v.tag, event.step, v.simple_value) for v in event.summary.value
                ]
        return found

    return read
