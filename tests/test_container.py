"""The container's recipe and the job that builds it, as far as no daemon is needed."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
RECIPE = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", RECIPE, re.MULTILINE)


def test_the_image_runs_as_another_user_than_root_and_takes_any_program():
    assert instructions("USER") == ["1000:1000"]
    last_stage = RECIPE.rpartition("\nFROM ")[2]
    assert "\nUSER 1000:1000\n" in last_stage
    assert instructions("ENTRYPOINT") == ['["python", "-m"]']
    assert (ROOT / "launch" / "__main__.py").is_file()  # CMD: lists the programs
    assert instructions("CMD") == ['["launch"]']


def test_what_the_image_copies_is_there_and_the_venv_comes_from_a_stage():
    assert len(instructions("FROM")) == 2
    for words in map(str.split, instructions("COPY")):
        if words[0] == "--from=packages":
            assert words[1:] == ["/venv", "/venv"]
            continue
        assert all((ROOT / word).exists() for word in words[:-1]), words


def test_only_the_project_goes_into_the_image_no_data_that_lie_beside_it():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    assert {"attunet_jax", "configs", "data_prep", "launch"} <= let_in
    copied = {
        word
        for words in map(str.split, instructions("COPY"))
        if not words[0].startswith("--from")
        for word in words[:-1]
    }
    assert copied - {"."} <= let_in
    for name in let_in:
        assert (ROOT / name).exists(), name


def test_any_user_may_write_a_new_volume_of_the_folders_in_the_examples():
    made = re.search(r"install --directory --mode=1777 ([\w/ ]+)$", RECIPE, re.M)
    assert made
    examples = re.findall(r"-v \S+?:(/\w+)", RECIPE)
    assert examples and set(examples) <= set(made[1].split())


def test_the_image_says_its_version_and_commit():
    assert f"VERSION={PROJECT['project']['version']}" in instructions("ARG")
    labels = " ".join(instructions("LABEL"))
    assert "image.version=$VERSION" in labels and "image.revision=$COMMIT" in labels
    assert "ATTUNET_JAX_COMMIT=$COMMIT" in " ".join(instructions("ENV"))


def test_ci_builds_the_image_and_asks_programs_of_it_for_help():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    runs = [step.get("run", "") for step in workflow["jobs"]["image"]["steps"]]
    assert any(run.startswith("docker build") for run in runs)
    asked = re.findall(r"\b((?:launch|data_prep)\.\w+)", " ".join(runs))
    assert asked and any("--help" in run for run in runs)
    for program in asked:
        assert (ROOT / f"{program.replace('.', '/')}.py").is_file()
