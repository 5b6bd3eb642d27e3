"""Measures how much memory a train step needs, beside PyTorch's.

    python -m launch.benchmark memory
    python -m launch.benchmark memory --size=paper --against=torch \\
        --peer_python=OTHER/bin/python

Each step runs in a process of its own: ours with and without recomputed activations
(config.model.rematerialise), the published network in PyTorch as launch.benchmark runs
it. Prints what the step needs beside parameters and optimizer, that for each voxel of
a batch, and the largest cube that would train at batch 1 in --memory_gb.
"""

import argparse
import datetime
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from attunet_jax.errors import BadArguments, one_line
from launch.benchmark.command_line import DTYPES, Parser, names

ROOT = Path(__file__).resolve().parents[2]


def main(argv: list[str]) -> int:
    arguments = _parse(argv)
    from launch.benchmark import machine, workload  # late: these import jax
    from launch.benchmark.peers import client

    client.check_libraries(arguments.against, arguments.peer_python)
    device = machine.choose_device(None)
    size = workload.find_size(arguments.size, backend=device.platform)
    rows = []
    for network in arguments.networks:
        wishes = _wishes(network, size, device.platform, arguments)
        for python, wish in wishes:
            print(f"{network}: {wish['name']}", file=sys.stderr, flush=True)
            answer = _run(python, wish)
            rows.append({"network": network, "by": wish["name"], **answer})
    document = {
        "format": "attunet_jax.benchmark_memory",
        "version": 1,
        "date": datetime.date.today().isoformat(),
        "machine": machine.describe(device),
        "size": size.name,
        "voxels": size.batch * math.prod(size.shape),
        "memory_gb": arguments.memory_gb,
        "divisor": 2 ** (len(size.widths) - 1),
        "rows": rows,
    }
    print(to_markdown(document))
    if arguments.output:
        arguments.output.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def _wishes(network: str, size: Any, backend: str, arguments: Any) -> list:
    from launch.benchmark import workload
    from launch.benchmark.peers import client

    wishes = [
        (
            sys.executable,
            {
                "by": "attunet_jax",
                "name": f"attunet_jax, {dtype}"
                + (", recomputing" if recomputing else ""),
                "network": network,
                "size": size.name,
                "compute_dtype": dtype,
                "rematerialise": recomputing,
            },
        )
        for dtype in arguments.compute_dtype
        for recomputing in (False, True)
    ]
    config = workload.config_of(network, size, "float32")
    for name, peer in client.peer_wishes(
        arguments.against,
        config.model,
        len(config.classes),
        size,
        backend=backend,
        compiled=False,
    ).items():
        if peer["compute_dtype"] in arguments.compute_dtype:
            wish = {"by": "torch", "name": name, "peer": peer}
            wishes.append((arguments.peer_python, wish))
    return wishes


def _run(python: str, wish: dict) -> dict[str, Any]:
    done = subprocess.run(
        [python, "-m", "launch.benchmark.memory_process", json.dumps(wish)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
    )
    if done.returncode == 0:
        return json.loads(done.stdout)
    if done.returncode == -9:
        return {"skipped": "killed, as the system does when memory runs out"}
    said = (done.stderr.strip() or "no message").splitlines()[-1]
    return {"skipped": one_line(RuntimeError(said))[:200]}


def to_markdown(document: dict[str, Any]) -> str:
    """The table, a row a step."""
    gigabytes = document["memory_gb"]
    versions = document["machine"]["packages"]
    lines = [
        f"{document['date']}; {document['machine']['device']}; jax {versions['jax']}; "
        f"size `{document['size']}`, {document['voxels']:,} voxels a batch",
        "",
        "| network | by | step | for each voxel | parameters and optimizer | largest "
        f"cube in {gigabytes:g} GB |",
        "|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        start = f"| {row['network']} | {row['by']} | "
        if "skipped" in row:
            lines.append(start + f"{row['skipped']} | | | |")
            continue
        each = row["step_bytes"] / document["voxels"]
        side = ((gigabytes * 1e9 - row["state_bytes"]) / each) ** (1 / 3)
        whole = int(side // document["divisor"] * document["divisor"])
        lines.append(
            start + f"{row['step_bytes'] / 1e6:.0f} MB | {each:.0f} B | "
            f"{row['state_bytes'] / 1e6:.0f} MB | {whole}³ |"
        )
    return "\n".join(lines)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser("launch.benchmark memory", __doc__)
    add = parser.add_argument
    add("--size", help="paper, small or tiny (default: small on a CPU, else paper)")
    add("--networks", type=names, default=("unet", "attention_unet"))
    add("--compute_dtype", type=names, default=("float32",), help="or bfloat16")
    add("--against", type=names, default=(), help="torch, monai or both")
    add("--peer_python", default=sys.executable, help="interpreter that has them")
    add("--memory_gb", type=float, default=16.0, help="of the device (default 16)")
    add("--output", type=Path, help="file for all figures as JSON")
    arguments = parser.parse_args(argv)
    for flag, known in (
        ("networks", ("unet", "attention_unet")),
        ("compute_dtype", DTYPES),
    ):
        given = getattr(arguments, flag)
        if not given or set(given) - set(known):
            raise BadArguments(
                f"--{flag}={','.join(given)}: there are {', '.join(known)}"
            )
    if arguments.memory_gb <= 0:
        raise BadArguments("--memory_gb must be above 0")
    return arguments
