"""Seconds and work in, a JSON-ready row of the benchmark out."""

from typing import Any

from launch.benchmark.flops import Work
from launch.benchmark.timing import Series, quartiles

OURS = "attunet_jax"


def row(
    figure: str,
    series: Series,
    *,
    network: str | None = None,
    by: str = OURS,
    compute_dtype: str | None = None,
    per: int = 1,
    unit: str = "s",
    note: str = "",
) -> dict[str, Any]:
    """`unit` "s" is seconds a call; anything else is `per` of it a call, a second."""
    values = series.seconds
    if unit != "s":
        values = tuple(per / s for s in values)
    return {
        "figure": figure,
        "network": network,
        "by": by,
        "compute_dtype": compute_dtype,
        "unit": unit,
        "median": Series(values).median,
        "quartiles": list(quartiles(values)),
        "rounds": list(values),
        "note": note,
    }


def with_work(entry: dict[str, Any], work: Work, peaks: dict[str, Any]) -> dict:
    """The row with FLOP, bytes and their shares of what was measured in this run.

    `floor_s` is the longer of both at peak: no implementation of this network that
    reads and writes its tensors can be faster.
    """
    matrix = peaks["matrix_product_flop_per_s"][entry["compute_dtype"]]
    copy = peaks["copy_bytes_per_s"]
    seconds = entry["median"]
    return entry | {
        "flop": work.flop,
        "bytes": work.bytes,
        "share_of_matrix_product_peak": work.flop / seconds / matrix,
        "share_of_copy_peak": work.bytes / seconds / copy,
        "floor_s": max(work.flop / matrix, work.bytes / copy),
    }


def ratios(
    figure: str, network: str, series: dict[str, Series], dtypes: dict[str, str]
) -> list[dict[str, Any]]:
    """Ours over each peer, round by round; below 1 ours is faster.

    `series` and `dtypes` go by participant; ours are those that begin with our name,
    the same network's restatement in PyTorch those that begin with "torch". The best
    peer is the one with the least median: of all, and of the same network's in our
    type.
    """
    ours = [name for name in series if name.startswith(OURS)]
    peers = sorted(
        (name for name in series if name not in ours), key=lambda n: series[n].median
    )
    entries = []
    for name in ours:
        like_ours = [
            peer
            for peer in peers
            if dtypes[peer] == dtypes[name] and peer.startswith("torch")
        ]
        for peer in peers:
            ratio = series[name].over(series[peer])
            entries.append(
                {
                    "figure": figure,
                    "network": network,
                    "compute_dtype": dtypes[name],
                    "peer": peer,
                    "peer_compute_dtype": dtypes[peer],
                    "ours_over_peer": ratio.median,
                    "quartiles": list(ratio.quartiles),
                    "best_peer": peer == peers[0],
                    "best_of_same_network_and_type": like_ours[:1] == [peer],
                }
            )
    return entries
