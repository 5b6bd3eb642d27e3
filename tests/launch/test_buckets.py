"""Programs whose data lies in buckets do what they do with a local folder."""

import json
from pathlib import Path

import numpy as np
import pytest

from attunet_jax.data.dataset import open_dataset
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.train.setup import batches_from, setup
from configs import base
from data_prep import prepare, verify
from launch import evaluate, report, score


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where copies go that nobody gives a folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "attunet_jax" / "buckets"


def test_training_on_a_bucket_has_the_batches_of_a_local_run(
    buckets, prepared, cache, capsys
):
    url = f"{buckets.make()}/prepared"
    buckets.upload(prepared, url)
    batches = []
    for place in (str(prepared), url):
        config = base.get_config()
        config.data.directory = place
        config.data.batch_size = 8  # as many as simulated devices
        config.model.widths = (4, 6)
        config.data.crop_shape = config.data.read_shape = (16, 16, 16)
        run = setup(config)
        assert run.experiment.run["config"]["data"]["directory"] == place
        assert run.dataset.place == place
        stream = batches_from(run, 3)
        batches.append(next(stream))
        stream.close()
    assert batches[0].keys() == batches[1].keys()
    for name, values in batches[0].items():
        np.testing.assert_array_equal(values, batches[1][name])
    assert [*cache.glob("*/files/prepared/manifest.json")]
    config.data.directory = f"{url}-of-nobody"
    with pytest.raises(BadData, match=f"{url}-of-nobody: there is nothing of this"):
        setup(config)


def test_what_is_wrong_with_data_in_a_bucket_names_the_url(s3, prepared, cache):
    url = f"{s3.make()}/prepared"
    s3.upload(prepared, url)
    s3.write(f"{url}/splits.json", b"{")
    with pytest.raises(BadData, match=f"^{url}/splits.json: not JSON"):
        open_dataset(url)
    manifest = json.loads((prepared / "manifest.json").read_text())
    manifest["organs"] = {}
    s3.write(f"{url}/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(BadData, match=f"^{url}/manifest.json: organs is no map"):
        open_dataset(url)
    s3.write(f"{url}/manifest.json", b"[]")  # no longer of prepared data
    with pytest.raises(BadData, match=f"^{url}/manifest.json: "):
        open_dataset(url)


def test_evaluation_on_a_bucket_has_the_scores_of_a_local_one(
    gs, prepared, scan_folder, trained, loaded_once, tmp_path, cache, capsys
):
    url = gs.make()
    gs.upload(prepared, f"{url}/prepared")
    gs.upload(scan_folder, f"{url}/scans")
    rows, files = [], []
    for data, scans, output in (
        (prepared, scan_folder, tmp_path / "scores"),
        (f"{url}/prepared", f"{url}/scans", f"{url}/scores"),
    ):
        words = [
            f"--workdir={trained[0]}",
            f"--data={data}",
            f"--output={output}",
            f"--truth={scans}",
            f"--cache_dir={tmp_path / 'cache'}",
            "--grid=scan",
            "--config.predict.region=whole",
        ]
        evaluate.main(evaluate.FLAGS.parse(words))
        there = gs.contents(f"{url}/scores") or {
            path.name: path.read_bytes() for path in Path(output).iterdir()
        }
        lines = there["cases.jsonl"].decode().splitlines()
        rows.append([json.loads(line) | {"seconds": None} for line in lines])
        files.append(there.keys())
    assert rows[0] and rows[0] == rows[1] and files[0] == files[1]
    assert f"cases in {url}/prepared" in there["report.html"].decode()
    printed = capsys.readouterr().out
    assert f"report: {url}/scores/report.html" in printed
    assert f"definitions: {url}/scores/summary.md" in printed
    assert not cache.exists()  # --cache_dir was named
    page = tmp_path / "page.html"
    words = [output, f"--data={url}/prepared", f"--output={page}"]
    report.main(report.FLAGS.parse(words))
    assert f"cases in {url}/prepared" in page.read_text()


def test_scans_in_a_bucket_are_segmented_as_those_of_a_folder(
    s3, scan_folder, trained, loaded_once, predict_here, tmp_path
):
    scans = tmp_path / "scans"
    (scans / "a").mkdir(parents=True)
    scan = (scan_folder / "images" / "ball_0.nii.gz").read_bytes()
    (scans / "a" / "ball_0.nii.gz").write_bytes(scan)
    (scans / "broken.nii.gz").write_bytes(b"no scan")
    url = f"{s3.make()}/scans"
    s3.upload(scans, url)
    written = []
    for place in (str(scans), url):
        output = tmp_path / f"output_{len(written)}"
        words = [f"--input={place}", f"--output={output}", f"--cache_dir={tmp_path}"]
        status, printed = predict_here(trained[0], *words)
        assert status == 3 and f"error: {place}/broken.nii.gz: " in printed
        assert str(tmp_path / "s3-") not in printed.replace("copied 2 files", "")[-300:]
        record = json.loads((output / "a" / "ball_0.json").read_text())
        assert record.pop("scan")["path"] == f"{place}/a/ball_0.nii.gz"
        written.append([(output / "a" / "ball_0.nii.gz").read_bytes(), record])
    assert written[0] == written[1]
    status, printed = predict_here(trained[0], *words)
    assert status == 3 and "is there already" in printed


def test_scans_in_a_bucket_become_the_same_prepared_data(
    gs, scan_folder, prepared, cache, tmp_path, capsys
):
    bucket = gs.make()
    gs.upload(scan_folder, f"{bucket}/balls")
    words = [
        "--source=nifti",
        f"--input={bucket}/balls",
        "--labels=spleen=1,pancreas=2,kidney=3",
        "--spacing_mm=4",
        "--workers=1",
    ]
    data = tmp_path / "data"
    assert prepare.main([*words, f"--output={data}", "--cases_per_shard=4"]) == 0
    for path in prepared.glob("[!.]*"):
        assert (data / path.name).read_bytes() == path.read_bytes(), path
    gs.write(f"{bucket}/balls/labels/ball_3.nii.gz", b"no label map")
    written = (data / "manifest.json").stat().st_mtime_ns
    with pytest.raises(BadData, match="rejected.json: 1 of 10 cases"):
        prepare.main([*words, f"--output={data}", "--cases_per_shard=4"])
    assert (data / "manifest.json").stat().st_mtime_ns > written
    reason = json.loads((data / "rejected.json").read_text())["rejected"][0]["reason"]
    assert reason.startswith(f"{bucket}/balls/labels/ball_3.nii.gz: ")
    with pytest.raises(BadData, match="1 of 10 cases cannot be used"):
        verify.main([*words, f"--output={bucket}/verify"])
    found = gs.contents(f"{bucket}/verify")
    for name in ("verify.json", "verify.html"):
        text = found[name].decode()
        assert f"{bucket}/balls" in text and str(cache) not in text
    printed = capsys.readouterr().out
    assert f"pictures: {bucket}/verify/verify.html" in printed
    assert str(cache) not in printed
    with pytest.raises(BadArguments, match=f"{bucket}/balls/x lies within .*/balls,"):
        verify.main([*words, f"--output={bucket}/balls/x"])


def test_label_maps_in_buckets_are_scored_as_those_of_folders(
    s3, scan_folder, cache, tmp_path
):
    url = s3.make()
    for side, names in (("truth", "ball_0 ball_1"), ("found", "ball_0")):
        folder = tmp_path / "maps" / side
        folder.mkdir(parents=True)
        for name in names.split():
            content = (scan_folder / "labels" / f"{name}.nii.gz").read_bytes()
            (folder / f"{name}.nii.gz").write_bytes(content)
        (folder / "labels.json").write_text('{"1": "spleen", "2": "pancreas"}')
    s3.upload(tmp_path / "maps", url)
    with pytest.raises(BadArguments, match="--prediction=s3://.*needs --output"):
        score.main(score.FLAGS.parse([f"--truth={url}/x", f"--prediction={url}/y"]))
    rows = []
    for place in (str(tmp_path / "maps"), url):
        output = tmp_path / f"scores_{len(rows)}"
        flags = [f"--truth={place}/truth", f"--prediction={place}/found/ball_0.nii.gz"]
        flags += [f"--output={output}", "--only_common", "--noreport", "--workers=1"]
        score.main(score.FLAGS.parse(flags))
        record = json.loads((output / "score.json").read_text())
        assert record["truth"] == f"{place}/truth"
        lines = (output / "cases.jsonl").read_text().replace(place, "PLACE")
        found = [json.loads(line) for line in lines.splitlines()]
        rows.append([row | {"seconds": None} for row in found])
    assert len(rows[0]) == 2 and rows[0] == rows[1]
