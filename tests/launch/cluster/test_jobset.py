"""The JobSets for Kubernetes: schema, addresses, and what each exit status leads to."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from manifests import check_schema, documents

from attunet_jax.distributed.processes import ClusterSpec, detect_cluster
from attunet_jax.train.goodput import RESTARTS
from launch.cluster import jobset

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "launch" / "cluster"
NEEDED = ["--image=r.io/us/attunet_jax:1", "--queue=team", "--claim=scans"]
WORDS = ["--", "--data=/data/my scans", "--workdir=/data/RUN"]
TPU = "--tpu=tpu-v5-lite-podslice:4x8"


@pytest.fixture
def printed(monkeypatch, capsys):
    def run(*words: str) -> dict:
        monkeypatch.setattr(sys, "argv", ["jobset", *words])
        assert jobset.main() == 0
        return yaml.safe_load(capsys.readouterr().out)

    return run


def parts(manifest: dict) -> tuple[dict, dict, dict, dict]:
    """(replicated job, its Job's spec, the pod's spec, the container)."""
    (job,) = manifest["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    return job, spec, pod, pod["containers"][0]


def after(manifest: dict, status: int | None, drained: bool = False) -> str:
    """What JobSet does when a pod of the set left with `status`.

    Kubernetes takes the first rule that matches, JobSet the first whose pattern is in
    the message; without one it restarts and counts (KEP-3329, KEP-262).
    """
    _, spec, _, container = parts(manifest)
    assert spec["backoffLimit"] == 0
    reason, message = "BackoffLimitExceeded", "Job has reached the backoff limit"
    for i, rule in enumerate(spec["podFailurePolicy"]["rules"]):
        codes = rule.get("onExitCodes", {"values": ()})
        assert codes.get("containerName", "train") == container["name"]
        if status in codes["values"] or (drained and "onPodConditions" in rule):
            assert rule["action"] == "FailJob"
            reason = "PodFailurePolicy"
            message = (
                f"Container train for pod default/attunet-train-0-3 failed with exit "
                f"code {status} matching FailJob rule at index {i}"
            )
            break
    for rule in manifest["spec"]["failurePolicy"]["rules"]:
        if reason in rule["onJobFailureReasons"] and any(
            re.search(p, message) for p in rule["onJobFailureMessagePatterns"]
        ):
            return rule["action"]
    return "RestartJobSet"


@pytest.mark.parametrize("name", ["jobset.yaml", "jobset_tpu.yaml"])
def test_75_restarts_uncounted_2_and_3_fail_the_set_and_a_death_is_counted(name):
    (manifest,) = documents(FOLDER / name)
    found = {status: after(manifest, status) for status in (2, 3, 75, 134, 137)}
    uncounted = "RestartJobSetAndIgnoreMaxRestarts"
    assert found == {
        2: "FailJobSet",
        3: "FailJobSet",
        75: uncounted,
        134: "RestartJobSet",
        137: "RestartJobSet",
    }
    assert after(manifest, 137, drained=True) == uncounted
    # A mistake is one on a drained node too.
    assert after(manifest, 2, drained=True) == "FailJobSet"


def test_pods_find_each_other_by_the_names_that_jobset_gives_them(printed):
    manifest = printed(*NEEDED, "--name=ct-150", "--hosts=3", "--gpus=4", *WORDS)
    _, spec, pod, container = parts(manifest)
    assert (spec["completions"], spec["parallelism"]) == (3, 3)
    environment = {e["name"]: e["value"] for e in container["env"] if "value" in e}
    # JobSet's CRD: <set>-<replicated job>-<job index>-<pod index>.<subdomain>, the
    # subdomain being the set's name.
    first = "ct-150-train-0-0.ct-150:8476"
    for number in range(3):
        seen = environment | {"JOB_COMPLETION_INDEX": str(number)}
        assert detect_cluster(seen) == ClusterSpec("explicit", first, 3, number)
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "4"}
    assert manifest["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team"}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["data"]["persistentVolumeClaim"] == {"claimName": "scans"}
    assert container["args"] == ["launch.train", *WORDS[1:]]
    assert container["image"] == "r.io/us/attunet_jax:1"


def test_a_pod_learns_how_often_its_set_was_started_again(printed):
    for words in ((), (TPU, "--hosts=8")):
        *_, container = parts(printed(*NEEDED, *words, *WORDS))
        (source,) = (
            e["valueFrom"]["fieldRef"]["fieldPath"]
            for e in container["env"]
            if e["name"] == RESTARTS[0]
        )
        # What JobSet 0.10 writes on each pod (constants.RestartsKey).
        assert source == "metadata.annotations['jobset.sigs.k8s.io/restart-attempt']"


def test_each_slice_of_tpus_is_a_job_with_its_share_of_chips(printed):
    words = ["--", "launch.tables", "--table=1"]
    manifest = printed(*NEEDED, TPU, "--hosts=8", "--slices=2", *words)
    job, spec, pod, container = parts(manifest)
    assert (job["replicas"], spec["completions"], spec["parallelism"]) == (2, 8, 8)
    assert container["resources"]["limits"] == {"google.com/tpu": "4"}  # 4 * 8 / 8
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x8",
    }
    assert container["args"] == words[1:]


@pytest.mark.parametrize("words", [[], [TPU, "--hosts=8"], ["--queue=none"]])
def test_what_is_printed_follows_the_schemas(printed, words):
    manifest = printed(*NEEDED, *words, *WORDS)
    check_schema(manifest)
    assert ("labels" in manifest["metadata"]) == ("--queue=none" not in words)


@pytest.mark.parametrize(
    "words, said",
    [
        ([*NEEDED[::2], *WORDS], "--queue=... is needed"),
        ([*NEEDED[:2], *WORDS], "--claim"),
        ([*NEEDED[1:], *WORDS], "--image"),
        ([*NEEDED, "--data=D"], "unknown flag --data"),
        (NEEDED, "comes after --"),
        ([*NEEDED, "--queue=My Queue", *WORDS], "--queue=My Queue"),
        ([*NEEDED, "--name=" + "a" * 60, *WORDS], "at most 40"),
        ([*NEEDED, "--slices=2", *WORDS], "--tpu"),
        ([*NEEDED, TPU, "--hosts=5", *WORDS], "does not divide the 32 chips"),
        ([*NEEDED, "--tpu=v5e", *WORDS], "--tpu=v5e"),
        ([*NEEDED, "--hosts=0", *WORDS], "--hosts=0"),
    ],
)
def test_a_mistake_is_one_line_with_status_2(monkeypatch, words, said):
    from attunet_jax.errors import BadArguments

    monkeypatch.setattr(sys, "argv", ["jobset", *words])
    with pytest.raises(BadArguments) as error:
        jobset.main()
    assert said in str(error.value) and "\n" not in str(error.value)


def test_without_a_queue_the_program_ends_with_2_and_prints_no_manifest():
    words = ["-m", "launch.cluster.jobset", *NEEDED[::2], *WORDS]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --queue=") and done.stderr.count("\n") == 1


def test_the_examples_of_help_and_docs_print_manifests(printed):
    texts = (
        jobset.__doc__ or "",
        (ROOT / "docs/clusters/kubernetes.md").read_text("utf-8"),
    )
    for text in texts:
        whole = re.sub(r"\\\n *", " ", text)
        commands = re.findall(
            r"^ *python -m launch\.cluster\.jobset (--.*)$", whole, re.M
        )
        assert len(commands) == 2
        for command in commands:
            words = shlex.split(command.partition("|")[0])
            # Placeholders are in capitals, which Kubernetes' names are not.
            words = [re.sub(r"^(--queue|--claim)=.*", r"\1=x", word) for word in words]
            assert printed(*words)["kind"] == "JobSet"


def test_the_program_needs_no_jax():
    code = "import sys, launch.cluster.jobset; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
