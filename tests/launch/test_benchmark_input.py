"""The measurements of the input pipeline and of memory: real runs, in small."""

import json

import pytest

from launch.benchmark import input as benchmark_input
from launch.benchmark import memory as benchmark_memory
from launch.benchmark import memory_process


def test_cases_a_second_are_measured_and_their_ratios_taken_within_a_round(
    tmp_path, capsys
):
    output = tmp_path / "input.json"
    words = ["--size=tiny", "--rounds=2", "--batches=3", f"--output={output}"]
    assert benchmark_input.main(words) == 0
    rounds = json.loads(output.read_text())["cases_per_s"]
    assert [set(r) for r in rounds] == 2 * [
        {
            "attunet_jax, scans",
            "attunet_jax, crops",
            "augmentation on this device alone",
        }
    ]
    assert all(rate > 0 for r in rounds for rate in r.values())
    ratios = [r["attunet_jax, scans"] / r["attunet_jax, crops"] for r in rounds]
    expected = f"{sum(ratios) / 2:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
    line = next(x for x in capsys.readouterr().out.splitlines() if "crops" in x)
    assert line.endswith(expected)


def test_what_a_step_allocates_is_seen():
    megabytes = memory_process._resident_beyond(lambda: bytes(range(1, 256)) * 400_000)
    assert 0.9 * 102e6 < megabytes < 1.1 * 102e6


def test_the_largest_cube_is_what_memory_holds_beside_parameters():
    # 10 bytes a voxel; 1 GB less 0.2 GB is 80 million voxels: 430.9 cubed.
    document = {
        "date": "2026-11-24",
        "machine": {"device": "cpu", "packages": {"jax": "0.10.2"}},
        "size": "tiny",
        "voxels": 100,
        "memory_gb": 1.0,
        "divisor": 16,
        "rows": [
            {
                "network": "unet",
                "by": "attunet_jax",
                "step_bytes": 1000,
                "state_bytes": 200_000_000,
            },
            {"network": "unet", "by": "torch", "skipped": "killed"},
        ],
    }
    text = benchmark_memory.to_markdown(document)
    assert "| unet | attunet_jax | 0 MB | 10 B | 200 MB | 416³ |" in text
    assert "| unet | torch | killed |" in text


@pytest.mark.parametrize(
    "module, words, line",
    [
        ("input", "--against=tensorflow", "there are nnunet, monai"),
        ("input", "--batches=0", "must be 1 or more"),
        ("input", "--size=huge", "there are paper, small, tiny"),
        ("memory", "--networks=vnet", "there are unet, attention_unet"),
        ("memory", "--memory_gb=0", "above 0"),
        ("memory", "--peer=torch", "unrecognized arguments"),
    ],
)
def test_bad_words_are_one_line(refused, module, words, line):
    status, said = refused("launch.benchmark", module, words)
    assert status == 2 and line in said
