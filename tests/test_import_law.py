"""The architecture as a test: who may import whom, and one door per dependency."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A stage may import itself and the stages named here (OPEN_TO_ALL: to every stage).
LEAVES = {"volume", "ops", "data", "augment", "distributed", "checkpoint", "memory"}
OPEN_TO_ALL = {
    "config_fields",
    "errors",
    "files",
    "intensity",
    "interrupts",
    "storage",
    "workers",
    "web_page",
}
MAY_IMPORT = {
    **{leaf: set() for leaf in LEAVES | OPEN_TO_ALL},
    "data": {"volume"},
    "model": {"ops"},
    "train": LEAVES | {"model"},
    "predict": LEAVES | {"model", "train"},
    "evaluate": LEAVES | {"model", "train", "predict"},
}
# What data preparation may use of the library.
FOR_DATA_PREP = {"volume", "data"} | OPEN_TO_ALL
# The one part of launch that data preparation uses; the first only checks packages.
FLAG_SYSTEM = {"launch", "launch.cli"}
# Package -> the only places that may import it.
DOORS = {
    "nibabel": ("attunet_jax/volume/",),
    "pydicom": ("attunet_jax/volume/",),
    "isal": ("attunet_jax/volume/",),
    "SimpleITK": ("attunet_jax/volume/itk.py",),
    "grain": ("attunet_jax/data/",),
    "array_record": ("attunet_jax/data/",),
    "flax.linen": ("attunet_jax/model/",),
    "orbax": ("attunet_jax/checkpoint.py",),
    "optax": ("attunet_jax/train/",),
    "ml_collections": ("configs/", "launch/"),
    "absl": ("launch/",),
    "yaml": ("launch/cluster/jobset.py",),
    **dict.fromkeys(("fsspec", "gcsfs", "s3fs", "google"), ("attunet_jax/storage/",)),
    "etils": ("attunet_jax/storage/", "attunet_jax/checkpoint.py"),
}
FORBIDDEN_PACKAGES = {"pickle", "cloudpickle", "dill"}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "manager"}
LIBRARY, PROGRAMS = ("attunet_jax",), ("configs", "launch", "data_prep")


def sources(*folders: str) -> list[Path]:
    return [p for folder in folders for p in sorted((ROOT / folder).rglob("*.py"))]


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    """Full dotted names that a file imports, at whatever depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def test_a_stage_imports_only_what_stands_to_its_left():
    offenders = []
    for path in sources("attunet_jax"):
        stage = path.relative_to(ROOT / "attunet_jax").with_suffix("").parts[0]
        if stage == "__init__":
            continue
        allowed = MAY_IMPORT[stage] | OPEN_TO_ALL | {stage}
        for name in imports(path):
            top, _, rest = name.partition(".")
            outside = top in PROGRAMS
            if outside or (top == "attunet_jax" and rest.split(".")[0] not in allowed):
                offenders.append(f"{place(path)} imports {name}")
    assert offenders == []


def test_data_preparation_knows_only_volumes_and_records():
    offenders = [
        f"{place(path)} imports {name}"
        for path in sources("data_prep")
        for name in imports(path)
        if (name.startswith("attunet_jax.") and name.split(".")[1] not in FOR_DATA_PREP)
        or (name.startswith("launch") and name not in FLAG_SYSTEM)
    ]
    assert offenders == []


def test_every_dependency_has_one_door():
    offenders = []
    for path in sources(*LIBRARY, *PROGRAMS):
        for name in imports(path):
            closed = [
                package
                for package, doors in DOORS.items()
                if (name == package or name.startswith(package + "."))
                and not place(path).startswith(doors)
            ]
            if closed or name.split(".")[0] in FORBIDDEN_PACKAGES:
                offenders.append(f"{place(path)} imports {name}")
    assert offenders == []


def test_forms_for_one_cpu_are_imported_where_they_are_chosen_alone():
    inside = ("attunet_jax/ops/cpu/", "attunet_jax/ops/dispatch.py")
    offenders = [
        f"{place(path)} imports {name}"
        for path in sources(*LIBRARY, *PROGRAMS)
        for name in imports(path)
        if name.startswith("attunet_jax.ops.cpu") and not place(path).startswith(inside)
    ]
    assert offenders == []


def test_names_and_lengths_of_files_keep_to_the_house_rules():
    offenders = []
    for path in sources(*LIBRARY, *PROGRAMS):
        text = path.read_text(encoding="utf-8")
        if text.strip() and not ast.get_docstring(ast.parse(text)):
            offenders.append(f"{place(path)} has no docstring")
        if len(text.splitlines()) > 400:
            offenders.append(f"{place(path)} holds more than one idea")
        if FORBIDDEN_NAMES & set(Path(place(path)).with_suffix("").parts):
            offenders.append(f"{place(path)}: a name that says nothing")
        if any(name.startswith(".") for name in imports(path)):
            offenders.append(f"{place(path)}: relative imports hide the direction")
    assert offenders == []


def test_each_test_file_has_a_name_of_its_own():
    """pytest imports test files by their names; of two alike only one would run."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)
