"""The ten worst cases of each organ: a table, and pictures where there are any."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from attunet_jax.data.dataset import Dataset
from attunet_jax.evaluate.page.drawings.slices import Slices
from attunet_jax.evaluate.page.names import number, organ_label, organs_in
from attunet_jax.evaluate.page.room import left_out_text
from attunet_jax.evaluate.page.study.runs import Source
from attunet_jax.web_page import picture, table

WORST = 10
TABLE_ROOM = 300_000


@dataclass(frozen=True)
class WorstCase:
    """A case of one organ, with the row of each network that has it."""

    case_id: str
    organ: str
    rows: Mapping[str, Mapping]

    @property
    def dice(self) -> float:
        """The mean over networks of the defined ones."""
        return float(np.mean([row["dice"] for row in self.rows.values()]))


def worst_cases(
    networks: Mapping[str, Sequence[Mapping]], organ: str
) -> list[WorstCase]:
    """Returns those of the lowest Dice, averaged over the networks, the worst first."""
    found: dict[str, dict[str, Mapping]] = {}
    for name, rows in networks.items():
        for row in rows:
            if row["organ"] == organ and row.get("dice") is not None:
                found.setdefault(str(row["case_id"]), {})[name] = row
    cases = [WorstCase(case_id, organ, rows) for case_id, rows in found.items()]
    return sorted(cases, key=lambda case: (case.dice, case.case_id))[:WORST]


def worst_section(
    networks: Mapping[str, Sequence[Mapping]],
    sources: Mapping[str, Sequence[Source]],
    dataset: Dataset | None,
    room: int,
) -> str:
    """Returns tables and pictures of the worst cases, in at most `room` bytes."""
    by_organ = {organ: worst_cases(networks, organ) for organ in organs_in(networks)}
    by_organ = {organ: cases for organ, cases in by_organ.items() if cases}
    if not by_organ:
        return ""
    tables, left_out = {}, 0
    for organ, cases in by_organ.items():
        text = _table(cases, list(networks))
        room -= len(text.encode()) + 300
        if room < TABLE_ROOM:
            left_out += 1
        else:
            tables[organ] = text
    slices = Slices(networks, sources, dataset)
    shown = {
        organ: [slices.of_case(case.case_id, organ) for case in by_organ[organ]]
        for organ in tables
    }
    figures, note = _fitted(shown, {o: by_organ[o] for o in tables}, room - 2000)
    sections = "".join(
        f"<h3>{escape(organ_label(organ))}</h3>\n{tables[organ]}{figures[organ]}"
        for organ in tables
    )
    return (
        "<h2 id=worst>Worst cases</h2>\n"
        f"<p class=note>Up to {WORST} cases of each organ with the lowest Dice, "
        f"averaged over the networks. {note}</p>\n{sections}"
        + left_out_text(left_out, "organs are", "the table of all cases has them")
    )


def _table(cases: Sequence[WorstCase], networks: Sequence[str]) -> str:
    head = "<tr><th scope=col>Case<th scope=col class=number>True, ml" + "".join(
        f"<th scope=col class=number>Dice, {escape(name)}" for name in networks
    )
    lines = []
    for case in cases:
        truth_ml = next(iter(case.rows.values())).get("truth_ml")
        cells = "".join(
            f"<td class=number>{number((case.rows.get(name) or {}).get('dice'))}"
            for name in networks
        )
        lines.append(
            f"<tr><th scope=row>{escape(case.case_id)}"
            f"<td class=number>{number(truth_ml, 1)}{cells}"
        )
    return f"<div class=short>{table(head, lines, ' class=sortable')}</div>"


# Pictures: widths and qualities, of which the best that fits is taken.
_TRIES = ((260, 62), (220, 50), (180, 40), (140, 32), (110, 26))


def _fitted(
    shown: Mapping[str, Sequence[Mapping]],
    cases: Mapping[str, Sequence[WorstCase]],
    room: int,
) -> tuple[dict[str, str], str]:
    """Encodes the pictures as large as fits; the worst of each organ first to stay."""
    total = sum(bool(drawn) for of_organ in shown.values() for drawn in of_organ)
    if not total:
        note = (
            "No pictures: they need the evaluation's label maps (launch.evaluate "
            "--label_maps) with the prepared data (--data), or its --pictures."
        )
        return {organ: "" for organ in shown}, note
    kept = WORST
    for width, quality in (*_TRIES, *((_TRIES[-1],) * WORST)):
        figures = {
            organ: "".join(
                _figure(rank, case, drawn, width, quality)
                for rank, (case, drawn) in enumerate(
                    zip(cases[organ], of_organ, strict=True), start=1
                )
                if drawn and rank <= kept
            )
            for organ, of_organ in shown.items()
        }
        if sum(len(text) for text in figures.values()) <= room:
            break
        if (width, quality) == _TRIES[-1]:
            kept -= 1
    note = "Solid, white: truth; dashed: prediction, in the network’s colour."
    if (width, quality) != _TRIES[0]:
        note += " Pictures are smaller than usual, to keep this page below 5 MB."
    if kept <= 0:
        return {
            organ: "" for organ in shown
        }, "No pictures: they would make this page larger than 5 MB."
    if kept < WORST:
        note += f" For the same reason only the {kept} worst of an organ have one."
    return {
        organ: f"<div class=worst>{text}</div>\n" if text else ""
        for organ, text in figures.items()
    }, note


def _figure(
    rank: int, case: WorstCase, drawn: Mapping, width: int, quality: int
) -> str:
    images = []
    for name, one in drawn.items():
        data, size = one.encoded(width, quality)
        alt = f"{one.what} of {case.case_id}, {organ_label(case.organ)}, {name}"
        images.append(picture(data, "webp", size, alt))
    wide = " class=row" if any(one.is_wide for one in drawn.values()) else ""
    dice = ", ".join(f"{name} {number(row['dice'])}" for name, row in case.rows.items())
    return (
        f"<figure{wide}><div class=strip>{''.join(images)}</div><figcaption>{rank}. "
        f"<b>{escape(case.case_id)}</b>: {escape(dice)}</figcaption></figure>\n"
    )
