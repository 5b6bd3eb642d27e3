"""The scripts and manifests that start a run elsewhere, as far as they can run here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from manifests import check_schema, documents

ROOT = Path(__file__).resolve().parents[3]
MANIFESTS = [
    *sorted((ROOT / "launch").rglob("*.yaml")),
    *sorted((ROOT / "data_prep").rglob("*.yaml")),
]
SCRIPTS = [
    *sorted((ROOT / "launch").rglob("*.sh")),
    *sorted((ROOT / "data_prep").rglob("*.sh")),
]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_follows_the_schemas_of_its_kinds(path):
    assert documents(path)
    for document in documents(path):
        check_schema(document)


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
