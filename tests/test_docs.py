"""What the pages name exists: config fields, flags, commands, files."""

import functools
import importlib
import re
import shlex
from pathlib import Path

import pytest

from configs import base
from data_prep import plan
from data_prep.sources import SOURCES

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("attunet_jax", "docs", "launch")
PAGES = sorted(
    [*ROOT.glob("*.md"), *(p for f in FOLDERS for p in (ROOT / f).rglob("*.md"))]
)


def exists_in_config(dotted: str) -> bool:
    place = base.get_config()
    for part in dotted.split("."):
        if part == "*":
            return True
        if part not in place:
            return False
        place = place[part]
    return True


def test_every_switch_of_paper_versus_code_exists():
    page = (ROOT / "docs" / "paper_versus_code.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    assert len(rows) > 30 and all(len(row) == 5 for row in rows)
    fields = [
        field
        for row in rows
        for field in re.findall(r"`([a-z_*]+(?:\.[a-z_0-9*]+)*)`", row[4])
        if not field.endswith(("_mm", ".jsonl", ".py"))
    ]
    assert len(fields) > 30
    assert [f for f in fields if not exists_in_config(f)] == []


def commands(text: str) -> set[str]:
    """The page's `python -m ...` commands up to the first flag: `launch.train`."""
    text = text.replace("\\\n", " ")
    return set(
        re.findall(r"python -m ((?:launch|data_prep)\b[\w.]*(?: [a-z_]+\b)?)", text)
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_flag_field_and_link_of_a_page_exists(page):
    text = page.read_text(encoding="utf-8")
    benchmarks = {path.stem for path in (ROOT / "launch/benchmark").glob("[a-z]*.py")}
    for command in commands(text):
        module, _, subcommand = command.partition(" ")
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), path
        if module == "launch.benchmark" and subcommand:
            assert subcommand in benchmarks, command
    for field in re.findall(r"--config\.([a-z_]+(?:\.[a-z_0-9]+)*)(?![\w.])", text):
        assert exists_in_config(field), field
    for source in re.findall(r"--source=([a-z_]+)", text):
        assert source in SOURCES, source
    for target in re.findall(r"\]\(([^)#]+?)\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
    for name in re.findall(
        r"`((?:attunet_jax|configs|launch|tests|data_prep|docs)/[\w/.]+)`", text
    ):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`(test_\w+)`", text):
        assert any(f"def {name}(" in t for t in sources_of_tests()), name


@functools.cache
def sources_of_tests() -> tuple[str, ...]:
    tests = (ROOT / "tests").rglob("test_*.py")
    return tuple(path.read_text(encoding="utf-8") for path in tests)


def test_the_programs_understand_the_commands_of_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^python -m (\S+) ([^#\n]*)", text, re.M)
    assert len(lines) >= 10
    for module, words in lines:
        is_package = (ROOT / module.replace(".", "/")).is_dir()
        program = importlib.import_module(module + ".__main__" * is_package)
        parse = plan.parse if module == "data_prep.prepare" else program.FLAGS.parse
        parse([word for word in shlex.split(words) if word != "..."])


def test_the_tables_networks_have_the_numbers_of_parameters_that_readme_says():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
    for config, count in re.findall(r"`(\w+)\.py` ([\d,]+) parameters", text):
        assert re.search(rf"^\| `{config}` \|.*\| {count} \|", page, re.M), config
