"""Scans of any kind in, label maps on their own grids out, by the real program."""

import json
import warnings

import nibabel as nib
import numpy as np
import pytest

from launch import predict

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of SWIG, in newer Pythons
    import SimpleITK as sitk

PERMUTED = np.array(  # file axes point to the feet, the patient's right, the back
    [[0, -2.0, 0, 40], [0, 0, -2.0, 30], [-2.5, 0, 0, 90], [0, 0, 0, 1]]
)


@pytest.fixture(scope="module")
def scans(scan_folder, write_series, tmp_path_factory):
    """A folder as users have it: three layouts, an odd type, a bad file, others."""
    folder = tmp_path_factory.mktemp("mixed")
    first = nib.Nifti1Image.from_filename(scan_folder / "images" / "ball_0.nii.gz")
    voxels = np.asarray(first.dataobj)
    nib.Nifti1Image(voxels, first.affine).to_filename(folder / "plain.nii.gz")
    turned = voxels.transpose(2, 0, 1)[::-1].astype(np.float32)
    nib.Nifti1Image(turned, PERMUTED).to_filename(folder / "turned.nii")
    image = sitk.ReadImage(str(folder / "plain.nii.gz"))
    sitk.WriteImage(image, str(folder / "meta.mha"))
    series = folder / "patient 1" / "study" / "series"
    write_series(series, voxels.T, origin=(0, 0, 0), spacing=(2.5, 2, 2))
    (folder / "broken.nii.gz").write_bytes(
        (folder / "plain.nii.gz").read_bytes()[:4000]
    )
    label = nib.Nifti1Image.from_filename(scan_folder / "labels" / "ball_0.nii.gz")
    label.to_filename(folder / "organs.nii.gz")
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
    assert lines[1].startswith(f"error: {scans / 'organs.nii.gz'}: a label map")
    # Balls in grey noise: of four scans alike, in one line.
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert len(warnings) == 1 and "no air" in warnings[0] and ": 4 (" in warnings[0]
    assert "2 of 6 scans could not be segmented" in lines[-1]
    assert printed.count(" ml") == 12  # three organs of four scans
    passed_over = "1 .txt files, 1 resource forks of macOS (._*)"
    assert f"no scans, passed over: {passed_over}\n" in printed
    names = ("patient 1/study/series", "plain", "turned")
    assert {p.relative_to(output).as_posix() for p in output.rglob("*.*")} == {
        "labels.json",
        *(f"{name}.{end}" for name in names for end in ("nii.gz", "json", "png")),
        *(f"meta.{end}" for end in ("mha", "json", "png")),
    }


@pytest.mark.parametrize("name", ["plain.nii.gz", "turned.nii"])
def test_a_label_map_lies_on_the_scans_own_grid(predicted, scans, name):
    output, _, _ = predicted
    scan = nib.Nifti1Image.from_filename(scans / name)
    labels = nib.Nifti1Image.from_filename(output / f"{name.split('.')[0]}.nii.gz")
    assert labels.shape == scan.shape
    affine = np.asarray(scan.affine)
    np.testing.assert_allclose(np.asarray(labels.affine), affine, atol=1e-4)
    assert labels.get_data_dtype() == np.uint8
    for field in ("sform_code", "qform_code", "pixdim", "xyzt_units", "srow_z"):
        np.testing.assert_array_equal(labels.header[field], scan.header[field], field)
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


def test_a_dicom_series_gets_the_labels_of_the_same_scan_as_nifti(predicted):
    output, _, _ = predicted
    plain, dicom = (
        nib.Nifti1Image.from_filename(output / f"{name}.nii.gz")
        for name in ("plain", "patient 1/study/series")
    )
    # As dcm2niix writes it: rows from the last to the first.
    labels = np.asarray(plain.dataobj)
    np.testing.assert_array_equal(labels[:, ::-1], np.asarray(dicom.dataobj))
    by_hand = [[-2, 0, 0, 0], [0, 2, 0, -78], [0, 0, 2.5, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(np.asarray(dicom.affine), by_hand, atol=1e-5)


def test_a_scan_of_itks_format_gets_its_label_map_in_that_format(predicted, scans):
    output, _, _ = predicted
    scan, labels = (sitk.ReadImage(str(p / "meta.mha")) for p in (scans, output))
    for what in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
        expected = getattr(scan, what)()
        np.testing.assert_allclose(getattr(labels, what)(), expected, atol=1e-5)
    plain = nib.Nifti1Image.from_filename(output / "plain.nii.gz")
    found = sitk.GetArrayFromImage(labels).T
    np.testing.assert_array_equal(found, np.asarray(plain.dataobj))


def test_one_of_two_series_in_a_folder_is_predicted_when_it_is_named(
    predict_here, trained, write_series, tmp_path
):
    shape = (30, 40, 36)  # that of the balls: nothing is compiled anew
    noise = np.random.default_rng(0).integers(-90, 90, shape)
    for uid in ("1.2.3", "1.2.4"):
        write_series(tmp_path / "both", noise, name=uid + ".{}", uid=uid)
    output = tmp_path / "out"
    words = (f"--input={tmp_path / 'both'}", f"--output={output}", "--series=1.2.4")
    status, said = predict_here(trained[0], *words)
    assert status == 0, said
    (written,) = output.glob("*.nii.gz")
    assert written.name == "both_1.2.4.nii.gz"
    assert nib.Nifti1Image.from_filename(written).shape == shape[::-1]


def test_what_is_there_is_kept_without_loading_the_network(
    predicted, monkeypatch, capsys
):
    output, words, _ = predicted
    picture, before = output / "plain.png", (output / "plain.nii.gz").read_bytes()
    picture.unlink()

    def load(*_):
        raise AssertionError("the network is loaded")

    monkeypatch.setattr(predict, "_load", load)
    scans = words[1].removeprefix("--input=")
    flags = predict.FLAGS.parse([words[0], f"--input={scans}/plain.nii.gz", *words[2:]])
    assert predict.main(flags) == 0
    assert f"{output / 'plain.nii.gz'} is there already" in capsys.readouterr().out
    assert picture.exists()  # it was asked for, and is made of what is there
    assert (output / "plain.nii.gz").read_bytes() == before


def test_windows_and_flips_come_from_the_command_line(
    predict_here, trained, predicted, scans, tmp_path
):
    output, _, _ = predicted
    status, said = predict_here(
        trained[0],
        f"--input={scans / 'plain.nii.gz'}",
        f"--output={tmp_path}",
        "--config.predict.whole_volume_limit_vox=1",
        "--config.predict.window_shape=(8,8,8)",
        "--config.predict.average_flips=True",
        "--config.predict.checkpoint=latest",
    )
    assert status == 0, said
    maps = [
        np.asarray(nib.Nifti1Image.from_filename(f / "plain.nii.gz").dataobj)
        for f in (output, tmp_path)
    ]
    assert maps[0].shape == maps[1].shape and (maps[0] != maps[1]).any()


def test_bad_input_is_one_line(refused, refused_here, trained, scans, tmp_path):
    (tmp_path / "file").touch()
    words = {
        "--workdir": trained[0],
        "--input": scans / "plain.nii.gz",
        "--output": tmp_path / "output",
    }
    for change, said, status in (
        ({"--input": "nowhere.nii.gz"}, "nowhere.nii.gz: no such file", 3),
        ({"--input": tmp_path}, "or DICOM files in it (only 1 files without", 3),
        ({"--workdir": tmp_path}, "no checkpoints here", 3),
        ({"--output": tmp_path / "file/x"}, "cannot be written", 3),
        ({"--config.predict.checkpoint": 7}, "--config.predict.checkpoint=7", 2),
        ({"--config.predict.windows": 7}, "--config.predict.windows: no such field", 2),
        ({"--config.model.sub_gates": 1}, "--config.model.sub_gates", 2),
        ({"--output": ""}, "--output=... is needed", 2),
    ):
        given = [f"{k}={v}" for k, v in (words | change).items()]
        got, line = refused_here("launch.predict", *given)
        assert got == status and said in line
        if "--workdir" in change:  # one of them as a program
            got, line = refused("launch.predict", *given)
            assert got == status and said in line
        assert not (tmp_path / "output").exists()
