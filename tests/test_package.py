"""What is installed: the library alone, with its types and its accelerators' extras."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_wheel_holds_the_library_and_nothing_that_runs_from_a_checkout(tmp_path):
    try:
        present = int(version("setuptools").split(".")[0])
    except PackageNotFoundError:
        present = 0
    if present < 77:
        pytest.skip("no setuptools as new as pyproject.toml asks for: make install")
    checkout = tmp_path / "checkout"  # a build writes into its folder
    checkout.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    for name in ("attunet_jax", "configs", "data_prep", "docs", "launch", "tests"):
        shutil.copytree(
            ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    build = "from setuptools.build_meta import build_wheel as b; print(b('wheels'))"
    (checkout / "wheels").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=checkout, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next((checkout / "wheels").glob("*.whl"))) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert {name.split("/")[0] for name in names} == {"attunet_jax"}
    assert {Path(name).suffix for name in names} == {".py", ".typed"}
    assert "attunet_jax/model/unet.py" in names and "attunet_jax/py.typed" in names


def test_an_extra_for_an_accelerator_has_the_bounds_of_the_dependency_on_jax():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (jax,) = [d for d in project["dependencies"] if d.startswith("jax>")]
    for name in ("cuda12", "cuda13", "tpu"):
        bounds = jax.removeprefix("jax")
        assert project["optional-dependencies"][name] == [f"jax[{name}]{bounds}"]
    # Without CUDA's libraries: the plug-in alone, of the version of jaxlib.
    first, *rest = project["optional-dependencies"]["compile_gpu"]
    assert first == f"jax[cuda13-local]{bounds}" and len(rest) == 3
