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
