r"""Measures how much memory a train step needs, beside PyTorch's.

    python -m launch.benchmark memory --size=tiny
    python -m launch.benchmark memory --size=paper --against=torch \
        --peer_python=OTHER/bin/python

Each step runs in a process of its own: ours with and without rematerialisation
(config.model.remat), and the published network in PyTorch. Prints what the step
needs beside parameters and optimizer, the same for each voxel of a batch, and the
largest cube that would train at batch 1 in --memory_gb.
"""

import datetime
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from attunet_jax.errors import BadArguments, one_line
from launch import cli
from launch.benchmark import workload
from launch.benchmark.peers import client
from launch.flag_types import names_of

ROOT = Path(__file__).resolve().parents[2]

FLAGS = cli.Flags(__doc__)
FLAGS.add(
    "size", str, None, "paper, small or tiny; without: small on a CPU, else paper."
)
FLAGS.add("networks", names_of(workload.NETWORKS), workload.NETWORKS, "Networks.")
FLAGS.add(
    "compute_dtype",
    names_of(workload.DTYPES),
    ("float32",),
    "float32, bfloat16 or both.",
)
FLAGS.add(
    "against",
    names_of(client.LIBRARIES, may_be_empty=True),
    (),
    "torch, monai or both.",
)
FLAGS.add("peer_python", str, sys.executable, "Python interpreter that has the peers.")
FLAGS.add("memory_gb", float, 16.0, "Memory of the device.")
FLAGS.add("output", Path, None, "File for all measurements as JSON.")


def main(values: cli.Values) -> int:
    if values.memory_gb <= 0:
        raise BadArguments(f"--memory_gb={values.memory_gb:g} must be above 0")
    from launch.benchmark import machine  # late: imports jax

    client.check_libraries(values.against, values.peer_python)
    device = machine.choose_device(None)
    size = workload.find_size(values.size, backend=device.platform)
    results = []
    for network in values.networks:
        for python, request in _requests(network, size, device.platform, values):
            print(f"{network}: {request['name']}", file=sys.stderr, flush=True)
            answer = _run(python, request)
            results.append({"network": network, "by": request["name"], **answer})
    document = {
        "format": "attunet_jax.benchmark_memory",
        "version": 2,
        "date": datetime.date.today().isoformat(),
        "machine": machine.describe(device),
        "size": size.name,
        "voxels": size.batch * math.prod(size.shape),
        "memory_gb": values.memory_gb,
        "divisor": 2 ** (len(size.widths) - 1),
        "results": results,
    }
    print(to_markdown(document))
    if values.output:
        values.output.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def _requests(
    network: str, size: workload.Size, backend: str, values: Any
) -> list[tuple[str, dict[str, Any]]]:
    """Returns (interpreter, request to its process) of every step to be measured."""
    requests = []
    for dtype in values.compute_dtype:
        for remat in (False, True):
            request = {
                "by": "attunet_jax",
                "name": f"attunet_jax, {dtype}" + ", rematerialised" * remat,
                "network": network,
                "size": size.name,
                "compute_dtype": dtype,
                "remat": remat,
            }
            requests.append((sys.executable, request))
    config = workload.make_config(network, size, "float32")
    for name, peer in client.peer_requests(
        values.against,
        config.model,
        len(config.classes),
        size,
        backend=backend,
        compiled=False,
    ).items():
        if peer["compute_dtype"] in values.compute_dtype:
            request = {"by": "torch", "name": name, "peer": peer}
            requests.append((values.peer_python, request))
    return requests


def _run(python: str, request: dict[str, Any]) -> dict[str, Any]:
    finished = subprocess.run(
        [python, "-m", "launch.benchmark.process_memory", json.dumps(request)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
    )
    if finished.returncode == 0:
        return json.loads(finished.stdout)
    if finished.returncode == -9:
        return {"skipped": "killed, as the system does when memory runs out"}
    message = (finished.stderr.strip() or "no message").splitlines()[-1]
    return {"skipped": one_line(RuntimeError(message))[:200]}


def to_markdown(document: dict[str, Any]) -> str:
    """Returns the table, one line for each step."""
    memory_gb = document["memory_gb"]
    versions = document["machine"]["packages"]
    lines = [
        f"{document['date']}; {document['machine']['device']}; jax {versions['jax']}; "
        f"size `{document['size']}`, {document['voxels']:,} voxels a batch",
        "",
        "| network | by | step | per voxel | parameters and optimizer | largest "
        f"cube in {memory_gb:g} GB |",
        "|---|---|---|---|---|---|",
    ]
    for result in document["results"]:
        start = f"| {result['network']} | {result['by']} | "
        if "skipped" in result:
            lines.append(start + f"{result['skipped']} | | | |")
            continue
        step_bytes, state_bytes = result["step_bytes"], result["state_bytes"]
        bytes_per_voxel = step_bytes / document["voxels"]
        edge = ((memory_gb * 1e9 - state_bytes) / bytes_per_voxel) ** (1 / 3)
        edge = int(edge // document["divisor"] * document["divisor"])
        lines.append(
            start + f"{step_bytes / 1e6:.0f} MB | {bytes_per_voxel:.0f} B | "
            f"{state_bytes / 1e6:.0f} MB | {edge}³ |"
        )
    return "\n".join(lines)
