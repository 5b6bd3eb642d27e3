"""The scripts and manifests that start a run elsewhere, as far as they can run here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from attunet_jax.distributed.processes import ClusterSpec, detect_cluster

ROOT = Path(__file__).resolve().parents[3]
MANIFESTS = [
    *sorted((ROOT / "launch").rglob("*.yaml")),
    *sorted((ROOT / "data_prep").rglob("*.yaml")),
]
SCRIPTS = [
    *sorted((ROOT / "launch").rglob("*.sh")),
    *sorted((ROOT / "data_prep").rglob("*.sh")),
]


def documents(path: Path) -> list[dict]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_follows_kubernetes_schema(path):
    validator = pytest.importorskip("kubernetes_validate")
    assert documents(path)
    for document in documents(path):
        # 1.31: the first with podFailurePolicy as a stable field.
        validator.validate(document, "1.31", strict=True)


def test_pods_find_each_other_by_what_the_manifest_sets():
    service, job = documents(ROOT / "launch" / "cluster" / "jobset.yaml")
    spec = job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    environment = {e["name"]: e["value"] for e in container["env"]}
    assert service["spec"]["clusterIP"] == "None"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    (port,) = service["spec"]["ports"]
    # Kubernetes names pod I of an indexed job NAME-I, and sets the number in it.
    first = f"{job['metadata']['name']}-0.{pod['subdomain']}:{port['port']}"
    count = spec["completions"]
    assert spec["parallelism"] == count
    for number in range(count):
        seen = environment | {"JOB_COMPLETION_INDEX": str(number)}
        assert detect_cluster(seen) == ClusterSpec("explicit", first, count, number)


def test_a_pod_stopped_with_all_saved_is_replaced_and_one_with_bad_data_is_not():
    _, job = documents(ROOT / "launch" / "cluster" / "jobset.yaml")
    actions = {}
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        for status in rule.get("onExitCodes", {}).get("values", ()):
            actions[status] = rule["action"]
    assert actions == {75: "Ignore", 2: "FailJob", 3: "FailJob"}
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_passes_shellcheck(path):
    folders = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shellcheck = shutil.which("shellcheck", path=folders)
    if shellcheck is None:
        pytest.skip("shellcheck is not installed: the extra 'dev' has it")
    found = subprocess.run([shellcheck, path], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.fixture
def tpu_vm(tmp_path):
    """Runs launch/cluster/tpu_vm.sh; `gcloud` here is a shell in the only host's home.

    The host's python writes down its words and leaves with 75 twice, then with 0.
    """
    home = tmp_path / "home"
    python = home / "attunet_jax" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        "#!/bin/bash\n"
        'printf "%s\\n" "$@" > words\n'
        "echo >> starts\n"
        "[ $(wc -l < starts) -lt ${LAST:-3} ] && exit 75\n"
        "exit ${END:-0}\n"
    )
    gcloud = tmp_path / "bin" / "gcloud"
    gcloud.parent.mkdir()
    gcloud.write_text(
        "#!/bin/bash\n"
        f'printf "%s\\n" "${{@:1:7}}" > {tmp_path}/asked\n'
        'cd "$HOME" && exec bash -c "${8#--command=}"\n'
    )
    sleep = tmp_path / "bin" / "sleep"
    sleep.write_text("#!/bin/bash\n")
    for program in (python, gcloud, sleep):
        program.chmod(0o755)

    def run(*words, **variables):
        path = f"{gcloud.parent}:{os.environ['PATH']}"
        return subprocess.run(
            [ROOT / "launch" / "cluster" / "tpu_vm.sh", *words],
            env=os.environ | {"PATH": path, "HOME": str(home)} | variables,
            capture_output=True,
            text=True,
        ), home / "attunet_jax"

    return run, tmp_path


def test_a_tpu_run_starts_again_on_75_with_the_same_words(tpu_vm):
    run, folder = tpu_vm
    done, host = run("pod", "zone-b", "--data=/mnt/my scans", "--config.train.steps=9")
    assert done.returncode == 0, done.stderr
    asked = (folder / "asked").read_text().splitlines()
    assert asked == [
        *("compute", "tpus", "tpu-vm", "ssh"),
        *("pod", "--zone=zone-b", "--worker=all"),
    ]
    assert (host / "words").read_text().splitlines() == [
        *("-m", "launch.train"),
        *("--data=/mnt/my scans", "--config.train.steps=9"),
    ]
    assert len((host / "starts").read_text().splitlines()) == 3


def test_a_tpu_run_that_fails_ends_with_its_status(tpu_vm):
    run, _ = tpu_vm
    done, host = run("pod", "zone-b", "--data=D", LAST="1", END="3")
    assert done.returncode == 3
    assert len((host / "starts").read_text().splitlines()) == 1
    assert run("pod")[0].returncode != 0
