"""The document of a run in, the same as Markdown tables for terminal and file out."""

from typing import Any

from launch.benchmark.rows import OURS


def to_markdown(document: dict[str, Any]) -> str:
    shape = "×".join(map(str, reversed(document["shape"])))
    scan = "×".join(map(str, reversed(document["scan_shape"])))
    lines = [
        _about(document),
        "",
        f"Size `{document['size']}`: network input {shape}, whole cases {scan} voxels "
        f"(width×height×depth). Medians of {document['rounds']} rounds after warm-up, "
        "every call waited for; between the quartiles lies half of the rounds.",
        "",
        *_peaks(document),
        "",
        *_ours(document),
    ]
    if document["ratios"]:
        lines += ["", *_side_by_side(document), "", *_best(document)]
    if document["skipped"]:
        lines += ["", "Skipped:", ""]
        lines += [f"- {line}" for line in document["skipped"]]
    return "\n".join(lines) + "\n"


def _about(document: dict[str, Any]) -> str:
    machine = document["machine"]
    names = ("jax", "jaxlib", "flax", "numpy")
    versions = {name: machine["packages"][name] for name in names}
    for peer in document["peers"]:
        versions |= peer["versions"]
    return (
        f"{document['date']}; {machine['cores']} cores of {machine['processor']}; "
        f"device {machine['device']} ({machine['backend']}); Python "
        f"{machine['python']}; " + ", ".join(f"{k} {v}" for k, v in versions.items())
    )


def _peaks(document: dict[str, Any]) -> list[str]:
    peaks = document["peaks"]
    products = ", ".join(
        f"{_si(value)}FLOP/s in {dtype}"
        for dtype, value in peaks["matrix_product_flop_per_s"].items()
    )
    return [
        f"Peaks of this run: matrix product {products}; copy "
        f"{_si(peaks['copy_bytes_per_s'])}B/s, read and written."
    ]


def _ours(document: dict[str, Any]) -> list[str]:
    lines = [
        "| what | network | type | median | quartiles | GFLOP | GB | of the "
        "matrix-product peak | of the copy peak | floor |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in document["rows"]:
        if entry["by"] != OURS:
            continue
        cells = [
            entry["figure"] + (f" ({entry['note']})" if entry["note"] else ""),
            entry["network"] or "",
            entry["compute_dtype"] or "",
            _value(entry["median"], entry["unit"]),
            _spread(entry["quartiles"], entry["unit"]),
        ]
        if "flop" in entry:
            cells += [
                f"{entry['flop'] / 1e9:.1f}",
                f"{entry['bytes'] / 1e9:.2f}",
                f"{entry['share_of_matrix_product_peak']:.0%}",
                f"{entry['share_of_copy_peak']:.0%}",
                _value(entry["floor_s"], "s"),
            ]
        else:
            cells += [""] * 5
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _side_by_side(document: dict[str, Any]) -> list[str]:
    """Every participant of the alternating rounds; ours over it for each of our types.

    A peer's train step has no augmentation, ours has: the ratio is against us.
    """
    dtypes = list(dict.fromkeys(r["compute_dtype"] for r in document["ratios"]))
    found = {
        (r["figure"], r["network"], r["peer"], r["compute_dtype"]): r
        for r in document["ratios"]
    }
    lines = [
        "| what | network | by | type | median | quartiles |"
        + "".join(f" ours in {dtype} / it |" for dtype in dtypes),
        "|---|---|---|---|---|---|" + "---|" * len(dtypes),
    ]
    compared = {(r["figure"], r["network"]) for r in document["ratios"]}
    for entry in document["rows"]:
        if (entry["figure"], entry["network"]) not in compared:
            continue
        cells = [
            entry["figure"],
            entry["network"],
            entry["by"],
            entry["compute_dtype"],
            _value(entry["median"], "s"),
            _spread(entry["quartiles"], "s"),
        ]
        for dtype in dtypes:
            key = (entry["figure"], entry["network"], entry["by"], dtype)
            ratio = found.get(key)
            cells.append(_ratio(ratio) if ratio else "")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _best(document: dict[str, Any]) -> list[str]:
    lines = []
    for entry in document["ratios"]:
        kinds = [
            words
            for field, words in (
                ("best_peer", "the best peer"),
                (
                    "best_of_same_network_and_type",
                    "the best peer with the same network and type",
                ),
            )
            if entry[field]
        ]
        if kinds:
            lines.append(
                f"- {entry['figure']}, {entry['network']}, ours in "
                f"{entry['compute_dtype']}: {_ratio(entry)} of the time of "
                f"{' and '.join(kinds)} ({entry['peer']})"
            )
    return lines


def _ratio(entry: dict[str, Any]) -> str:
    low, high = entry["quartiles"]
    return f"{entry['ours_over_peer']:.2f} ({low:.2f} to {high:.2f})"


def _value(value: float, unit: str) -> str:
    if unit != "s":
        return f"{value:.3g} {unit}"
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def _spread(pair: list[float], unit: str) -> str:
    low, high = (_value(value, unit) for value in pair)
    return f"{low} to {high}"


def _si(value: float) -> str:
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= factor:
            return f"{value / factor:.3g} {letter}"
    return f"{value:.3g} "
