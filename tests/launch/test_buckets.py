"""Programs whose data lies in buckets do what they do with a local folder."""

import json

import numpy as np
import pytest

from attunet_jax.data.dataset import open_dataset
from attunet_jax.errors import BadData
from attunet_jax.train.setup import batches_from, setup
from configs import base
from launch import evaluate, report


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
    rows = []
    for data, scans in ((prepared, scan_folder), (f"{url}/prepared", f"{url}/scans")):
        output = tmp_path / f"scores_{len(rows)}"
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
        lines = (output / "cases.jsonl").read_text().splitlines()
        rows.append([json.loads(line) | {"seconds": None} for line in lines])
    assert rows[0] and rows[0] == rows[1]
    assert f"cases in {url}/prepared" in (output / "report.html").read_text()
    assert not cache.exists()  # --cache_dir was named
    page = tmp_path / "page.html"
    words = [str(output), f"--data={url}/prepared", f"--output={page}"]
    report.main(report.FLAGS.parse(words))
    assert f"cases in {url}/prepared" in page.read_text()
