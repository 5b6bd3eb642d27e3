"""Scans of any kind in, label maps on their own grids out, by the real program."""

import json

import nibabel as nib
import numpy as np
import pytest

PERMUTED = np.array(  # file axes point to the feet, the patient's right, the back
    [[0, -2.0, 0, 40], [0, 0, -2.0, 30], [-2.5, 0, 0, 90], [0, 0, 0, 1]]
)


@pytest.fixture(scope="module")
def scans(scan_folder, tmp_path_factory):
    """A folder as users have it: two layouts, an odd type, a bad file, other files."""
    folder = tmp_path_factory.mktemp("mixed")
    first = nib.Nifti1Image.from_filename(scan_folder / "images" / "ball_0.nii.gz")
    voxels = np.asarray(first.dataobj)
    nib.Nifti1Image(voxels, first.affine).to_filename(folder / "plain.nii.gz")
    turned = voxels.transpose(2, 0, 1)[::-1].astype(np.float32)
    nib.Nifti1Image(turned, PERMUTED).to_filename(folder / "turned.nii")
    (folder / "broken.nii.gz").write_bytes(
        (folder / "plain.nii.gz").read_bytes()[:4000]
    )
    (folder / "notes.txt").write_text("no scan")
    (folder / "._plain.nii.gz").write_bytes(b"what macOS leaves in archives")
    return folder


@pytest.fixture(scope="module")
def predicted(run_program, finish, trained, scans, tmp_path_factory):
    output = tmp_path_factory.mktemp("predicted")
    words = (
        f"--workdir={trained[0]}",
        f"--input={scans}",
        f"--output={output}",
        "--pictures",
    )
    return output, words, finish(run_program("launch.predict", *words))


def test_a_bad_scan_is_named_and_the_others_are_done(predicted, scans):
    output, _, (status, printed, errors) = predicted
    assert status == 3 and "Traceback" not in errors
    lines = errors.strip().splitlines()
    assert lines[0].startswith(f"error: {scans / 'broken.nii.gz'}: truncated")
    assert "1 of 3 scans were left out" in lines[-1]
    assert printed.count(" ml") == 6  # three organs of two scans
    assert sorted(p.name for p in output.iterdir()) == [
        "labels.json",
        "plain.nii.gz",
        "plain.png",
        "turned.nii.gz",
        "turned.png",
    ]


@pytest.mark.parametrize("name", ["plain.nii.gz", "turned.nii"])
def test_a_label_map_lies_on_the_scans_own_grid(predicted, scans, name):
    output, _, _ = predicted
    scan = nib.Nifti1Image.from_filename(scans / name)
    labels = nib.Nifti1Image.from_filename(output / f"{name.split('.')[0]}.nii.gz")
    assert labels.shape == scan.shape
    affine = np.asarray(scan.affine)
    np.testing.assert_allclose(np.asarray(labels.affine), affine, atol=1e-4)
    assert labels.get_data_dtype() == np.uint8
    meaning = json.loads((output / "labels.json").read_text())
    assert meaning == {
        "0": "background",
        "1": "spleen",
        "2": "pancreas",
        "3": "kidney",
    }
    assert set(np.unique(np.asarray(labels.dataobj))) <= set(range(4))


def test_the_same_patient_gets_the_same_labels_in_any_axis_order(predicted):
    output, _, _ = predicted
    plain, turned = (
        np.asarray(nib.Nifti1Image.from_filename(output / f"{n}.nii.gz").dataobj)
        for n in ("plain", "turned")
    )
    assert plain.any()
    np.testing.assert_array_equal(plain.transpose(2, 0, 1)[::-1], turned)


def test_what_is_there_is_kept_and_overwritten_only_when_asked(
    run_program, finish, predicted, scans
):
    output, words, _ = predicted
    kept = output / "plain.nii.gz"
    before = kept.read_bytes()
    kept.write_bytes(b"mine")
    status, printed, _ = finish(run_program("launch.predict", *words))
    assert status == 3 and f"{kept} is there already" in printed
    assert kept.read_bytes() == b"mine"
    one = (words[0], f"--input={scans / 'plain.nii.gz'}", *words[2:])
    status, _, _ = finish(run_program("launch.predict", *one, "--overwrite"))
    assert status == 0 and kept.read_bytes() == before


def test_windows_and_flips_come_from_the_command_line(
    run_program, finish, predicted, scans, tmp_path
):
    output, words, _ = predicted
    status, _, errors = finish(
        run_program(
            "launch.predict",
            words[0],
            f"--input={scans / 'plain.nii.gz'}",
            f"--output={tmp_path}",
            "--config.predict.whole_volume_limit_vox=1",
            "--config.predict.window_shape=(8,8,8)",
            "--config.predict.average_flips=True",
            "--config.predict.checkpoint=latest",
        )
    )
    assert status == 0, errors
    maps = [
        np.asarray(nib.Nifti1Image.from_filename(f / "plain.nii.gz").dataobj)
        for f in (output, tmp_path)
    ]
    assert maps[0].shape == maps[1].shape and (maps[0] != maps[1]).any()


@pytest.mark.parametrize(
    "change, said, status",
    [
        ({"--input": "nowhere.nii.gz"}, "nowhere.nii.gz: no such file", 3),
        ({"--input": "{tmp}"}, "no .nii, .nii.gz or DICOM files in this folder", 3),
        ({"--workdir": "{tmp}"}, "no checkpoints here", 3),
        ({"--output": "{tmp}/file/x"}, "cannot be written", 3),
        ({"--config.predict.checkpoint": "7"}, "config.predict.checkpoint='7'", 2),
        ({"--config.predict.windows": "7"}, "unknown config field", 2),
        ({"--config.model.sub_gates": "1"}, "--config.model.sub_gates", 2),
        ({"--output": ""}, "--output=... is needed", 2),
    ],
    ids=str,
)
def test_bad_input_is_one_line(refused, trained, scans, tmp_path, change, said, status):
    (tmp_path / "file").touch()
    words = {
        "--workdir": str(trained[0]),
        "--input": str(scans / "plain.nii.gz"),
        "--output": str(tmp_path / "output"),
    }
    words |= {k: v.format(tmp=tmp_path) for k, v in change.items()}
    got, line = refused("launch.predict", *(f"{k}={v}" for k, v in words.items()))
    assert got == status and said in line
