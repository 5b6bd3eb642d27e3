"""Runs that are killed or stopped midway: real processes, real signals.

prepare writes shards, phantom scans; what is under its final name is whole.
"""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from data_prep import phantom, prepare
from data_prep.shard import DESCRIPTIONS

# What a program writes, and how many of it in the runs below.
OUTPUTS = {"prepare": ("cases-*", 12), "phantom": ("labels/*.nii.gz", 6)}


def files(folder: Path) -> dict[str, bytes]:
    """What a reader of the folder sees: nothing hidden."""
    return {
        name: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and "/." not in "/" + (name := path.relative_to(folder).as_posix())
    }


def written(folder: Path, program: str) -> dict[str, int]:
    """Outputs under their final names, and when each was written."""
    pattern, _ = OUTPUTS[program]
    return {
        path.name: path.stat().st_mtime_ns
        for path in folder.glob(pattern)
        if not path.name.startswith(".")
    }


def being_written(folder: Path) -> list[Path]:
    return [
        path for end in ("part", "new") for path in folder.rglob(f".[!.]*.[0-9]*.{end}")
    ]


def until(condition, process, timeout_s: float = 300.0) -> None:
    """Waits for it to be true while the process runs."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, "it ended before the signal"
        assert time.monotonic() < end
        time.sleep(0.005)


def said(err: str) -> str:
    """The one line on stderr that is not the bar's."""
    bars = ("prepare: ", "phantoms: ")
    (line,) = [line for line in err.splitlines() if line and not line.startswith(bars)]
    return line.removeprefix("error: ").replace("interrupted by ", "")


def children(pid: int) -> list[int]:
    """Processes that a process started, by /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # ended while we looked
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def workers(pid: int) -> list[int]:
    """Those of the children that work on scans."""
    found = []
    for child in children(pid):
        try:
            words = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        if b"spawn_main" in words:
            found.append(child)
    return found


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def kill(process) -> bool:
    """With the signal nobody can heed; whether its workers end by themselves."""
    started = workers(process.pid)
    process.kill()
    process.wait()
    end = time.monotonic() + 10
    while any(map(alive, started)) and time.monotonic() < end:
        time.sleep(0.02)
    left = [*filter(alive, started)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return not left


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="no /proc to find processes in"
)


@pytest.fixture(scope="module")
def commands(tmp_path_factory, save_nifti) -> dict[str, tuple[str, ...]]:
    """Work that takes long enough for a signal to come in between."""
    scans = tmp_path_factory.mktemp("many")
    noise = np.random.default_rng(0).integers(-200, 200, (96, 96, 64))
    for i in range(24):
        image = np.roll(noise, i, 0).astype(np.int16)
        label = np.zeros(image.shape, np.uint8)
        label[20 + i : 60, 30:60, 20:40] = 1
        save_nifti(scans / "images" / f"scan_{i:02}.nii", image)
        save_nifti(scans / "labels" / f"scan_{i:02}.nii", label)
    source = ("--source=nifti", f"--input={scans}", "--labels=spleen=1")
    return {
        "prepare": (*source, "--blur_mm=8", "--cases_per_shard=2"),
        "phantom": ("--cases=6", "--seed=8"),
    }


@pytest.fixture(scope="module")
def undisturbed(commands, tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """What each program writes in this process when nobody stops it."""
    contents = {}
    for program, words in commands.items():
        output = tmp_path_factory.mktemp(program)
        main = {"prepare": prepare.main, "phantom": phantom.main}[program]
        assert main([*words, f"--output={output}", "--workers=1"]) == 0
        contents[program] = files(output)
    return contents


@pytest.fixture
def start(tmp_path, commands, run_program):
    """Starts a run or goes on with it; ends what a test leaves."""
    begun = []

    def start(program: str, count: int):
        words = (*commands[program], f"--output={tmp_path}", f"--workers={count}")
        begun.append(run_program(f"data_prep.{program}", *words))
        return begun[-1]

    yield start
    for process in begun:
        if process.poll() is None:
            kill(process)
        for pipe in (process.stdout, process.stderr):
            pipe.close()


@pytest.mark.parametrize(
    "program, count, kills",
    [("prepare", 1, (1, 5)), ("prepare", 2, (3,)), ("phantom", 2, (2,))],
)
def test_a_killed_run_leaves_whole_files_and_no_process_and_the_same_command_goes_on(
    tmp_path, start, undisturbed, program, count, kills
):
    for wanted in kills:
        process = start(program, count)
        # Midway: so many files are there, and another is being written.
        until(
            lambda wanted=wanted: (
                len(written(tmp_path, program)) >= wanted and being_written(tmp_path)
            ),
            process,
        )
        assert kill(process), "workers outlive the run"
        assert process.returncode == -signal.SIGKILL
        assert wanted <= len(written(tmp_path, program)) < OUTPUTS[program][1]
        for name, content in files(tmp_path).items():
            assert content == undisturbed[program][name]
    # Killed between a shard and its description, a worker has it written again, to the
    # same bytes.
    before = {
        name: when
        for name, when in written(tmp_path, program).items()
        if program != "prepare"
        or (tmp_path / DESCRIPTIONS / name).with_suffix(".json").exists()
    }
    assert len(before) >= kills[-1] - count
    process = start(program, count)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert files(tmp_path) == undisturbed[program]
    assert written(tmp_path, program).items() >= before.items()
    assert not being_written(tmp_path)


@pytest.mark.parametrize("count", [1, 2])
def test_a_stopped_run_says_so_in_one_line_and_the_same_command_goes_on(
    tmp_path, start, undisturbed, count
):
    process = start("prepare", count)
    until(lambda: written(tmp_path, "prepare"), process)
    started = workers(process.pid)
    process.terminate()
    while count == 2 and process.poll() is None:  # again and again: it is said once
        process.terminate()
        time.sleep(0.005)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 75
    assert said(err).startswith("SIGTERM: ")
    assert said(err).endswith("the same command continues from here")
    assert not any(map(alive, started))
    # It has not worked to the end before it heeded.
    assert len(written(tmp_path, "prepare")) < OUTPUTS["prepare"][1]
    for name, content in files(tmp_path).items():
        assert content == undisturbed["prepare"][name]
    process = start("prepare", count)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert files(tmp_path) == undisturbed["prepare"]


@needs_proc
@pytest.mark.parametrize(
    "program, number, outputs",
    [
        ("prepare", signal.SIGTERM, 0),  # workers are still starting
        ("prepare", signal.SIGINT, 1),
        ("phantom", signal.SIGTERM, 1),
    ],
)
def test_a_signal_to_the_whole_group_is_the_same_as_to_the_program(
    tmp_path, start, program, number, outputs
):
    # Schedulers signal every process of a job, and so does Ctrl-C in a terminal.
    process = start(program, 2)
    until(lambda: len(workers(process.pid)) == 2, process)
    until(lambda: len(written(tmp_path, program)) >= outputs, process)
    for pid in workers(process.pid):
        os.kill(pid, number)
    time.sleep(0.05)  # the program comes last: it must not take this for a crash
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 75
    assert said(err).endswith("the same command continues from here")
    assert len(written(tmp_path, program)) < OUTPUTS[program][1]


@needs_proc
def test_a_worker_that_is_killed_is_said_in_one_line(tmp_path, start, undisturbed):
    # As the kernel does where memory runs out.
    process = start("prepare", 2)
    until(lambda: written(tmp_path, "prepare"), process)
    os.kill(workers(process.pid)[0], signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 3
    line = said(err)
    assert line.startswith(f"{tmp_path}: ") and "--workers" in line
    for name, content in files(tmp_path).items():
        assert content == undisturbed["prepare"][name]
