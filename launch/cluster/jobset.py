r"""Prints a JobSet for Kubernetes that trains over several hosts, one pod a host.

    python -m launch.cluster.jobset --image=IMAGE --queue=QUEUE --claim=CLAIM -- \
        --data=/data/DATA --workdir=/data/RUN | kubectl apply --server-side -f -
    python -m launch.cluster.jobset --tpu=tpu-v5-lite-podslice:4x4 --hosts=4 \
        --slices=2 --image=IMAGE --queue=QUEUE --claim=CLAIM -- \
        --data=/data/DATA --workdir=/data/RUN | kubectl apply --server-side -f -

The words after `--` go to launch.train, or to the module named first. The volume CLAIM
is mounted at /data. Exit status 75 and drained nodes start all pods again uncounted, 2
and 3 end the set, and a pod that died counts against --max_restarts. The cluster needs
JobSet 0.10 or newer. Nothing is sent anywhere: the manifest goes to the terminal.
"""

import math
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from attunet_jax import interrupts
from attunet_jax.errors import BadArguments, exit_status
from launch import cli

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
NO_QUEUE = "none"
PORT = 8476


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", text):
        raise ValueError("is no name of Kubernetes: small letters, digits and -")
    return text


def _set_name(text: str) -> str:
    # Pods are called NAME-train-SLICE-HOST and a name has at most 63 letters.
    if "." in text or len(_name(text)) > 40 or text[0].isdigit():
        raise ValueError("at most 40 small letters, digits and -, a letter first")
    return text


def _at_least_1(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("is no whole number from 1")
    return int(text)


def _tpu(text: str) -> tuple[str, str]:
    if not re.fullmatch(r"[a-z0-9-]+:\d+(x\d+){1,2}", text):
        raise ValueError("is not ACCELERATOR:TOPOLOGY, as tpu-v5-lite-podslice:4x4")
    accelerator, _, topology = text.partition(":")
    return accelerator, topology


FLAGS = cli.Flags(__doc__)
FLAGS.add("image", str, None, "The container image (see Dockerfile).")
FLAGS.add("queue", _name, None, "Kueue's LocalQueue, or none without Kueue.")
FLAGS.add("claim", _name, None, "A PersistentVolumeClaim that all nodes can write.")
FLAGS.add("name", _set_name, "attunet", "What the set is called.")
FLAGS.add("hosts", _at_least_1, 4, "How many hosts (with --tpu: of each slice).")
FLAGS.add("gpus", _at_least_1, 8, "GPUs of a host.")
FLAGS.add("tpu", _tpu, None, "TPUs instead: GKE's ACCELERATOR:TOPOLOGY.")
FLAGS.add("slices", _at_least_1, 1, "How many slices of TPUs.")
FLAGS.add("max_restarts", int, 20, "How often to start again after a pod died.")


def main() -> int:
    """Prints the manifest. Raises `BadArguments` for what is missing or contradicts."""
    argv = sys.argv[1:]
    cut = argv.index("--") if "--" in argv else len(argv)
    words = argv[cut + 1 :]
    flags = FLAGS.parse(argv[:cut])
    if flags.queue is None:
        raise BadArguments(
            "--queue=... is needed: the LocalQueue of Kueue in which the set waits for "
            f"its hosts (kubectl get localqueues), or --queue={NO_QUEUE} where the "
            "cluster has no Kueue"
        )
    if not words:
        raise BadArguments(f"what to run comes after -- {cli.SEE_HELP}")
    if words[0].startswith("-"):
        words = ["launch.train", *words]
    text = yaml.safe_dump(manifest(flags, words), sort_keys=False, width=88)
    sys.stdout.write(text)
    return 0


def manifest(flags: cli.Values, words: list[str]) -> dict[str, Any]:
    """Returns the template of the accelerator with `flags` and `words` filled in."""
    name = "jobset_tpu.yaml" if flags.tpu else "jobset.yaml"
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    jobset = yaml.safe_load(text)
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]

    jobset["metadata"]["name"] = flags.name
    jobset["metadata"]["labels"][QUEUE_LABEL] = flags.queue
    if flags.queue == NO_QUEUE:
        del jobset["metadata"]["labels"]
    jobset["spec"]["failurePolicy"]["maxRestarts"] = flags.max_restarts
    spec["completions"] = spec["parallelism"] = flags.hosts
    container["image"] = flags.required("image")
    container["args"] = words
    pod["volumes"][0]["persistentVolumeClaim"]["claimName"] = flags.required("claim")
    if flags.tpu:
        _set_tpu(flags, job, pod, container)
    elif flags.slices != 1:
        raise BadArguments("--slices: only TPUs have slices, name them with --tpu")
    else:
        container["resources"]["limits"]["nvidia.com/gpu"] = str(flags.gpus)
        address = f"{flags.name}-{job['name']}-0-0.{flags.name}:{PORT}"
        values = {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(flags.hosts),
        }
        for variable in container["env"]:
            if (name := variable["name"]) in values:
                variable["value"] = values[name]
    return jobset


def _set_tpu(flags: cli.Values, job: Any, pod: Any, container: Any) -> None:
    accelerator, topology = flags.tpu
    chips = math.prod(map(int, topology.split("x")))
    if chips % flags.hosts:
        raise BadArguments(
            f"--hosts={flags.hosts} does not divide the {chips} chips of {topology}"
        )
    job["replicas"] = flags.slices
    pod["nodeSelector"] = {
        "cloud.google.com/gke-tpu-accelerator": accelerator,
        "cloud.google.com/gke-tpu-topology": topology,
    }
    container["resources"]["limits"]["google.com/tpu"] = str(chips // flags.hosts)


if __name__ == "__main__":
    interrupts.leave(exit_status(main))
