"""The architecture as a test: who may import whom, and one door per dependency."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A stage may import itself and the stages named here ("errors" is open to all).
MAY_IMPORT = {
    "errors": set(),
    "volume": set(),
    "data": {"volume"},
    "model": set(),
    "augment": set(),
    "sharding": set(),
    "checkpoint": set(),
}
LEAVES = set(MAY_IMPORT)
MAY_IMPORT["train"] = LEAVES
MAY_IMPORT["predict"] = LEAVES | {"train"}
MAY_IMPORT["evaluate"] = LEAVES | {"train", "predict"}
# Package -> the only places that may import it.
DOORS = {
    "nibabel": ("attunet_jax/volume/",),
    "pydicom": ("attunet_jax/volume/",),
    "isal": ("attunet_jax/volume/",),
    "grain": ("attunet_jax/data/",),
    "array_record": ("attunet_jax/data/",),
    "flax.linen": ("attunet_jax/model/",),
    "orbax": ("attunet_jax/checkpoint.py",),
    "optax": ("attunet_jax/train/",),
    "ml_collections": ("configs/", "launch/"),
    "absl": ("launch/",),
}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "manager"}


def sources(*folders: str) -> list[Path]:
    return [p for folder in folders for p in sorted((ROOT / folder).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """Full dotted names that a file imports, at whatever depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide the direction"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", sources("attunet_jax"), ids=str)
def test_a_stage_imports_only_what_stands_to_its_left(path):
    parts = path.relative_to(ROOT / "attunet_jax").with_suffix("").parts
    stage = parts[0]
    if stage == "__init__":
        return
    for name in imports(path):
        top, _, rest = name.partition(".")
        assert top not in {"configs", "launch", "data_prep"}, f"{path} imports {name}"
        if top == "attunet_jax":
            other = rest.split(".")[0]
            allowed = MAY_IMPORT[stage] | {stage, "errors"}
            assert other in allowed, f"{path} imports {name}"


@pytest.mark.parametrize("path", sources("data_prep"), ids=str)
def test_data_preparation_knows_only_volumes_and_records(path):
    for name in imports(path):
        if name.startswith("attunet_jax"):
            assert name.split(".")[1] in {"volume", "data", "errors"}, f"{path}: {name}"
        assert not name.startswith("launch"), f"{path} imports {name}"


@pytest.mark.parametrize(
    "path", sources("attunet_jax", "configs", "launch", "data_prep"), ids=str
)
def test_every_dependency_has_one_door(path):
    place = path.relative_to(ROOT).as_posix()
    for name in imports(path):
        for package, doors in DOORS.items():
            if name == package or name.startswith(package + "."):
                assert place.startswith(doors), f"{place} imports {name}"
        assert name.split(".")[0] not in {"pickle", "cloudpickle", "dill"}, place
    assert not FORBIDDEN_NAMES & set(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize(
    "path", sources("attunet_jax", "configs", "launch", "data_prep"), ids=str
)
def test_a_file_says_what_it_is_and_stays_short(path):
    text = path.read_text()
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
    assert len(text.splitlines()) <= 400, f"{path} holds more than one idea"
