"""Measures how fast this machine does everything, beside other libraries if asked.

    python -m launch.benchmark speed --output=BENCHMARK
    python -m launch.benchmark speed --size=paper --compute_dtype=float32,bfloat16
    python -m launch.benchmark speed --against=torch --peer_python=OTHER/bin/python

Forward pass, train step with augmentation, input pipeline, preparation, whole-case
prediction and metrics, for U-Net and Attention U-Net, on scans it makes itself. Prints
tables; --output=DIR gets benchmark.md and benchmark.json. --against runs the published
network in PyTorch and MONAI's AttentionUnet, each in its own process, in turn with
ours; they need the extra attunet_jax[benchmark], here or where --peer_python is.
"""

import argparse
import datetime
import json
import os
import sys
from pathlib import Path

from attunet_jax.errors import BadArguments
from attunet_jax.files import make_folder, write_text
from launch.benchmark.command_line import DTYPES, Parser, check, names


def main(argv: list[str]) -> int:
    arguments = _parse(argv)
    # JAX would take most of a GPU's memory at once and leave the peers none.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

    # Late: these import jax.
    from attunet_jax.model.config import CHOICES
    from launch.benchmark import machine, report, session, wanted, workload
    from launch.benchmark.peers import client

    client.check_libraries(arguments.against, arguments.peer_python)
    check("--networks", arguments.networks, workload.NETWORKS)
    check("--measure", arguments.measure or (), wanted.FIGURES)
    check("--convolution", (arguments.convolution,), CHOICES["convolution"])
    output = Path(arguments.output) if arguments.output else None
    if output:
        make_folder(output)
    device = machine.choose_device(arguments.device)
    if arguments.against and device.platform not in ("cpu", "gpu"):
        raise BadArguments(f"--against: PyTorch does not run on {device.platform} here")
    wish = wanted.Wanted(
        size=workload.find_size(arguments.size, backend=device.platform),
        networks=arguments.networks,
        figures=arguments.measure or wanted.FIGURES,
        dtypes=arguments.compute_dtype,
        convolution=arguments.convolution,
        rounds=arguments.rounds,
        against=arguments.against,
        peer_python=arguments.peer_python,
        torch_compile=arguments.torch_compile,
        longest_call_s=arguments.longest_call_s,
    )
    document = {
        "format": "attunet_jax.benchmark",
        "version": 1,
        "date": datetime.date.today().isoformat(),
        **session.Session(wish, device).run(),
    }
    text = report.to_markdown(document)
    print(text)
    if output:
        write_text(output / "benchmark.json", json.dumps(document, indent=2) + "\n")
        write_text(output / "benchmark.md", text)
        print(f"written to {output / 'benchmark'}.md and .json")
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser("launch.benchmark speed", __doc__)
    add = parser.add_argument
    add("--size", help="paper, small or tiny (default: small on a CPU, else paper)")
    add("--output", help="folder for benchmark.md and benchmark.json")
    add("--device", help="cpu, gpu or tpu (default: what JAX finds)")
    add(
        "--networks",
        type=names,
        default=("unet", "attention_unet"),
        help="unet, attention_unet or both (the default)",
    )
    add(
        "--measure",
        type=names,
        help="only these: forward, train_step, input_pipeline, preparation, "
        "prediction, metrics, gate_parts",
    )
    add(
        "--compute_dtype",
        type=names,
        default=("float32",),
        help="float32, bfloat16 or both (default float32)",
    )
    add(
        "--convolution",
        default="auto",
        help="config.model.convolution of ours: auto, compiler, matrix or onednn",
    )
    add("--rounds", type=int, default=7, help="measurements of each (default 7)")
    add("--against", type=names, default=(), help="torch, monai or both")
    add(
        "--peer_python",
        default=sys.executable,
        help="interpreter that has them (default: this one)",
    )
    add(
        "--torch_compile",
        action="store_true",
        help="torch.compile as well: minutes to compile on a CPU",
    )
    add(
        "--longest_call_s",
        type=float,
        default=60.0,
        help="a peer that needs longer for a call is skipped (default 60)",
    )
    arguments = parser.parse_args(argv)
    check("--compute_dtype", arguments.compute_dtype, DTYPES)
    if not (arguments.compute_dtype and arguments.networks):
        raise BadArguments("--compute_dtype and --networks each need a name")
    if arguments.rounds < 1:
        raise BadArguments(f"--rounds={arguments.rounds} must be 1 or more")
    return arguments
