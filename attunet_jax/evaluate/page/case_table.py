"""The table of all cases, which the page's script fills, sorts and filters."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from attunet_jax.evaluate.definitions import METRICS
from attunet_jax.evaluate.page.names import FIRST, heading, metrics_in, organ_label
from attunet_jax.evaluate.page.room import CASE_BYTES, left_out_text
from attunet_jax.web_page import table

# Columns besides the metrics: shown where rows have them.
_MORE = {
    "truth_ml": "True volume, ml",
    "prediction_ml": "Predicted volume, ml",
    "seconds": "Prediction, s",
    "seed": "Seed",
}
_SHOWN = (*FIRST, "truth_ml", "prediction_ml")  # at once; the others on request


def case_section(
    networks: Mapping[str, Sequence[Mapping]], limit: int = CASE_BYTES
) -> str:
    """Returns the controls, an empty table and its data, in at most `limit` bytes.

    Where the rows are too many, those of the lowest Dice are there.
    """
    every = [row for rows in networks.values() for row in rows]
    keys = [*metrics_in(every)]
    keys += [key for key in _MORE if any(row.get(key) is not None for row in every)]
    lists = _lists(networks)
    columns = [
        {"key": key, "first": True} for key in ("case_id", "organ", "network")
    ] + [{"key": key, "first": key in _SHOWN} for key in keys]
    rows = sorted(
        (
            [
                lists[0][str(row["case_id"])],
                lists[1][organ_label(row["organ"])],
                lists[2][network],
                *(_short(row.get(key)) for key in keys),
            ]
            for network, of_network in networks.items()
            for row in of_network
        ),
        key=lambda row: _dice_of(row, keys),
    )
    kept, room = [], limit - len(_data(columns, lists, [])) - 4000
    for row in rows:
        room -= len(_json(row)) + 1
        if room < 0:
            break
        kept.append(row)
    labels = [_MORE.get(key) or heading(key) for key in keys]
    head = "<tr>" + "".join(
        f"<th scope=col class={kind}{_title(key)}>{escape(label)}"
        for key, label, kind in (
            *(("", name, "text") for name in ("Case", "Organ", "Network")),
            *((key, label, "number") for key, label in zip(keys, labels, strict=True)),
        )
    )
    left_out = left_out_text(
        len(rows) - len(kept), "rows of the highest Dice are", "cases.jsonl has all"
    )
    return (
        "<section id=cases aria-labelledby=cases-title>\n"
        "<h2 id=cases-title>All cases</h2>\n"
        "<p class=note>A row for each case, organ and network. A click on a heading "
        "sorts; a second one reverses.</p>\n"
        f"{left_out}{_controls(lists)}"
        f"{table(head, [], ' aria-labelledby=cases-title')}"
        "<button type=button name=more class=screen hidden>Show 1000 more</button>\n"
        "<noscript><p>The table needs the page's script; cases.jsonl of each "
        "evaluation has the same rows.</p></noscript>\n"
        '<script type="application/json" id=case-data>'
        f"{_data(columns, lists, kept)}</script>\n</section>\n"
    )


def _lists(networks: Mapping[str, Sequence[Mapping]]) -> list[dict[str, int]]:
    """Numbers the cases, organs and networks, so that a row need not repeat a name."""
    every = [row for rows in networks.values() for row in rows]

    def numbered(names: Iterable[str]) -> dict[str, int]:
        return {name: i for i, name in enumerate(dict.fromkeys(names))}

    return [
        numbered(sorted(str(row["case_id"]) for row in every)),
        numbered(organ_label(row["organ"]) for row in every),
        numbered(networks),
    ]


def _controls(lists: Sequence[Mapping[str, int]]) -> str:
    def choice(name: str, label: str, options: Iterable[str]) -> str:
        values = "".join(
            f'<option value="{escape(option, quote=True)}">{escape(option)}</option>'
            for option in options
        )
        return (
            f"<label>{label}<select name={name}><option value=''>all</option>{values}"
            "</select></label>"
        )

    return (
        "<div class=controls>"
        "<label>Case<input name=case type=search placeholder='part of its name'>"
        f"</label>{choice('organ', 'Organ', lists[1])}"
        f"{choice('network', 'Network', lists[2])}"
        "<label>Dice at most<input name=most type=number min=0 max=1 step=0.05></label>"
        "<label class=tick><input name=all type=checkbox>all scores</label>"
        "<output aria-live=polite></output></div>\n"
    )


def _title(key: str) -> str:
    if key not in METRICS:
        return ""
    return f' title="{escape(METRICS[key].definition, quote=True)}"'


def _dice_of(row: Sequence, keys: Sequence[str]) -> float:
    dice = row[3 + keys.index("dice")] if "dice" in keys else None
    return 2.0 if dice is None else dice


def _short(value: object) -> float | int | None:
    """Four digits are enough to look at."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    short = float(f"{value:.4g}")
    return int(short) if short.is_integer() else short


def _data(columns: list[dict], lists: list[dict[str, int]], rows: list[list]) -> str:
    names = [list(numbered) for numbered in lists]
    # No name can end the element that holds the data.
    content = _json({"columns": columns, "names": names, "rows": rows})
    return content.replace("<", "\\u003c").replace(">", "\\u003e")


def _json(content: object) -> str:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=True)
