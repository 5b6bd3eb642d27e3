"""Words of messages about many cases: short lists, and equal reasons told once."""

import re
from collections.abc import Mapping, Sequence

SHOWN = 5


def listed(names: Sequence[str], shown: int = SHOWN) -> str:
    """Returns "a, b, c", and after `shown` names "and 50 more"."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def grouped(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """A line for each kind of reason among `rows` of "case_id" and "reason".

    Reasons are of one kind where they differ in nothing but paths and numbers. A single
    case is told with its whole reason, several with the first one's.
    """
    kinds: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        kinds.setdefault(_kind(row), []).append(row)
    lines = []
    for same in sorted(kinds.values(), key=len, reverse=True):
        first = same[0]
        if len(same) == 1:
            lines.append(f"{first['case_id']}: {first['reason']}")
        else:
            ids = listed([row["case_id"] for row in same])
            lines.append(f"{len(same)} cases ({ids}), the first: {first['reason']}")
    return lines


def _kind(row: Mapping[str, str]) -> str:
    """The reason without what only this case has: its path, its id and numbers."""
    path, colon, rest = row["reason"].partition(": ")
    text = rest if colon and "/" in path else row["reason"]
    text = re.sub(r"\S*/\S*", "PATH", text).replace(row["case_id"], "CASE")
    number = r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?"
    return re.sub(rf"{number}((, | x |-){number})*", "N", text)
