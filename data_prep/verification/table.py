"""Formats the reports of all cases for a terminal of 100 columns."""

from collections.abc import Mapping, Sequence

from data_prep.verification.examine import printable
from data_prep.verification.findings import ERROR, KINDS
from data_prep.wording import grouped, listed

COLUMNS = 100
_MAX_ID_WIDTH, _MIN_ID_WIDTH = 32, 12
_MAX_CASES_NAMED = 4


def table(reports: Sequence[Mapping], organs: Sequence[str]) -> str:
    """One line for each case.

    It shows the ml of each organ where there is room, else how many of them were found.
    """
    heading = ["case", "D x H x W", "spacing mm", "axes", "HU"]
    rows = [_geometry(report) for report in reports]
    states = [_state(report) for report in reports]
    volumes = [[_ml(report, name) for name in organs] for report in reports]
    numbers = [[_found(report, organs)] for report in reports]
    longest = max([4, *(len(report["case_id"]) for report in reports)])
    for names, cells in (
        ([printable(name)[:10] for name in organs], volumes),
        (["organs"], numbers),
    ):
        lines = [
            [*row, *more, state]
            for row, more, state in zip(rows, cells, states, strict=True)
        ]
        lines.insert(0, [*heading, *names, "state"])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        room = COLUMNS - sum(widths[1:]) - 2 * (len(widths) - 1)
        if room >= min(longest, _MIN_ID_WIDTH):
            break
    widths[0] = max(min(longest, room, _MAX_ID_WIDTH), 4)
    right = {1, *range(5, len(widths) - 1)}
    text = []
    for line in lines:
        line = [_cut(line[0], widths[0]), *line[1:]]
        text.append(
            "  ".join(
                cell.rjust(width) if i in right else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
        )
    if cells is volumes and organs:
        text.append(f"({', '.join(map(printable, organs))} in ml)")
    return "\n".join(text) + "\n"


def warnings(reports: Sequence[Mapping]) -> str:
    """One line for each kind of warning, with its cases."""
    lines = []
    for kind, name in KINDS.items():
        cases = [
            report["case_id"]
            for report in reports
            if any(
                row["kind"] == kind and row["severity"] != ERROR
                for row in report["problems"]
            )
        ]
        if cases:
            shown = listed(cases, _MAX_CASES_NAMED)
            lines.append(f"  {name}: {len(cases)} ({shown})\n")
    return "warnings, by number of cases:\n" + "".join(lines) if lines else ""


def unusable(reports: Sequence[Mapping]) -> str:
    """The cases that cannot be used with all their reasons, equal ones in one line."""
    rows = [
        {
            "case_id": report["case_id"],
            "reason": "; also: ".join(
                row["text"] for row in report["problems"] if row["severity"] == ERROR
            ),
        }
        for report in reports
        if not report["usable"]
    ]
    lines = "".join(f"  {line}\n" for line in grouped(rows))
    return f"cannot be used, {len(rows)}:\n{lines}" if rows else ""


def _geometry(report: Mapping) -> list[str]:
    if "shape" not in report:
        return [report["case_id"], "-", "-", "-", "-"]
    hu = report["hu"]
    return [
        report["case_id"],
        "x".join(map(str, report["shape"])),
        "x".join(f"{s:.3g}" for s in report["spacing_mm"]),
        report["orientation"],
        f"{hu['min']:.4g}..{hu['max']:.4g}"
        if not hu["whole"]
        else f"{hu['min']}..{hu['max']}",
    ]


def _state(report: Mapping) -> str:
    errors = sum(row["severity"] == ERROR for row in report["problems"])
    others = len(report["problems"]) - errors
    if errors:
        return "UNUSABLE"
    return f"{others} warning{'s' * (others > 1)}" if others else "ok"


def _ml(report: Mapping, organ: str) -> str:
    if "organs" not in report:
        return "-"
    ml = report["organs"].get(organ, {"ml": 0, "voxels": 0})
    if not ml["voxels"]:
        return "absent"
    return f"{ml['ml']:.3g}" if ml["ml"] < 100 else f"{ml['ml']:.0f}"


def _found(report: Mapping, organs: Sequence[str]) -> str:
    if "organs" not in report:
        return "-"
    there = sum(report["organs"].get(o, {"voxels": 0})["voxels"] > 0 for o in organs)
    return f"{there} of {len(organs)}"


def _cut(name: str, width: int) -> str:
    """Shortens a name in its middle: names of scans differ at the ends."""
    if len(name) <= width:
        return name
    end = (width - 2) // 2
    return f"{name[: width - 2 - end]}..{name[-end:]}"
