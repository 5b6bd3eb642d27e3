"""Phantoms as files: the same for the same seed, and anatomy where anatomy is.

Bounds of volumes and HU hold for 200 phantoms of 100 seeds, measured on 2026-11-24 with
nibabel and scipy; each test looks at some of them.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from attunet_jax.errors import exit_status
from data_prep import phantom

SPLEEN, PANCREAS, KIDNEY = 1, 2, 3
CASES = 4
SEEDS = (1, 2, 3)


class Scan(NamedTuple):
    """One phantom as nibabel turns it to RAS+: axes to right, front and head."""

    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray

    def points_mm(self, mask: np.ndarray) -> np.ndarray:
        """World places (n, 3) of a mask's voxels, the body's centre at 0."""
        body = self.image > -300
        middle = np.argwhere(body).mean(0)
        return (np.argwhere(mask) - middle) @ self.affine[:3, :3].T

    def centre_mm(self, mask: np.ndarray) -> np.ndarray:
        return self.points_mm(mask).mean(0)


def make(folder: Path | str, *words: object) -> int:
    return exit_status(
        lambda: phantom.main([f"--output={folder}", "--workers=1", *map(str, words)])
    )


def files(folder: Path) -> dict[str, str]:
    """SHA-256 of everything below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def load(path: Path) -> tuple[Any, np.ndarray]:
    image: Any = nib.load(path)  # pyright: ignore
    return image, np.asarray(image.dataobj)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[int, Path]:
    """Some phantoms of each seed."""
    made = {}
    for seed in SEEDS:
        made[seed] = tmp_path_factory.mktemp("phantoms") / "scans"
        assert make(made[seed], f"--cases={CASES}", f"--seed={seed}") == 0
    return made


@pytest.fixture(scope="module")
def pairs(folders) -> list[tuple[Path, Path]]:
    names = [f"phantom_{i:03}.nii.gz" for i in range(CASES)]
    return [
        (folder / "images" / name, folder / "labels" / name)
        for folder in folders.values()
        for name in names
    ]


@pytest.fixture(scope="module")
def scans(pairs) -> list[Scan]:
    turned = []
    for image_path, label_path in pairs:
        image = nib.as_closest_canonical(nib.load(image_path))  # pyright: ignore
        label = nib.as_closest_canonical(nib.load(label_path))  # pyright: ignore
        turned.append(
            Scan(np.asarray(image.dataobj), np.asarray(label.dataobj), image.affine)
        )
    return turned


def test_the_folder_holds_equally_named_images_and_labels_and_nothing_else(folders):
    names = [f"phantom_{i:03}.nii.gz" for i in range(CASES)]
    for folder in folders.values():
        expected = [f"{kind}/{n}" for kind in ("images", "labels") for n in names]
        assert sorted(files(folder)) == [*expected, "phantom.json"]


def test_the_same_seed_makes_the_same_bytes_in_other_processes(
    folders, tmp_path, run_program
):
    words = (f"--output={tmp_path}", f"--cases={CASES}", "--seed=1", "--workers=2")
    process = run_program("data_prep.phantom", *words)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert files(tmp_path) == files(folders[1])


def test_other_seeds_and_numbers_make_other_patients(pairs):
    digests = {hashlib.sha256(load(image)[1].tobytes()).digest() for image, _ in pairs}
    assert len(digests) == len(SEEDS) * CASES
    masks = {np.bincount(load(label)[1].ravel()).tobytes() for _, label in pairs}
    assert len(masks) == len(SEEDS) * CASES


def test_a_phantom_does_not_depend_on_how_many_are_made(folders, tmp_path):
    assert make(tmp_path, "--cases=2", "--seed=2") == 0
    fewer, more = files(tmp_path), files(folders[2])
    assert fewer == {name: more[name] for name in fewer}


def test_voxels_are_int16_hu_and_labels_0_to_3(pairs):
    for image_path, label_path in pairs:
        image, hu = load(image_path)
        label, labels = load(label_path)
        assert hu.dtype == np.int16 and labels.dtype == np.uint8
        assert hu.shape == labels.shape
        assert set(np.unique(labels)) == {0, SPLEEN, PANCREAS, KIDNEY}
        assert -1024 <= hu.min() < -900 and 300 < hu.max() <= 3071
        np.testing.assert_array_equal(image.affine, label.affine)
        assert (image.dataobj.slope, image.dataobj.inter) == (1, 0)


def test_the_spacing_that_nibabel_reads_is_that_of_the_affine_and_of_ct(pairs):
    spacings = []
    for path, _ in pairs:
        image, hu = load(path)
        zooms = np.array(image.header.get_zooms(), float)
        np.testing.assert_allclose(
            zooms, np.linalg.norm(image.affine[:3, :3], axis=0), rtol=1e-6
        )
        assert image.header.get_xyzt_units()[0] == "mm"
        # Where the axes lie is up to the file: sort them by body axis (R, A, S).
        codes = nib.aff2axcodes(image.affine)  # pyright: ignore
        order = [
            next(i for i, code in enumerate(codes) if code in pair)
            for pair in ("LR", "AP", "IS")
        ]
        across, deep, along = zooms[order]
        assert across == deep and 2.6 <= across <= 3.4
        assert 2.5 <= along <= 5.0
        size = np.array(hu.shape)[order] * zooms[order]
        assert (np.abs(size - (300, 216, 176)) <= zooms[order] / 2 + 1e-3).all()
        spacings.append((across, along))
    assert len(set(spacings)) == len(pairs)


def test_axis_orders_and_directions_vary_and_stay_right_angled(pairs):
    codes = []
    for path, _ in pairs:
        affine = load(path)[0].affine
        codes.append("".join(nib.aff2axcodes(affine)))  # pyright: ignore
        axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        np.testing.assert_array_equal(np.sort(np.abs(axes), 0)[:2], 0)
    assert len(set(codes)) >= 8 and {code[0] for code in codes} > {"L", "R"}
    opposite = str.maketrans("LPI", "RAS")
    assert len({code.translate(opposite) for code in codes}) >= 4  # of six orders


def test_organs_are_as_large_as_organs_are(scans):
    volumes_ml = np.array(
        [
            [
                (scan.label == organ).sum() * abs(np.linalg.det(scan.affine)) / 1000
                for organ in (SPLEEN, PANCREAS, KIDNEY)
            ]
            for scan in scans
        ]
    )
    spleen, pancreas, kidney = volumes_ml.T
    assert 30 < spleen.min() and spleen.max() < 400
    assert 40 < pancreas.min() and pancreas.max() < 140
    assert 100 < kidney.min() and kidney.max() < 600
    assert 80 < np.median(spleen) < 250
    assert 60 < np.median(pancreas) < 110
    assert 150 < np.median(kidney) < 400
    assert (volumes_ml.std(0) > 0.1 * volumes_ml.mean(0)).all()  # patients differ


def test_each_organ_is_one_piece_and_kidneys_are_two(scans):
    touching = np.ones((3, 3, 3))
    for scan in scans:
        for organ, pieces in ((SPLEEN, 1), (PANCREAS, 1), (KIDNEY, 2)):
            parts = np.empty(scan.label.shape, np.int32)
            ndimage.label(scan.label == organ, touching, output=parts)
            sizes = np.sort(np.bincount(parts.ravel())[1:])[::-1]
            assert len(sizes) >= pieces
            assert sizes[:pieces].sum() > 0.99 * sizes.sum()


def test_the_pancreas_is_about_as_bright_as_the_soft_tissue_around_it(scans):
    differences = []
    for scan in scans:
        gland = scan.label == PANCREAS
        around = ndimage.binary_dilation(gland, iterations=2) & ~gland
        hu = scan.image[around]
        soft = hu[(hu >= -20) & (hu <= 150)]
        assert soft.size > 200
        differences.append(scan.image[gland].mean() - np.median(soft))
    assert np.abs(differences).max() < 50
    assert abs(np.mean(differences)) < 30


def test_hu_alone_does_not_tell_the_pancreas_from_the_rest(scans):
    for scan in scans:
        gland = scan.label == PANCREAS
        low, high = np.percentile(scan.image[gland], [5, 95])
        alike = (scan.image >= low) & (scan.image <= high)
        assert (alike & ~gland).sum() > 5 * gland.sum()


def test_the_spleen_is_on_the_patients_left_and_the_liver_on_the_right(scans):
    for scan in scans:
        # RAS+: x grows towards the patient's right.
        assert scan.centre_mm(scan.label == SPLEEN)[0] < -30
        soft = (scan.image > 70) & (scan.image < 140) & (scan.label == 0)
        bulk = ndimage.binary_opening(soft, iterations=2)
        assert (scan.points_mm(bulk)[:, 0] > 0).mean() > 0.7


def test_a_kidney_lies_on_either_side(scans):
    for scan in scans:
        on_the_left = scan.points_mm(scan.label == KIDNEY)[:, 0] < 0
        assert 0.25 < on_the_left.mean() < 0.75


def test_the_pancreas_lies_in_front_of_the_kidneys_and_the_spleen_above_them(scans):
    for scan in scans:
        kidneys = scan.centre_mm(scan.label == KIDNEY)
        assert scan.centre_mm(scan.label == PANCREAS)[1] > kidneys[1] + 15
        assert scan.centre_mm(scan.label == SPLEEN)[2] > kidneys[2] + 15


def test_organs_lie_inside_the_body(scans):
    for scan in scans:
        air = np.empty(scan.image.shape, np.int32)
        ndimage.label(scan.image < -500, output=air)
        outside = air == air[0, 0, scan.image.shape[2] // 2]
        depth_vox = np.asarray(ndimage.distance_transform_edt(~outside))
        assert depth_vox[scan.label > 0].min() >= 2  # skin and wall


def test_scans_that_are_there_are_kept_and_the_missing_ones_made(
    folders, tmp_path, capfd
):
    assert make(tmp_path, "--cases=3", "--seed=3") == 0
    kept = tmp_path / "images" / "phantom_000.nii.gz"
    kept.write_bytes(b"someone's own")
    (tmp_path / "labels" / "phantom_001.nii.gz").unlink()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    assert make(tmp_path, f"--cases={CASES}", "--seed=3") == 0
    assert kept.read_bytes() == b"someone's own"
    for name in ("images/phantom_002.nii.gz", "labels/phantom_000.nii.gz"):
        assert (tmp_path / name).stat().st_mtime_ns == times[tmp_path / name]
    found, expected = files(tmp_path), files(folders[3])
    del found["images/phantom_000.nii.gz"], expected["images/phantom_000.nii.gz"]
    assert found == expected
    # Fewer are asked for than there are: the others stay, which is said.
    capfd.readouterr()
    assert make(tmp_path, "--cases=1", "--seed=3") == 0
    assert f"{CASES - 1} more are there" in capfd.readouterr().out


def test_a_bucket_gets_each_phantom_when_it_is_made_and_keeps_those_it_has(
    s3, folders, tmp_path, capfd
):
    url, theirs = f"{s3.make()}/scans", folders[3]
    for name in ("phantom.json", "images/phantom_000.nii.gz"):  # of a killed program
        s3.write(f"{url}/{name}", (theirs / name).read_bytes())
    s3.write(f"{url}/images/other.nii.gz", b"stays")
    words = ("--cases=1", f"--cache_dir={tmp_path}")
    assert make(url, *words, "--seed=3") == 0
    assert f"1 phantoms in {url} (0 were there)" in capfd.readouterr().out
    there = s3.contents(url)
    assert there.pop("images/other.nii.gz") == b"stays"
    names = {f"{kind}/phantom_000.nii.gz" for kind in ("images", "labels")}
    assert there.keys() == {"phantom.json", *names}
    assert all(there[name] == (theirs / name).read_bytes() for name in there)
    assert make(url, *words, "--seed=3") == 0
    assert f"1 phantoms in {url} (1 were there)" in capfd.readouterr().out
    assert make(url, *words, "--seed=4") == 2
    assert f"error: {url} holds phantoms of" in capfd.readouterr().err
    assert s3.contents(url).keys() == {*there, "images/other.nii.gz"}


def test_other_settings_in_the_same_folder_are_refused(tmp_path, capfd):
    for words in [["--seed=5"], ["--seed=4", "--size=full"]]:
        assert make(tmp_path, "--cases=1", "--seed=4") == 0
        before = files(tmp_path)
        capfd.readouterr()
        assert make(tmp_path, "--cases=1", *words) == 2
        err = capfd.readouterr().err
        assert err.startswith(f"error: {tmp_path} holds phantoms of ")
        assert err.count("\n") == 1 and "--output" in err
        assert files(tmp_path) == before


def test_counts_that_mean_nothing_are_refused(tmp_path, capfd):
    for word in ["--cases=0", "--workers=0", "--seed=-1"]:
        assert make(tmp_path / "new", word) == 2
        err = capfd.readouterr().err
        assert err.startswith("error: --cases") and err.count("\n") == 1
        assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capfd):
    (tmp_path / "file").touch()  # root may write everywhere but below a file
    assert make(tmp_path / "file" / "scans", "--cases=1") == 3
    err = capfd.readouterr().err
    assert err.startswith(f"error: {tmp_path / 'file' / 'scans'}: cannot be written")
    assert err.count("\n") == 1


def test_a_damaged_note_of_the_settings_is_named(tmp_path, capfd):
    assert make(tmp_path, "--cases=1") == 0
    (tmp_path / "phantom.json").write_text('{"seed"')
    capfd.readouterr()
    assert make(tmp_path, "--cases=1") == 3
    assert capfd.readouterr().err.startswith(
        f"error: {tmp_path / 'phantom.json'}: damaged"
    )


def test_prepared_phantoms_have_the_organ_volumes_of_their_files(
    folders, pairs, tmp_path, prepare_here
):
    outcome = prepare_here(
        "--source=nifti",
        f"--input={folders[1]}",
        f"--output={tmp_path}",
        "--labels=spleen=1,pancreas=2,kidney=3",
        "--workers=1",
    )
    assert outcome.status == 0
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert len(manifest["cases"]) == CASES
    for case, (_, path) in zip(manifest["cases"], pairs, strict=False):
        label, voxels = load(path)
        voxel_ml = np.prod(label.header.get_zooms()) / 1000
        for organ, value in (("spleen", 1), ("pancreas", 2), ("kidney", 3)):
            # Slices of 4.7 mm become two or three of 2 mm: some percent either way.
            assert case["voxels"][organ] * 0.008 == pytest.approx(
                (voxels == value).sum() * voxel_ml, rel=0.06
            )
