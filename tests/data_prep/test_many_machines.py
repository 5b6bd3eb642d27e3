"""Shards written by tasks of a job array and by Beam have the bytes of one process."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from attunet_jax.data.dataset import open_dataset
from data_prep.plan import parse

ROOT = Path(__file__).resolve().parents[2]
LABELS = "--labels=spleen=1,pancreas=2,kidney=3"


@pytest.fixture
def words(scan_folder) -> tuple[str, ...]:
    return (
        "--source=nifti",
        f"--input={scan_folder}",
        LABELS,
        "--spacing_mm=4",
        "--num_shards=3",
        "--workers=1",
    )


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def here(words, tmp_path, prepare_here) -> Path:
    """The same by one process, without any way of many machines."""
    assert prepare_here(*words, f"--output={tmp_path / 'here'}").status == 0
    return tmp_path / "here"


def test_ten_cases_in_three_shards_are_three_three_and_four(here):
    manifest = json.loads((here / "manifest.json").read_text())
    assert [shard["records"] for shard in manifest["shards"]] == [3, 3, 4]
    assert [case["case_id"] for case in manifest["cases"]] == [
        f"ball_{i}" for i in range(10)
    ]


def test_tasks_of_a_job_array_in_any_order_and_a_join_write_the_same_bytes(
    words, here, tmp_path, prepare_here
):
    output = f"--output={tmp_path / 'array'}"
    for index in (2, 0, 1):
        assert prepare_here(*words, output, f"--shard_index={index}").status == 0
        assert not (tmp_path / "array" / "manifest.json").exists()
    assert prepare_here(*words, output, "--join").status == 0
    assert files(tmp_path / "array") == files(here)


BEAM = importlib.util.find_spec("apache_beam") is not None


needs_beam = pytest.mark.skipif(
    not BEAM, reason="apache_beam is not installed: the extra 'beam'"
)


@needs_beam
@pytest.mark.parametrize(
    "options",
    [
        "--direct_running_mode=in_memory",
        "--direct_running_mode=multi_processing --direct_num_workers=2",
    ],
)
def test_beams_direct_runner_writes_the_same_bytes(
    words, here, tmp_path, run_program, options
):
    output = f"--output={tmp_path / 'beam'}"
    beam = ("--runner=direct", f"--beam_options={options}")
    process = run_program("data_prep.prepare", *words, output, *beam)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert files(tmp_path / "beam") == files(here)


@needs_beam
@pytest.mark.cluster
def test_beam_reads_from_and_writes_into_a_bucket(
    buckets, words, here, scan_folder, tmp_path, run_program
):
    bucket = buckets.make()
    buckets.upload(scan_folder, f"{bucket}/scans")
    places = (f"--input={bucket}/scans", f"--output={bucket}/data")
    cache, options = f"--cache_dir={tmp_path / 'cache'}", "--direct_num_workers=2"
    beam = (f"--beam_options=--direct_running_mode=multi_processing {options}",)
    given = (*words, *places, cache, "--runner=direct", *beam)
    process = run_program("data_prep.prepare", *given)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    there, local = buckets.contents(f"{bucket}/data"), files(here)
    assert there.keys() == local.keys()
    for name, content in there.items():
        if not name.startswith(".parts/"):  # these have the time of the copy
            assert content == local[name], name


@pytest.mark.skipif(BEAM, reason="apache_beam is installed")
def test_without_beam_a_runner_says_what_to_install(words, tmp_path, prepare_here):
    outcome = prepare_here(*words, f"--output={tmp_path}", "--runner=flink")
    assert outcome.status == 2
    assert "--runner=flink" in outcome.err
    assert "pip install -e '.[beam]'" in outcome.err


def test_a_join_names_the_tasks_that_are_missing_and_removes_nothing(
    words, tmp_path, prepare_here
):
    output = f"--output={tmp_path / 'array'}"
    assert prepare_here(*words, output, "--shard_index=1").status == 0
    before = files(tmp_path / "array")
    outcome = prepare_here(*words, output, "--join")
    assert outcome.status == 3 and outcome.err.count("\n") == 1
    assert "2 of 3 shards are missing" in outcome.err and ": 0,2;" in outcome.err
    assert files(tmp_path / "array") == before


def test_a_task_leaves_alone_what_another_is_writing(words, tmp_path, prepare_here):
    (tmp_path / ".parts").mkdir()
    others = [
        tmp_path / ".cases-00001-of-00003.array_record.77.new",
        tmp_path / ".parts" / ".cases-00001-of-00003.json.77.new",
    ]
    for path in others:
        path.write_text("half of it")
    assert prepare_here(*words, f"--output={tmp_path}", "--shard_index=0").status == 0
    assert [path.read_text() for path in others] == ["half of it"] * 2


def test_a_task_that_is_done_does_nothing_again(words, tmp_path, prepare_here):
    words = (*words, f"--output={tmp_path}", "--shard_index=2")
    assert prepare_here(*words).status == 0
    (shard,) = tmp_path.glob("*.array_record")
    before = shard.stat().st_mtime_ns
    assert prepare_here(*words).status == 0
    assert shard.stat().st_mtime_ns == before


def test_a_bad_case_does_not_fail_its_task_and_is_said_by_the_join(
    tmp_path, make_scans, prepare_here
):
    scans = make_scans(tmp_path / "scans", "a", "b", "c")
    bad = scans / "images" / "b.nii.gz"
    bad.write_bytes(b"")
    words = ("--source=nifti", f"--input={scans}", LABELS, "--num_shards=3")
    output = f"--output={tmp_path / 'array'}"
    for index in range(3):
        outcome = prepare_here(*words, output, f"--shard_index={index}")
        assert outcome.status == 0
        assert (f"left out b: {bad}: " in outcome.err) == (index == 1)
    outcome = prepare_here(*words, output, "--join")
    assert outcome.status == 3 and f"  b: {bad}: content is not gzip" in outcome.err
    assert open_dataset(tmp_path / "array").case_ids == ("a", "c")
    strict = prepare_here(*words, output, "--shard_index=1", "--strict")
    assert strict.status == 3 and strict.err.startswith(f"error: {bad}: ")


def test_flags_that_cannot_be_meant_are_refused_in_one_line(
    words, tmp_path, prepare_here
):
    for more, part in [
        (["--shard_index=3"], "--shard_index=3: shards are 0 to 2"),
        (["--shard_index=0", "--join"], "--shard_index and --join: give one"),
        (["--join", "--runner=direct"], "--join and --runner: give one"),
        (["--cases_per_shard=2"], "--num_shards and --cases_per_shard: give one"),
        (["--num_shards=11"], "--num_shards=11: there are only 10 cases"),
        (["--beam_options=--x=1"], "--beam_options needs --runner"),
        (["--work=2"], "unknown flag --work"),  # no abbreviation of --workers
    ]:
        outcome = prepare_here(*words, f"--output={tmp_path / 'out'}", *more)
        assert outcome.status == 2 and part in outcome.err
        assert outcome.err.count("\n") == 1 and outcome.err.startswith("error: ")
        assert not (tmp_path / "out").exists()


def test_a_shard_index_without_the_number_of_shards_is_refused(
    scan_folder, tmp_path, prepare_here
):
    words = ("--source=nifti", f"--input={scan_folder}", LABELS)
    outcome = prepare_here(*words, f"--output={tmp_path}", "--shard_index=0")
    assert outcome.status == 2 and "--shard_index=0 needs --num_shards" in outcome.err


def test_the_slurm_script_submits_tasks_and_a_join_of_which_each_runs_its_part(
    words, tmp_path, prepare_here
):
    """SLURM itself is not here: this sbatch runs at once what the real one would."""
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(
        "#!/bin/bash\n"
        f'echo "$@" >> {tmp_path}/submitted\n'
        "shift\n"  # --parsable
        "case $1 in\n"
        "--array=0-*) for i in $(seq 0 ${1#--array=0-}); do\n"
        "    SLURM_JOB_ID=7 SLURM_ARRAY_TASK_ID=$i bash ${@:2} >&2; done ;;\n"
        "*) SLURM_JOB_ID=8 bash ${@:2} >&2 ;;\n"
        "esac\n"
        "echo 7\n"
    )
    sbatch.chmod(0o755)
    output = tmp_path / "slurm"
    plain = [word for word in words if not word.startswith("--num_shards")]
    done = subprocess.run(
        ["bash", "data_prep/runners/slurm_array.sh", "2", *plain, f"--output={output}"],
        cwd=ROOT,
        env=os.environ
        | {"PATH": f"{sbatch.parent}:{os.environ['PATH']}", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    first, second = (tmp_path / "submitted").read_text().splitlines()
    array = "--parsable --array=0-1 data_prep/runners/slurm_array.sh --source"
    assert first.startswith(array)
    assert second.startswith(
        "--parsable --dependency=afterok:7 data_prep/runners/slurm_array.sh"
    )
    alone = prepare_here(*plain, "--num_shards=2", f"--output={tmp_path / 'here'}")
    assert alone.status == 0 and files(output) == files(tmp_path / "here")


def test_every_pod_of_the_kubernetes_job_has_a_shard_of_its_own():
    text = (ROOT / "data_prep" / "runners" / "kubernetes_job.yaml").read_text(
        encoding="utf-8"
    )
    (completions,) = re.findall(r"completions: (\d+)", text)
    command = re.findall(r"^ +- (--\w+=\S+)", text, re.M)
    given = [word.replace("$(JOB_COMPLETION_INDEX)", "39") for word in command]
    arguments = parse(given, None)
    assert "completionMode: Indexed" in text
    assert (arguments.num_shards, arguments.shard_index) == (int(completions), 39)
