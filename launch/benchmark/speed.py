"""Measures how fast this machine does everything, beside other libraries if asked.

    python -m launch.benchmark speed --output=BENCHMARK
    python -m launch.benchmark speed --size=paper --compute_dtype=float32,bfloat16
    python -m launch.benchmark speed --against=torch --peer_python=OTHER/bin/python

Forward pass, train step with augmentation, input pipeline, preparation, whole-case
prediction and metrics, for U-Net and Attention U-Net, on synthetic scans. Prints
tables; --output=DIR gets benchmark.md and benchmark.json. --against runs the published
network in PyTorch and MONAI's AttentionUnet, each in its own process, in turn with
ours. They need `pip install -e '.[benchmark]'`, here or where --peer_python is.
"""

import datetime
import json
import os
import sys
from pathlib import Path

from attunet_jax.config_fields import FIELDS
from attunet_jax.errors import BadArguments
from attunet_jax.files import make_folder, write_text
from launch import cli
from launch.benchmark import workload
from launch.benchmark.peers import client
from launch.flag_types import names_of, positive

FLAGS = cli.Flags(__doc__)
FLAGS.add(
    "size", str, None, "paper, small or tiny; without: small on a CPU, else paper."
)
FLAGS.add("output", Path, None, "Folder for benchmark.md and benchmark.json.")
FLAGS.add("device", str, None, "cpu, gpu or tpu; without: what JAX finds.")
FLAGS.add("networks", names_of(workload.NETWORKS), workload.NETWORKS, "Networks.")
FLAGS.add(
    "measure",
    names_of(workload.MEASUREMENTS),
    tuple(workload.MEASUREMENTS),
    "What to measure.",
)
FLAGS.add(
    "compute_dtype",
    names_of(workload.DTYPES),
    ("float32",),
    "Types of ours: float32, bfloat16 or both.",
)
FLAGS.add("convolution", str, "auto", "config.model.convolution of ours.")
FLAGS.add("rounds", positive, 7, "Rounds of each measurement.")
FLAGS.add(
    "against",
    names_of(client.LIBRARIES, may_be_empty=True),
    (),
    "torch, monai or both.",
)
FLAGS.add("peer_python", str, sys.executable, "Python interpreter that has the peers.")
FLAGS.add(
    "torch_compile",
    bool,
    False,
    "Measure torch.compile too: minutes to compile on a CPU.",
)
FLAGS.add("longest_call_s", float, 60.0, "A peer with a longer call is skipped.")


def main(values: cli.Values) -> int:
    # JAX would reserve most of a GPU's memory and leave the peers none.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

    # Late: these import jax.
    from launch.benchmark import machine, measurements, report

    client.check_libraries(values.against, values.peer_python)
    problem = FIELDS["model.convolution"].problem(values.convolution)
    if problem:
        raise BadArguments(f"--convolution={values.convolution}: {problem}")
    output = values.output
    if output:
        make_folder(output)
    device = machine.choose_device(values.device)
    if values.against and device.platform not in ("cpu", "gpu"):
        raise BadArguments(f"--against: PyTorch does not run on {device.platform} here")
    options = measurements.Options(
        size=workload.find_size(values.size, backend=device.platform),
        networks=values.networks,
        measurements=values.measure,
        dtypes=values.compute_dtype,
        convolution=values.convolution,
        rounds=values.rounds,
        against=values.against,
        peer_python=values.peer_python,
        torch_compile=values.torch_compile,
        longest_call_s=values.longest_call_s,
    )
    document = {
        "format": "attunet_jax.benchmark",
        "version": 2,
        "date": datetime.date.today().isoformat(),
        **measurements.Measurements(options, device).run(),
    }
    text = report.to_markdown(document)
    print(text)
    if output:
        write_text(output / "benchmark.json", json.dumps(document, indent=2) + "\n")
        write_text(output / "benchmark.md", text)
        print(f"written to {output / 'benchmark'}.md and .json")
    return 0
