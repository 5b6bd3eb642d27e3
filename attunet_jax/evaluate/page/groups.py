"""Scores in subgroups of cases, by the attributes in any CSV file with their ids."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from attunet_jax.errors import BadData
from attunet_jax.evaluate.page.names import organ_label, organs_in
from attunet_jax.evaluate.page.room import TABLE_BYTES, fitting, left_out_text
from attunet_jax.evaluate.page.scores import mean_cell
from attunet_jax.evaluate.summary import summary
from attunet_jax.files import local_path
from attunet_jax.web_page import table

CASE = "case_id"
FEW = 5  # values of a number up to which each is a group of its own
MOST = 12  # values of a text up to which it divides cases into groups
NOT_STATED = "not stated"


@dataclass(frozen=True)
class Attribute:
    """A column of the file: which group each case belongs to."""

    name: str
    groups: tuple[str, ...]  # in the order of the page
    group_of: Mapping[str, str]  # by case


@dataclass(frozen=True)
class Groups:
    """The attributes that divide the cases, and why others do not."""

    attributes: tuple[Attribute, ...]
    left_out: tuple[str, ...]  # phrases


def read_groups(path: Path, case_ids: Sequence[str]) -> Groups:
    """Reads the attributes of cases from a CSV file with a column `case_id`.

    Separators are commas, semicolons or tabs. Numbers are divided at their median, or
    by value where they are few. Lines of other cases are passed over.

    Raises:
      BadData: it cannot be read, has no column `case_id` or no other, lacks one of
        `case_ids`, or has one twice.
    """
    header, lines = _read(local_path(path))
    names = [name for name in header if name != CASE]
    place = header.index(CASE)
    rows: dict[str, list[str]] = {}
    for line in lines:
        case_id = line[place].strip() if place < len(line) else ""
        if case_id in rows:
            raise BadData(f"{path}: case {case_id} is there twice; keep one line")
        rows[case_id] = [*line, *[""] * (len(header) - len(line))]
    missing = [case_id for case_id in case_ids if case_id not in rows]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BadData(
            f"{path}: has no line for case {missing[0]}{more}, which was evaluated; "
            "add it, with empty fields where nothing is known"
        )
    attributes, left_out = [], []
    for name in names:
        column = header.index(name)
        values = {case_id: rows[case_id][column].strip() for case_id in case_ids}
        made = _attribute(name, values)
        if isinstance(made, str):
            left_out.append(made)
        else:
            attributes.append(made)
    return Groups(tuple(attributes), tuple(left_out))


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise BadData(f"{path}: cannot be read ({reason})") from None
    first = next(iter(text.splitlines()), "")
    separator = max(",;\t", key=first.count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error as error:
        raise BadData(f"{path}: not CSV ({error})") from None
    header = [name.strip() for name in lines[0]] if lines else []
    if CASE not in header:
        found = ", ".join(header[:8]) or "nothing"
        raise BadData(
            f"{path}: has no column {CASE} in its first line, which is {found}"
        )
    repeated = next((name for name in header if header.count(name) > 1), None)
    if repeated is not None:
        raise BadData(f"{path}: has two columns {repeated!r}; rename one")
    if len(header) < 2:
        raise BadData(f"{path}: has no column besides {CASE}, so there are no groups")
    return header, [line for line in lines[1:] if any(field.strip() for field in line)]


def _attribute(name: str, values: Mapping[str, str]) -> Attribute | str:
    """Divides the cases; returns a phrase where that is not possible."""
    stated = {case: value for case, value in values.items() if value}
    if len(set(values.values())) < 2:
        return f"{name} (the same for all cases)"
    numbers = {case: _number(value) for case, value in stated.items()}
    distinct = sorted({n for n in numbers.values() if n is not None})
    if None not in numbers.values() and len(distinct) > FEW:
        median = float(np.median(list(numbers.values())))  # pyright: ignore
        low, high = f"below {median:g}", f"{median:g} or more"
        group_of = {c: low if (n or 0) < median else high for c, n in numbers.items()}
        order = [low, high]
    elif None not in numbers.values():
        group_of = {case: f"{n:g}" for case, n in numbers.items()}
        order = [f"{n:g}" for n in distinct]
    else:
        group_of, order = dict(stated), sorted(set(stated.values()))
        if len(order) > MOST:
            return f"{name} ({len(order)} different texts, more than {MOST})"
    if len(stated) < len(values):
        order.append(NOT_STATED)
    return Attribute(
        name, tuple(order), {c: group_of.get(c, NOT_STATED) for c in values}
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def group_section(networks: Mapping[str, Sequence[Mapping]], groups: Groups) -> str:
    """Returns a table for each attribute: Dice by group, organ and network."""
    parts, left_out, _ = fitting(
        (_group_table(networks, attribute) for attribute in groups.attributes),
        TABLE_BYTES,
    )
    passed_over = (
        f"<p class=note>Not used: {escape('; '.join(groups.left_out))}.</p>\n"
        if groups.left_out
        else ""
    )
    return (
        "<h2 id=groups>Subgroups</h2>\n"
        "<p class=note>Dice, mean ± standard deviation, by attributes of the cases. "
        "Groups were not tested against each other: with many of them, some differ by "
        "chance.</p>\n"
        + "".join(parts)
        + passed_over
        + left_out_text(left_out, "attributes are", "name fewer in --groups")
    )


def _group_table(
    networks: Mapping[str, Sequence[Mapping]], attribute: Attribute
) -> str:
    head = "<tr><th scope=col>Organ<th scope=col>Group" + "".join(
        f"<th scope=col class=number>{escape(name)}" for name in networks
    )
    by_group: dict[str, list[Mapping]] = {}
    for group in attribute.groups:
        by_group[group] = [
            summary(
                [r for r in rows if attribute.group_of.get(str(r["case_id"])) == group],
                ["dice"],
            )
            for rows in networks.values()
        ]
    lines = [
        f"<tr><td>{escape(organ_label(organ))}<th scope=row>{escape(group)}"
        + "".join(
            f"<td class=number>{mean_cell(numbers.get(organ, {}).get('dice'), 'dice')}"
            for numbers in by_group[group]
        )
        for organ in organs_in(networks)
        for group in attribute.groups
    ]
    name = escape(organ_label(attribute.name))
    return f"<h3>{name}</h3>\n{table(head, lines, ' class=sortable')}"
