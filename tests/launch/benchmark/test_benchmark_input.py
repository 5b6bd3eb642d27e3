"""The benchmarks of input pipeline and memory: small real runs and their tables."""

import json

import pytest

from attunet_jax.errors import BadArguments
from launch.benchmark import input as benchmark_input
from launch.benchmark import memory as benchmark_memory
from launch.benchmark import preparation, process_memory


def test_cases_a_second_are_measured_and_their_ratios_taken_within_a_round(
    tmp_path, capsys
):
    output = tmp_path / "input.json"
    words = ["--size=tiny", "--rounds=2", "--batches=3", f"--output={output}"]
    assert benchmark_input.main(benchmark_input.FLAGS.parse(words)) == 0
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
    megabytes = process_memory.resident_bytes_of(lambda: bytes(range(1, 256)) * 400_000)
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
        "results": [
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


def test_a_bad_argument_is_named_with_what_can_be_used():
    for module, word, part in (
        (benchmark_input, "--against=tensorflow", "must be of nnunet, monai"),
        (benchmark_input, "--size=huge", "there are paper, small, tiny"),
        (benchmark_memory, "--memory_gb=0", "must be above 0"),
        (preparation, "--against=itk", "must be of nnunet, nnunet_linear, monai"),
        (preparation, "--rounds=0", "--rounds=0: must be 1 or more"),
    ):
        with pytest.raises(BadArguments) as raised:
            module.main(module.FLAGS.parse([word]))
        assert part in str(raised.value)
