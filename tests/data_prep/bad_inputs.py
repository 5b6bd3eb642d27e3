"""Folders of scans as users send them: sound, odd but usable, and unusable in one way.

Each maker gets the place of one sound case (`Place`) and changes it; the name of the
function is the name of the case. What becomes of each is the table in docs/data.md.
"""

import gzip
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (8, 9, 10)  # of the arrays in the files: W, H, D
AFFINE = np.diag([-2.0, -2.0, 2.0, 1.0])
# Byte offsets of NIfTI-1 fields, from the standard's nifti1.h.
DIM, DATATYPE, PIXDIM, SLOPE, INTER, UNITS = 40, 70, 76, 112, 116, 123
QFORM_CODE, SFORM_CODE, QUATERN_B, SROW_X, MAGIC = 252, 254, 256, 280, 344


@dataclass(frozen=True)
class Place:
    """One case of the layout of `--source=nifti`, and how to write a DICOM series."""

    folder: Path
    name: str
    write_series: Callable[..., list[Path]]

    @property
    def image(self) -> Path:
        return self.folder / "images" / f"{self.name}.nii.gz"

    @property
    def label(self) -> Path:
        return self.folder / "labels" / f"{self.name}.nii.gz"

    def sound(self) -> tuple[np.ndarray, np.ndarray]:
        return sound(self.name)

    def dicom(self, **tags) -> list[Path]:
        """The image as a DICOM series instead; a tuple gives each slice its own."""
        self.image.unlink()
        hu, _ = self.sound()
        folder = self.image.parent / self.name
        words = {"origin": (0, 0, 0), "spacing": (2, 2, 2)} | tags
        return self.write_series(folder, hu.T, **words)


def sound(name: str) -> tuple[np.ndarray, np.ndarray]:
    """HU and organs 1, 2 and 3 in air, off the border; of each name its own."""
    label = np.zeros(SHAPE, np.uint8)
    label[1:4, 1:4, 1:4] = 1
    label[4:7, 4:7, 4:6] = 2
    label[1:3, 6:8, 6:9] = 3
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    label[6, 1:8, 1:9][rng.random((7, 8)) < 0.3] = 3
    noise = rng.integers(0, 60, SHAPE)
    return np.where(label > 0, 40 + noise, -1000 + noise).astype(np.int16), label


Maker = Callable[[Place], None]
USABLE: list[Maker] = []
UNUSABLE: list[Maker] = []


def usable(maker: Maker) -> Maker:
    USABLE.append(maker)
    return maker


def unusable(maker: Maker) -> Maker:
    UNUSABLE.append(maker)
    return maker


def make_corpus(folder: Path, makers: list[Maker], write_series: Callable) -> Path:
    """A case for each maker in images/ and labels/ of `folder`."""
    for make in makers:
        place = Place(folder, make.__name__, write_series)
        hu, label = place.sound()
        save(place.image, hu)
        save(place.label, label)
        make(place)
    return folder


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)  # pyright: ignore


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nib.load(path)  # pyright: ignore
    return np.asarray(image.dataobj).copy(), image.affine  # pyright: ignore


def patch(path: Path, *patches: tuple) -> None:
    """Overwrites fields of the header of a .nii.gz: (offset, struct's form, values)."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    for offset, form, *values in patches:
        struct.pack_into("<" + form, content, offset, *values)
    path.write_bytes(gzip.compress(content))


def unpacked(path: Path) -> Path:
    """The same as a .nii file."""
    plain = path.with_suffix("")
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
    return plain


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


# Odd and usable. Voxels and labels are those of `sound` unless EXPECTED says otherwise.


@usable
def as_it_should_be(at: Place) -> None:
    pass


@usable
def plain_nii(at: Place) -> None:
    unpacked(at.image)
    unpacked(at.label)


@usable
def left_handed_axes(at: Place) -> None:
    for path in (at.image, at.label):
        voxels, _ = load(path)
        moved = np.diag([2.0, -2, 2, 1])
        moved[0, 3] = -14.0
        save(path, voxels[::-1], moved)


@usable
def axes_in_another_order(at: Place) -> None:
    for path in (at.image, at.label):
        voxels, affine = load(path)
        save(path, voxels.transpose(2, 0, 1), affine[:, [2, 0, 1, 3]])


@usable
def voxels_of_float64(at: Place) -> None:
    save(at.image, at.sound()[0].astype(np.float64))


@usable
def big_endian(at: Place) -> None:
    hu, _ = at.sound()
    header = nib.Nifti1Header(endianness=">")  # pyright: ignore
    image = nib.Nifti1Image(hu.astype(">i2"), AFFINE, header)  # pyright: ignore
    nib.save(image, at.image)  # pyright: ignore


@usable
def scl_slope_of_zero(at: Place) -> None:
    patch(at.image, (SLOPE, "2f", 0, 0))


@usable
def scl_slope_of_nan(at: Place) -> None:
    patch(at.image, (SLOPE, "2f", np.nan, np.nan))


@usable
def four_dimensions_of_one_volume(at: Place) -> None:
    save(at.image, at.sound()[0][..., None])


@usable
def sform_and_qform_that_disagree(at: Place) -> None:
    for path in (at.image, at.label):
        patch(path, (QFORM_CODE, "h", 1), (QUATERN_B, "6f", 0, 0, 0, 70, 80, 90))


@usable
def neither_sform_nor_qform(at: Place) -> None:
    for path in (at.image, at.label):
        patch(path, (QFORM_CODE, "h", 0), (SFORM_CODE, "h", 0))


@usable
def sheared_affine(at: Place) -> None:
    affine = AFFINE.copy()
    affine[:3, 2] = [0, 2 * np.sin(0.2), 2 * np.cos(0.2)]
    for path in (at.image, at.label):
        save(path, load(path)[0], affine)


@usable
def label_off_by_a_rounding(at: Place) -> None:
    affine = AFFINE.copy()
    affine[2, 3] = 0.05
    save(at.label, at.sound()[1], affine)


@usable
def label_of_float32(at: Place) -> None:
    save(at.label, at.sound()[1].astype(np.float32))


@usable
def label_a_hair_off_whole_numbers(at: Place) -> None:
    label = at.sound()[1].astype(np.float32)
    save(at.label, np.where(label > 0, label - 1e-4, label))


@usable
def label_scaled_by_its_writer(at: Place) -> None:
    step = np.float32(3 / 200)  # 3 is 200 steps, 1 is 66.67: rounded
    save(at.label, np.rint(at.sound()[1] / step).astype(np.uint8))
    patch(at.label, (SLOPE, "2f", step, 0))


@usable
def unit_of_metres(at: Place) -> None:
    for path in (at.image, at.label):
        patch(
            path,
            (PIXDIM + 4, "3f", 2e-3, 2e-3, 2e-3),
            (SROW_X, "12f", -2e-3, *[0] * 4, -2e-3, *[0] * 4, 2e-3, 0),
            (UNITS, "B", 1),
        )


@usable
def unit_that_the_numbers_do_not_have(at: Place) -> None:
    patch(at.image, (UNITS, "B", 1))


@usable
def qfac_of_zero(at: Place) -> None:
    for path in (at.image, at.label):
        patch(path, (QFORM_CODE, "2h", 1, 0), (PIXDIM, "f", 0))


@usable
def quaternion_a_hair_too_long(at: Place) -> None:
    for path in (at.image, at.label):
        # Half a turn about z: d alone is 1, but for digits lost.
        patch(path, (QFORM_CODE, "2h", 1, 0), (QUATERN_B, "3f", 0, 0, 1.0004))


@usable
def pixdim_unlike_the_sform(at: Place) -> None:
    patch(at.image, (PIXDIM + 4, "2f", 1.5, 1.5))


@usable
def values_from_0_to_255(at: Place) -> None:
    save(at.image, np.clip(at.sound()[0], 0, 255))


@usable
def values_without_the_offset(at: Place) -> None:
    save(at.image, at.sound()[0] + np.int16(1024))


@usable
def empty_label(at: Place) -> None:
    save(at.label, np.zeros(SHAPE, np.uint8))


@usable
def organ_missing(at: Place) -> None:
    label = at.sound()[1]
    save(at.label, np.where(label == 2, 0, label).astype(np.uint8))


def _renamed(at: Place, name: str) -> None:
    for path in (at.image, at.label):
        path.rename(path.with_name(f"{name}.nii.gz"))


@usable
def name_with_spaces(at: Place) -> None:
    _renamed(at, "name with spaces")


@usable
def name_beyond_ascii(at: Place) -> None:
    _renamed(at, "Größe 患者")


@usable
def link_to_a_scan(at: Place) -> None:
    moved = at.folder / "elsewhere.nii.gz"
    at.image.rename(moved)
    at.image.symlink_to(moved)


@usable
def endings_in_capitals(at: Place) -> None:
    for path in (at.image, at.label):
        path.rename(path.with_name(f"{at.name}.NII.GZ"))


@usable
def letters_composed_and_not(at: Place) -> None:
    at.image.rename(at.image.with_name("Gro\u0308\u00dfe.nii.gz"))
    at.label.rename(at.label.with_name("Gr\u00f6\u00dfe.nii.gz"))


@usable
def scan_in_a_folder_of_its_own(at: Place) -> None:
    (at.image.parent / at.name).mkdir()
    at.image.rename(at.image.parent / at.name / "ct.nii.gz")


@usable
def dicom_without_endings(at: Place) -> None:
    at.dicom()


def _beside(at: Place, **tags) -> None:
    """The series with one more file among its slices."""
    folder = at.dicom()[0].parent
    at.write_series(folder, np.zeros((1, *SHAPE[1::-1])), name="more", **tags)


@usable
def dicom_with_a_scout(at: Place) -> None:
    _beside(at, orientation=(1, 0, 0, 0, 0, -1))


@usable
def dicom_with_a_screen_capture(at: Place) -> None:
    _beside(at, ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])


@usable
def dicom_with_a_report(at: Place) -> None:
    _beside(at, Modality="SR", uid="1.2.9.9")


@usable
def dicom_slice_copied(at: Place) -> None:
    file = at.dicom(name="{}.dcm")[4]
    file.with_name("5 (1).dcm").write_bytes(file.read_bytes())


@usable
def dicom_directions_off_by_a_rounding(at: Place) -> None:
    small = [0.0005 + (-1) ** k * 1e-7 for k in range(SHAPE[2])]
    at.dicom(ImageOrientationPatient=tuple([1, e, 0, -e, 1, 0] for e in small))


def expected(name: str) -> tuple[np.ndarray, np.ndarray]:
    """HU and label `[D, H, W]` that a usable case must become at 2 mm, by hand."""
    hu, label = (voxels.T for voxels in sound(name))
    if name == "neither_sform_nor_qform":  # NIfTI: then x runs to the left, y forwards
        hu, label = (voxels[:, ::-1] for voxels in (hu, label))
    if name == "values_from_0_to_255":
        hu = np.clip(hu, 0, 255)
    if name == "values_without_the_offset":
        hu = hu + 1024
    if name == "empty_label":
        label = np.zeros_like(label)
    if name == "organ_missing":
        label = np.where(label == 2, 0, label)
    return hu, label


CASE_IDS = {  # others: the name of the maker
    "name_beyond_ascii": "Größe_患者",
    "letters_composed_and_not": "Größe",
}
