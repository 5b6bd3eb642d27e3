"""Programs interrupted at random moments: they say so, leave whole files, go on."""

import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
# Files that hold times, the order of events or how far a run is, by their endings.
VARYING = ("jsonl", ".json", ".md", ".csv", ".tex", ".html", ".pdf", "progress.png")
TIMES = 20
SHARED = Path(__file__).resolve().parents[3] / "shared"
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="no /proc to see handlers in"
)


def wait_for_handlers(process) -> None:
    """Until the program listens: Python alone takes a moment to start."""
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        caught = next(x for x in status.read_text().splitlines() if "SigCgt" in x)
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.005)


def contents(folder: Path) -> dict[str, bytes]:
    """The finished files whose bytes are the same in every run."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and not path.name.startswith((".", "events."))
        and not path.name.endswith(VARYING)
        and "checkpoints" not in path.relative_to(folder).parts
    }


def unfinished(folder: Path) -> list[str]:
    """What was begun under another name; cases.jsonl is a journal until its end."""
    return [
        path.name
        for path in folder.rglob(".*.*")
        if path.name.endswith((".new", ".part", ".tmp"))
        and path.name != ".cases.jsonl.new"
    ]


def interrupt(process, after_s: float, number: signal.Signals) -> tuple[int, str]:
    """Sends the signal so long after the start; checks the end; (status, stderr)."""
    wait_for_handlers(process)
    time.sleep(after_s)
    process.send_signal(number)
    began = time.monotonic()
    _, errors = process.communicate(timeout=120)
    seconds = time.monotonic() - began
    if process.returncode == 0:
        return 0, errors  # it had done everything
    assert process.returncode == 75, errors
    assert "Traceback" not in errors and "Exception ignored" not in errors
    assert NAMES[number] in errors and seconds < 30, errors
    return 75, errors


@pytest.fixture
def interrupt_often(run_program, commands, tmp_path):
    """Interrupts a program so many times; returns how often it was at work."""

    def interrupt_often(program: str, times: int, seed: int = 0) -> int:
        def start(folder: Path):
            return run_program(program, *commands[program](folder))

        began = time.monotonic()
        whole, folder = tmp_path / "whole", tmp_path / "interrupted"
        process = start(whole)
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        whole_s, expected = time.monotonic() - began, contents(whole)
        chance, hit = random.Random(seed), 0
        for turn in range(times):
            number = [*NAMES][turn % 2]
            status, _ = interrupt(start(folder), chance.uniform(0, whole_s), number)
            hit += status == 75
            assert unfinished(folder) == []
            for name, content in contents(folder).items():
                assert content == expected[name], name
            if status == 0:  # begins anew; otherwise goes on where this one stopped
                shutil.rmtree(folder, ignore_errors=True)
        process = start(folder)
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        assert contents(folder) == expected
        return hit

    return interrupt_often


@pytest.fixture(scope="session")
def commands(
    trained, prepared, scan_folder, tiny_flags, published_file
) -> dict[str, Callable[[Path], Sequence[object]]]:
    """The words of each program for a folder that it writes into."""
    run, data = f"--workdir={trained[0]}", f"--data={prepared}"
    training = (
        *tiny_flags,
        "--config.train.steps=12",
        "--config.train.checkpoint_every_steps=2",
        "--config.train.evaluate_every_steps=6",
    )
    golden = SHARED / "golden"
    return {
        "launch.evaluate": lambda to: (run, data, f"--output={to}", "--part=all"),
        "launch.predict": lambda to: (
            run,
            f"--input={scan_folder / 'images'}",
            f"--output={to}",
        ),
        "launch.train": lambda to: (data, f"--workdir={to}", *training),
        "launch.tables": lambda to: (
            data,
            f"--workdir={to}",
            "--splits=80_20",
            *training,
        ),
        "launch.demo": lambda to: (f"--output={to}", "--cases=10", *training),
        "data_prep.prepare": lambda to: (
            "--source=nifti",
            f"--input={scan_folder}",
            f"--output={to}",
            "--labels=spleen=1,pancreas=2,kidney=3",
            "--cases_per_shard=1",
        ),
        "data_prep.verify": lambda to: (
            "--source=nifti",
            f"--input={scan_folder}",
            f"--output={to}",
        ),
        "data_prep.phantom": lambda to: (f"--output={to}", "--cases=8"),
        "launch.import_weights": lambda to: (
            f"--input={published_file}",
            f"--workdir={to}",
            "--spacing_mm=4",
        ),
        "launch.parity": lambda _: (f"--golden={golden}",),
    }


@pytest.mark.parametrize("program", ["launch.evaluate", "launch.predict"])
def test_an_interrupted_program_ends_with_75_and_whole_files(
    run_program, commands, tmp_path, program
):
    number = signal.SIGINT if program == "launch.evaluate" else signal.SIGTERM
    process = run_program(program, *commands[program](tmp_path))
    interrupt(process, random.Random().uniform(0, 4), number)
    assert unfinished(tmp_path) == []


@pytest.mark.cluster
@pytest.mark.parametrize(
    "program",
    [
        "launch.train",
        "launch.evaluate",
        "launch.predict",
        "launch.tables",
        "launch.demo",
        "launch.import_weights",
        "launch.parity",
        "data_prep.prepare",
        "data_prep.verify",
        "data_prep.phantom",
    ],
)
def test_interrupted_at_random_moments_a_program_ends_with_75_and_goes_on(
    interrupt_often, program
):
    if program == "launch.parity" and not (SHARED / "golden").is_dir():
        pytest.skip("no golden files beside this checkout")
    assert interrupt_often(program, TIMES) > TIMES / 4
