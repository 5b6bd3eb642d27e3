"""--attention: coefficients as NIfTI, in their place, kept with their label map."""

import json
import shutil
import warnings

import nibabel as nib
import numpy as np
import pytest

from attunet_jax.data.identity import files_below, find_scans
from attunet_jax.predict import attention_files, predictor
from attunet_jax.predict.attention import AttentionMap
from attunet_jax.volume import read_image, write_values_on_grid
from launch import predict

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of SWIG, in newer Pythons
    import SimpleITK as sitk

FILES = [
    f"ct_attention_gate{gate}_sub{sub}.nii.gz" for gate in (2, 3) for sub in (1, 2)
]


@pytest.fixture
def run(gated, predict_here, loaded_once):
    return lambda *words, workdir=gated: predict_here(workdir, *words)


@pytest.fixture(scope="module")
def scan(scan_folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "ct.nii.gz"
    shutil.copy(scan_folder / "images" / "ball_0.nii.gz", path)
    return path


@pytest.fixture(scope="module")
def made(gated, scan, loaded_once, tmp_path_factory):
    """A folder with a label map and its coefficients, which a test copies."""
    output = tmp_path_factory.mktemp("attention") / "out"
    words = (f"--workdir={gated}", f"--input={scan}", f"--output={output}")
    assert predict.main(predict.FLAGS.parse([*words, "--attention"])) == 0
    return output


@pytest.fixture
def output(made, tmp_path):
    return shutil.copytree(made, tmp_path / "out")


def content(folder):
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


def test_each_sub_gate_has_a_file_with_the_scans_header_and_the_predictors_values(
    made, scan, gated
):
    assert {p.name for p in made.iterdir()} == {
        *("labels.json", "ct.nii.gz", "ct.json"),
        *FILES,
    }
    maps = predictor.load_predictor(gated, {}).attention(read_image(scan))
    header = nib.Nifti1Image.from_filename(scan).header
    for name, one in zip(FILES, maps, strict=True):
        image = nib.Nifti1Image.from_filename(made / name)
        assert image.get_data_dtype() == np.float32
        for field in ("sform_code", "qform_code", "pixdim", "xyzt_units", "srow_z"):
            np.testing.assert_array_equal(image.header[field], header[field], field)
        values = np.asarray(image.dataobj)
        assert 0 <= values.min() < values.max() <= 1
        back = read_image(made / name).voxels
        np.testing.assert_array_equal(back, one.on_scan())


@pytest.mark.parametrize("align", ["oblique", "flipped", "permuted"])
def test_a_peak_of_a_gate_lies_on_the_blob_for_an_independent_reader(tmp_path, align):
    """SimpleITK finds blob and peak, in its own world, within half a coarse voxel."""
    c, s = np.cos(0.3), np.sin(0.3)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    axes = {
        "oblique": turn @ np.diag([-1.5, -1.5, 3.0]),
        "flipped": np.diag([1.5, -1.5, -3.0]),
        "permuted": turn @ np.array([[0, -1.5, 0], [0, 0, 1.5], [-3.0, 0, 0]]),
    }[align]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, (12, -40, 77)
    shape = (24, 20, 32)
    scan, peak = np.full(shape, -900, np.int16), (15, 6, 9)
    scan[14:18, 4:8, 8:12] = 200  # the block of the third scale that holds the peak
    nib.Nifti1Image(scan, affine).to_filename(tmp_path / "scan.nii.gz")
    volume = read_image(tmp_path / "scan.nii.gz")
    # A gate of scale 3: 4 voxels a side, of which the brightest alone passes.
    depth, height, width = volume.voxels.shape
    d, h, w = np.argwhere(volume.voxels == 200).mean(0)
    index_map = np.diag([4, 4, 4, 1.0])
    index_map[:3, 3] = np.array([d, h, w]) % 4
    coarse = np.zeros((depth // 4, height // 4, width // 4), np.float32)
    coarse[tuple((np.array([d, h, w]) // 4).astype(int))] = 1
    one = AttentionMap(3, 1, coarse, volume.affine @ index_map, volume.grid)
    write_values_on_grid(tmp_path / "map.nii.gz", one.on_scan(), volume.grid)
    places = []
    for name in ("scan.nii.gz", "map.nii.gz"):
        image = sitk.ReadImage(str(tmp_path / name))
        values = sitk.GetArrayFromImage(image).astype(float)
        weight = values - values.min()
        index = [(weight * i).sum() / weight.sum() for i in np.indices(values.shape)]
        places.append(image.TransformContinuousIndexToPhysicalPoint(index[::-1]))
    assert np.linalg.norm(np.subtract(*places)) < 0.5 * 4 * 1.5, (peak, places)


def test_a_second_run_keeps_what_is_whole_and_makes_the_rest_again(
    run, scan, output, tmp_path
):
    words = (f"--input={scan}", f"--output={output}", "--attention")
    before = content(output)
    status, said = run(*words)
    assert status == 0 and "is there already" in said and content(output) == before
    (output / FILES[2]).unlink()
    status, said = run(*words)
    assert status == 0 and "attention coefficients in 4 files" in said
    after = content(output)
    assert {k: v[0] for k, v in after.items()} == {k: v[0] for k, v in before.items()}
    assert after["ct.nii.gz"] == before["ct.nii.gz"]  # the label map was kept


def test_a_kill_between_the_files_is_made_good(run, scan, output, monkeypatch):
    words = (f"--input={scan}", f"--output={output}")
    whole = content(output)
    written = []

    def killed(path, *rest):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write_values_on_grid(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(attention_files, "write_values_on_grid", killed)
        with pytest.raises(KeyboardInterrupt):
            run(*words, "--attention", "--overwrite")
    assert not json.loads((output / "ct.json").read_text())["attention"]["finished"]
    status, said = run(*words, "--attention")
    assert status == 0 and "is there already" in said
    assert {k: v[0] for k, v in content(output).items()} == {
        k: v[0] for k, v in whole.items()
    }


def test_files_that_were_changed_or_that_nothing_explains_are_refused(
    run, scan, output
):
    words = (f"--input={scan}", f"--output={output}", "--attention")
    (output / FILES[1]).write_bytes(b"another program's")
    status, said = run(*words)
    assert status == 3 and f"{output / FILES[1]}: was changed" in said
    assert "--overwrite" in said and "1 of 1 scans" in said
    record = json.loads((output / "ct.json").read_text())
    del record["attention"]
    (output / "ct.json").write_text(json.dumps(record))
    status, said = run(*words)
    assert status == 3 and f"{output / FILES[0]}: nothing says what made it" in said
    assert (output / FILES[1]).read_bytes() == b"another program's"
    assert run(*words, "--overwrite")[0] == 0
    assert nib.Nifti1Image.from_filename(output / FILES[1]).shape == (36, 40, 30)


def test_coefficients_of_another_label_map_do_not_stay_beside_a_new_one(
    run, scan, output
):
    other = "--config.predict.checkpoint=2"
    record = json.loads((output / "ct.json").read_text())
    record["attention"]["maps"]["../ct_attention_gate2.nii.gz"] = "0"
    (output / "ct.json").write_text(json.dumps(record))
    outside = output.parent / "ct_attention_gate2.nii.gz"
    outside.write_bytes(b"not ours")
    words = (f"--input={scan}", f"--output={output}", other, "--overwrite")
    assert run(*words)[0] == 0
    assert {p.name for p in output.iterdir()} == {"labels.json", "ct.nii.gz", "ct.json"}
    assert outside.exists()


def test_coefficients_are_neither_scans_nor_label_maps(run, made, scan, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(made, folder)
    shutil.copy(scan, folder / "other.nii.gz")
    found = find_scans(folder)
    assert [one.identity for one in found.scans] == ["other"]
    kinds = dict(found.unused)
    assert kinds["attention coefficients (launch.predict --attention)"] == 4
    assert set(files_below(folder, labels_too=True)) == {"ct", "other"}
    for path in (folder / "ct.nii.gz", folder / "ct.json"):
        path.unlink()  # only the maps were moved here
    assert [one.identity for one in find_scans(folder).scans] == ["other"]
    assert run(f"--input={folder}", f"--output={made}")[0] == 0


def test_a_network_without_gates_is_refused_before_anything_is_written(
    run, trained, scan, tmp_path
):
    output = tmp_path / "out"
    words = (f"--input={scan}", f"--output={output}", "--attention")
    status, said = run(*words, workdir=trained[0])
    assert status == 2 and said.startswith("--attention: the network of ")
    assert "no attention gates" in said and "\n" not in said
    assert not output.exists()
