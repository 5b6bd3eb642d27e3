"""Evaluations that lie in buckets, and what is written of them there."""

import json
from pathlib import Path

import pytest
from PIL import Image

from attunet_jax.errors import exit_status
from launch import compare, demo, report, score

DICE = {"unet": [0.5] * 6, "attention": [0.51, 0.52, 0.54, 0.58, 0.6, 0.7]}


def write_scores(folder: Path, dice: list[float]) -> None:
    folder.mkdir(parents=True)
    scores = ("dice", "precision", "recall")
    rows = [
        {"case_id": f"c{i}", "organ": "pancreas", **dict.fromkeys(scores, value)}
        | {"surface_distance_mm": 1 - value, "hausdorff95_mm": 2.0}
        for i, value in enumerate(dice)
    ]
    (folder / "cases.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


@pytest.fixture
def runs(tmp_path):
    """A folder with two runs, each with an evaluation and half of a checkpoint."""
    for name, dice in DICE.items():
        run = tmp_path / "runs" / name
        write_scores(run / "evaluation" / "test", dice)
        picture = Image.new("RGB", (60, 20), (9, 60, len(name)))
        picture.save(run / "evaluation" / "test" / "c0.png")
        (run / "config.json").write_text(
            json.dumps({"config": {"name": name, "train": {"steps": 77}}})
        )
        (run / "environment.json").write_text('{"jax": "0.10.2"}')
        metrics = [{"step": step, "loss": 1 / step} for step in (1, 2, 3)]
        (run / "metrics.jsonl").write_text(
            "".join(f"{json.dumps(m)}\n" for m in metrics)
        )
        (run / "checkpoints" / "3").mkdir(parents=True)
        (run / "checkpoints" / "3" / "weights").write_bytes(b"many" * 1000)
    return tmp_path / "runs"


@pytest.fixture
def run(tmp_path, capsys):
    """(exit status, stdout, stderr) of a program run here."""

    def call(program, *words):
        flags = [*map(str, words), f"--cache_dir={tmp_path / 'cache'}"]
        status = exit_status(lambda: program.main(program.FLAGS.parse(flags)))
        printed, errors = capsys.readouterr()
        assert str(tmp_path / "cache") not in printed
        lines = [line for line in errors.splitlines() if "error" in line]
        return status, printed, "\n".join(lines)

    return call


def test_runs_in_a_bucket_are_compared_and_reported_as_local_ones(
    gs, runs, run, tmp_path
):
    url = f"{gs.make()}/project/runs"
    gs.upload(runs, url)
    written = []
    for place, output in ((runs, tmp_path / "out"), (url, f"{url}/out")):
        words = [f"unet={place}/unet/", f"{place}/attention"]
        status, printed, errors = run(compare, *words, f"--output={output}")
        assert (status, errors) == (0, "")
        assert f"written to {output}: compare.md" in printed
        page = f"{output}/page.html"
        status, told, errors = run(report, *words, f"--output={page}")
        assert (status, errors) == (0, "") and f"written to {page} (" in told
        written.append(printed.partition("written to")[0])
    assert written[0] == written[1]
    ours, theirs = gs.contents(f"{url}/out"), {}
    for path in (tmp_path / "out").iterdir():
        theirs[path.name] = path.read_bytes()
    assert ours == theirs and len(ours) == 6
    # The configs, the curves and the pictures of the runs are in the page.
    assert b"&quot;steps&quot;: 77" in ours["page.html"]
    assert b"id=curves" in ours["page.html"] and b"image/webp" in ours["page.html"]
    copied = {p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()}
    assert "cases.jsonl" in copied and "weights" not in copied


def test_an_evaluation_in_a_bucket_is_named_by_its_url(s3, gs, runs, run, tmp_path):
    """Its own URL finds its run; of one name are told apart by what is before it."""
    bucket = gs.make()
    gs.upload(runs / "unet", f"{bucket}/a/unet")
    write_scores(tmp_path / "scores", DICE["attention"])
    other = f"{s3.make()}/b/unet"
    s3.upload(tmp_path / "scores", other)
    groups = f"{bucket}/groups.csv"
    gs.write(groups, b"case_id,sex\n" + b"".join(b"c%d,f\n" % i for i in range(6)))
    words = (f"{bucket}/a/unet/evaluation/test", other, f"--groups={groups}")
    status, printed, errors = run(report, *words, f"--output={bucket}/pages")
    assert (status, errors) == (0, "")
    assert f"written to {bucket}/pages/report.html" in printed
    page = gs.contents(f"{bucket}/pages")["report.html"]
    assert b"<h1>Evaluation of a/unet, b/unet</h1>" in page
    assert b"&quot;steps&quot;: 77" in page and b"id=groups" in page


def test_what_holds_no_evaluation_is_the_same_line_as_of_a_folder(gs, runs, run):
    (runs / "unet" / "evaluation" / "test").rename(runs / "unet" / "test")
    (runs / "begun").mkdir()
    (runs / "begun" / ".cases.jsonl.new").write_text("")
    (runs / "split" / "evaluation").mkdir(parents=True)
    (runs / "unet" / "test").rename(runs / "split" / "evaluation" / "validation")
    url = f"{gs.make()}/runs"
    gs.upload(runs, url)
    for name, wrong in {
        "unet": "not evaluated yet: run python -m launch.evaluate --workdir={}",
        "unet/evaluation/test": "no such folder",
        "begun": "its evaluation was interrupted",
        "split": "has no evaluation/test; name one of its others: {}/evaluation/val",
        "attention/checkpoints": "holds no cases.jsonl",
        "attention": "is the same evaluation as",
    }.items():
        lines = []
        for place in (str(runs), url):
            one = f"{place}/{name}"
            words = (f"{place}/attention", one)
            status, printed, line = run(compare, *words, f"--output={place}/out")
            assert (status, printed) == (2, ""), line
            assert line.startswith(f"error: {one}: {wrong.format(one)}"), line
            lines.append(line.replace(place, "PLACE"))
        assert lines[0] == lines[1] and "\n" not in lines[0]
    status, _, line = run(report, f"{url}/none", f"--output={url}/out/page.html")
    assert status == 3 and line.startswith(f"error: {url}/none: there is nothing of")
    status, _, line = run(compare, f"{url}/attention", "x=gs://b/y")
    assert status == 2 and line.startswith("error: gs://b/y: must be a path of this")
    assert not gs.contents(f"{url}/out")


def test_scores_in_a_bucket_go_on_where_they_were_killed(
    s3, scan_folder, run, tmp_path
):
    maps = tmp_path / "maps"
    for side in ("truth", "found"):
        (maps / side).mkdir(parents=True)
        for name in ("ball_0.nii.gz", "ball_1.nii.gz"):
            content = (scan_folder / "labels" / name).read_bytes()
            (maps / side / name).write_bytes(content)
    bucket = s3.make()
    words = (f"--truth={maps / 'truth'}", f"--prediction={maps / 'found'}")
    words += ("--labels=spleen=1,pancreas=2,kidney=3", "--workers=1")
    status, printed, _ = run(score, *words, f"--output={tmp_path / 'local'}")
    assert status == 0, printed
    local = {p.name: p.read_bytes() for p in (tmp_path / "local").iterdir()}
    rows = [json.loads(line) for line in local["cases.jsonl"].splitlines()]
    # A kill when the first of two cases was scored and sent, by another machine.
    done = [row | {"mark": 1} for row in rows if row["case_id"] == "ball_0"]
    journal = "".join(json.dumps(row) + "\n" for row in done).encode()
    s3.write(f"{bucket}/scores/.cases.jsonl.new", journal)
    status, printed, errors = run(score, *words, f"--output={bucket}/scores")
    assert (status, errors) == (0, "")
    assert f"report: {bucket}/scores/report.html\nwritten to {bucket}/scores" in printed
    there = s3.contents(f"{bucket}/scores")
    assert there.keys() == local.keys()
    ours = [json.loads(line) for line in there["cases.jsonl"].splitlines()]
    assert [r.pop("mark", 0) for r in ours] == [1] * 3 + [0] * 3 and ours == rows
    assert json.loads(there["score.json"]) == json.loads(local["score.json"])

    s3.upload(maps, f"{bucket}/maps")
    words = (f"--truth={maps / 'truth'}", f"--prediction={bucket}/maps/found")
    status, _, line = run(score, *words, f"--output={bucket}/maps/found/scores")
    assert (
        status == 2 and f"lies within {bucket}/maps/found, which is only read" in line
    )


def test_the_demo_is_refused_in_a_bucket_with_what_to_do(capsys):
    words = ["--output=gs://bucket/demo"]
    assert exit_status(lambda: demo.main(demo.FLAGS.parse(words))) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: --output=gs://bucket/demo: must be a path of this")
    assert "mounted" in line and line.count("\n") == 1
