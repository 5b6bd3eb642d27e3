"""What the pages name exists: config fields, flags, commands, files."""

import re
from pathlib import Path

import pytest

from configs import base
from data_prep.sources import SOURCES

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_flag_field_and_link_of_a_page_exists(page):
    text = page.read_text(encoding="utf-8")
    for module in re.findall(r"python -m ((?:launch|data_prep)\.\w+)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), path
    for field in re.findall(r"--config\.([a-z_]+(?:\.[a-z_0-9]+)+)", text):
        assert exists_in_config(field), field
    for source in re.findall(r"--source=([a-z_]+)", text):
        assert source in SOURCES, source
    for target in re.findall(r"\]\(([^)#]+?)\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
    for name in re.findall(
        r"`((?:configs|launch|tests|data_prep|docs)/[\w/.]+)`", text
    ):
        assert (ROOT / name).exists(), name
