"""Builds the results of the speed benchmark for JSON and prints them as Markdown."""

from typing import Any

from launch.benchmark.flops import Work
from launch.benchmark.timing import Series, quartiles

OURS = "attunet_jax"


def make_result(
    measurement: str,
    series: Series,
    *,
    network: str | None = None,
    by: str = OURS,
    compute_dtype: str | None = None,
    per: int = 1,
    unit: str = "s",
    note: str = "",
) -> dict[str, Any]:
    """Returns median, quartiles and rounds of one measurement.

    In unit "s" they are the seconds of one call, in another unit a rate: `per` units
    for each call.
    """
    values = series.seconds
    if unit != "s":
        values = tuple(per / s for s in values)
    return {
        "measurement": measurement,
        "network": network,
        "by": by,
        "compute_dtype": compute_dtype,
        "unit": unit,
        "median": Series(values).median,
        "quartiles": list(quartiles(values)),
        "rounds": list(values),
        "note": note,
    }


def with_work(result: dict[str, Any], work: Work, peaks: dict[str, Any]) -> dict:
    """Adds FLOP, bytes and their shares of the peaks measured in the same run.

    `floor_s` is the time of the slower of both at peak: no implementation that reads
    and writes all tensors can be faster.
    """
    matrix = peaks["matrix_product_flop_per_s"][result["compute_dtype"]]
    copy = peaks["copy_bytes_per_s"]
    seconds = result["median"]
    return result | {
        "flop": work.flop,
        "bytes": work.bytes,
        "share_of_matrix_product_peak": work.flop / seconds / matrix,
        "share_of_copy_peak": work.bytes / seconds / copy,
        "floor_s": max(work.flop / matrix, work.bytes / copy),
    }


def ratios(
    measurement: str, network: str, series: dict[str, Series], dtypes: dict[str, str]
) -> list[dict[str, Any]]:
    """Returns our time over that of each peer, round by round; below 1 we are faster.

    `series` and `dtypes` map each participant's name to its times and its type. Ours
    begin with "attunet_jax", peers that run the same network with "torch". The best
    peer has the smallest median: of all, and of those with our network and type.
    """
    ours = [name for name in series if name.startswith(OURS)]
    peers = sorted(
        (name for name in series if name not in ours), key=lambda n: series[n].median
    )
    entries = []
    for name in ours:
        comparable = [
            peer
            for peer in peers
            if dtypes[peer] == dtypes[name] and peer.startswith("torch")
        ]
        for peer in peers:
            ratio = series[name].over(series[peer])
            entries.append(
                {
                    "measurement": measurement,
                    "network": network,
                    "compute_dtype": dtypes[name],
                    "peer": peer,
                    "peer_compute_dtype": dtypes[peer],
                    "ours_over_peer": ratio.median,
                    "quartiles": list(ratio.quartiles),
                    "best_peer": peer == peers[0],
                    "best_of_same_network_and_type": comparable[:1] == [peer],
                }
            )
    return entries


def to_markdown(document: dict[str, Any]) -> str:
    """Returns the whole report of a run."""
    shape = "×".join(map(str, reversed(document["shape"])))
    scan = "×".join(map(str, reversed(document["scan_shape"])))
    lines = [
        _about(document),
        "",
        f"Size `{document['size']}`: network input {shape}, whole cases {scan} voxels "
        f"(width×height×depth). Medians and quartiles of {document['rounds']} rounds "
        "after warm-up.",
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
        f"Peaks measured in this run: matrix product {products}; copy "
        f"{_si(peaks['copy_bytes_per_s'])}B/s, read and written."
    ]


def _ours(document: dict[str, Any]) -> list[str]:
    lines = [
        "| measurement | network | type | median | quartiles | GFLOP | GB | of the "
        "matrix-product peak | of the copy peak | floor |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in document["results"]:
        if entry["by"] != OURS:
            continue
        cells = [
            entry["measurement"] + (f" ({entry['note']})" if entry["note"] else ""),
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
    """Returns a table of all participants, with our time over theirs for each type.

    A peer's train step has no augmentation, ours has: the ratio is against us.
    """
    dtypes = list(dict.fromkeys(r["compute_dtype"] for r in document["ratios"]))
    by_participant = {
        (r["measurement"], r["network"], r["peer"], r["compute_dtype"]): r
        for r in document["ratios"]
    }
    lines = [
        "| measurement | network | by | type | median | quartiles |"
        + "".join(f" ours in {dtype} / this |" for dtype in dtypes),
        "|---|---|---|---|---|---|" + "---|" * len(dtypes),
    ]
    compared = {(r["measurement"], r["network"]) for r in document["ratios"]}
    for entry in document["results"]:
        if (entry["measurement"], entry["network"]) not in compared:
            continue
        cells = [
            entry["measurement"],
            entry["network"],
            entry["by"],
            entry["compute_dtype"],
            _value(entry["median"], "s"),
            _spread(entry["quartiles"], "s"),
        ]
        for dtype in dtypes:
            key = (entry["measurement"], entry["network"], entry["by"], dtype)
            ratio = by_participant.get(key)
            cells.append(_ratio(ratio) if ratio else "")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _best(document: dict[str, Any]) -> list[str]:
    lines = []
    for entry in document["ratios"]:
        descriptions = [
            description
            for field, description in (
                ("best_peer", "the best peer"),
                (
                    "best_of_same_network_and_type",
                    "the best peer with the same network and type",
                ),
            )
            if entry[field]
        ]
        if descriptions:
            lines.append(
                f"- {entry['measurement']}, {entry['network']}, ours in "
                f"{entry['compute_dtype']}: {_ratio(entry)} of the time of "
                f"{' and '.join(descriptions)} ({entry['peer']})"
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
