"""The paper's tables as typed in, compared with the paper's text."""

import re

import pytest

from attunet_jax.evaluate.paper_tables import TABLES, Number


def printed(text: str) -> list[Number]:
    """The numbers of one line of a table in the text, tags and units removed."""
    found = re.findall(
        r"(<b>)?(\d*\.\d+)(?:\s*(?:<math>)?\$?\s*\\pm\s*\$?(?:</math>)?\s*(\d*\.\d+))?"
        r"( M)?",
        text.replace("$\\pm$", "\\pm"),
    )
    return [
        Number(
            float(mean) * (1e6 if million else 1),
            float(std) if std else None,
            bold=bool(bold),
        )
        for bold, mean, std, million in found
    ]


@pytest.fixture(scope="module")
def lines(shared) -> list[str]:
    text = (shared / "paper.md").read_text()
    text = text[text.index("Table 1:") : text.index("spleen DSC as the training")]
    return [line.replace("<math>\\pm</math>", " \\pm ") for line in text.splitlines()]


def same(ours: Number, theirs: Number) -> bool:
    return (ours.mean, ours.std, ours.bold) == (
        pytest.approx(theirs.mean),
        theirs.std,
        theirs.bold,
    )


def test_table_1_is_the_paper_s(lines):
    table = TABLES[1]
    for i, quantity in enumerate(table.quantities):
        (line,) = (text for text in lines if text.startswith(quantity.label))
        theirs = printed(line)
        assert len(theirs) == 4
        for entry, number in zip(table.entries, theirs, strict=True):
            assert same(entry.numbers[i], number), (quantity.label, entry)


@pytest.mark.parametrize(("number", "heading"), [(2, "Method\tPanc"), (3, "\tMethod")])
def test_tables_2_and_3_are_the_paper_s(lines, number, heading):
    entries = TABLES[number].entries
    (start,) = (i for i, text in enumerate(lines) if text.startswith(heading))
    rows = lines[start + 1 : start + 1 + len(entries)]
    for entry, line in zip(entries, rows, strict=True):
        name = re.sub(r"<u>.*?</u>", "", line).strip().split("\t")[0].split(" [")[0]
        assert name.split(" (")[0] in entry.label
        numbers = printed(line.split("\t", 1 if number == 2 else 2)[-1])
        assert len(numbers) == len(entry.numbers)
        for ours, theirs in zip(entry.numbers, numbers, strict=True):
            assert same(ours, theirs), (entry, theirs)


def test_every_entry_has_a_number_for_every_quantity():
    for table in TABLES.values():
        for entry in table.entries:
            assert len(entry.numbers) == len(table.quantities)


def test_table_4_is_the_paper_s_in_fractions(shared):
    text = (shared / "paper.md").read_text()
    table = TABLES[4]
    after = text[text.index("Table 4:") :].splitlines()
    lines = [line for line in after if re.search(r"\\pm.*CV|Ext/150", line)]
    assert len(lines) == len(table.published) == 9
    for method, line in zip(table.published, lines, strict=True):
        name, *cells = line.split("\t")
        assert name.replace(" ", "") == method.label.replace(" ", "")
        data, dice, split, folds = cells
        (percent,) = printed(dice)
        assert method.dice.mean == pytest.approx(percent.mean / 100), name
        assert method.dice.std == pytest.approx((percent.std or 0) / 100), name
        assert (method.paper_split, method.folds) == (split, folds)
        named = re.sub(r"<[^>]*>", "", re.sub(r"<sup>.*?</sup>", "", data))
        # One cell is empty in the text: 66 and 16 are the 82 that the caption names.
        assert method.data == (re.sub(r" ?-", "-", named).strip() or "CT-82"), name
    ours = table.entries[0].numbers[0]
    assert f"${ours.mean * 100:.2f} \\pm {(ours.std or 0) * 100:.2f}$" in text
