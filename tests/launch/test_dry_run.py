"""What a dry run says, and that it leaves nothing behind."""

import json
import re
import shutil

import pytest


def test_a_dry_run_says_what_the_run_would_take_and_writes_nothing(
    run_program, finish, prepared, tiny_flags, tmp_path
):
    data = tmp_path / "data"
    shutil.copytree(prepared, data)
    manifest = json.loads((data / "manifest.json").read_text())
    splits = json.loads((data / "splits.json").read_text())["splits"]
    (unlucky,) = splits["80_20"]["validation"]
    for case in manifest["cases"]:
        if case["case_id"] == unlucky:
            case["voxels"]["kidney"] = 0
    (data / "manifest.json").write_text(json.dumps(manifest))
    before = sorted(path.stat().st_mtime_ns for path in data.iterdir())
    status, printed, errors = finish(
        run_program(
            "launch.train",
            f"--data={data}",
            f"--workdir={tmp_path / 'run'}",
            "--dry_run",
            "--device_memory_gib=0.02",
            *tiny_flags,
            "--config.train.epochs=3",
        )
    )
    assert status == 0, errors
    said = dict(re.findall(r"^(\S+(?: \S+)*) {2,}(\S.*)$", printed, re.M))
    assert said["mesh"] == "data 1  spatial 1"
    assert re.fullmatch(r"0 on \S+", said["processes"])
    assert said["devices"] == "1 (1 x cpu), 1 a process, 1 in use"
    assert said["batch"] == "2 cases of 16x16x16, 2 read by each process"
    assert said["cases"] == "7 training, 1 validation"
    # Asked for 3 epochs, each of 3 whole batches of 2 of the 7 cases.
    assert said["steps"] == "9 steps (2.57 epochs of 7 cases)"
    assert int(said["parameters"].replace(",", "")) > 1000
    # The batch alone is image and label of 16x20x20 voxels.
    needed, state, batch, work = (
        float(x.replace(",", ""))
        for x in re.findall(r"([\d.,]+) MiB", said["memory per device"])
    )
    assert "(estimated)" in said["memory per device"]
    assert batch == pytest.approx(2 * 3 * 16 * 20 * 20 / 2**20, abs=0.1)
    # Parameters and both moments of Adam, in float32.
    parameters = int(said["parameters"].replace(",", ""))
    assert state == pytest.approx(3 * 4 * parameters / 2**20, abs=0.1)
    assert needed == pytest.approx(state + batch + work, abs=0.2) and work > batch
    # 0.02 GiB hold this batch; a crop that fits has the network's divisors.
    assert said["memory there is"] == "20.5 MiB a device (as given)"
    assert said["fits"].startswith("yes, in ")
    (crop,) = re.findall(r"--config.data.crop_shape=(\S+)", said["largest crop"])
    sizes = [int(x) for x in crop.split(",")]
    assert sizes[0] >= 16 and len(set(sizes)) == 1 and sizes[0] % 2 == 0
    assert "Estimated for a GPU" in printed
    # A forward pass keeps less than a train step of two cases.
    (most,) = re.findall(r"up to ([\d.]+) million voxels", said["whole scans"])
    assert float(most) * 1e6 > sizes[0] ** 3
    assert "nothing was trained or written" in printed
    assert "warning: no validation case has kidney: " in printed
    assert list(tmp_path.iterdir()) == [data]
    assert sorted(path.stat().st_mtime_ns for path in data.iterdir()) == before


@pytest.mark.cluster
def test_a_compiled_dry_run_tells_the_compilers_figure_beside_the_estimate(
    run_program, finish, prepared, tiny_flags
):
    def needed(dry_run):
        words = (f"--data={prepared}", dry_run, *tiny_flags)
        status, printed, errors = finish(run_program("launch.train", *words))
        assert status == 0, errors
        assert "huge pages: " in printed and "GLIBC_TUNABLES=" in printed
        (figure,) = re.findall(r"memory per device +([\d.,]+) MiB", printed)
        return printed, float(figure.replace(",", ""))

    printed, compiled = needed("--dry_run=compile")
    assert "(compiled)" in printed and "not what a GPU or TPU needs" in printed
    printed, estimated = needed("--dry_run")
    assert "(estimated)" in printed and "available on this host" in printed
    assert estimated == pytest.approx(compiled, rel=0.5)  # with a network so small


def test_what_a_dry_run_cannot_be_is_one_line(refused):
    status, line = refused("launch.train", "--data=DIR", "--dry_run=fast")
    assert status == 2 and "--dry_run=fast: must be compile" in line
    status, line = refused("launch.train", "--data=DIR", "--device_memory_gib=0")
    assert status == 2 and "must be above 0" in line
