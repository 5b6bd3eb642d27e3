"""What a dry run says, and that it leaves nothing behind."""

import json
import re
import shutil


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
    # What the compiler says: the batch alone is image and label of 16x20x20 voxels.
    megabytes = re.findall(r"[\d.,]+", said["memory per device"])
    assert float(megabytes[0].replace(",", "")) > 2 * 3 * 16 * 20 * 20 / 2**20
    assert "not what a GPU or TPU needs" in printed
    assert "nothing was trained or written" in printed
    assert "huge pages: " in printed and "GLIBC_TUNABLES=" in printed
    assert "warning: no validation case has kidney: " in printed
    assert list(tmp_path.iterdir()) == [data]
    assert sorted(path.stat().st_mtime_ns for path in data.iterdir()) == before
