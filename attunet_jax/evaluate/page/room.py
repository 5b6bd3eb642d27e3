"""Keeps a page within its size: parts are shown while they fit, the others counted."""

from collections.abc import Iterable

MAX_BYTES = 5_000_000  # of the page
# What parts of each kind may take of it: less than all. Pictures have the rest.
PLOT_BYTES = 1_000_000
TABLE_BYTES = 400_000
CASE_BYTES = 1_200_000
RUN_BYTES = 150_000


def fitting(parts: Iterable[str], limit: int) -> tuple[list[str], int, int]:
    """Returns the first parts that fit, how many do not, and the bytes left."""
    kept, left_out = [], 0
    for part in parts:
        size = len(part.encode())
        if left_out or size > limit:
            left_out += 1
        else:
            kept.append(part)
            limit -= size
    return kept, left_out, limit


def left_out_text(count: int, what: str, remedy: str) -> str:
    """Returns a line that says what the page does not show; empty if it shows all."""
    if not count:
        return ""
    limit = MAX_BYTES // 1_000_000
    return (
        f"<p class=note>{count} {what} left out, to keep this page below {limit} MB: "
        f"{remedy}.</p>\n"
    )
