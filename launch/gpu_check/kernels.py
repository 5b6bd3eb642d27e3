"""Prints the kernels of a profile of jax.profiler by the time they take.

    python -m launch.gpu_check.kernels FOLDER

The table has the busy time of the device, the time of each group of kernels, and the 60
longest kernels with their place in the model. The profile of a CPU has no kernels: the
table lists its operations instead, so that a dry run has a table too.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

from jax.profiler import ProfileData

GROUPS = (  # the first that matches
    ("copy", r"memcpy|memset|^copy|MemcpyD2D"),
    (
        "layout for cuDNN",
        r"nc[dhw]*2?.?to.?n[dhw]*c|n[dhw]*c2?.?to.?nc[dhw]*"
        r"|convertTensor|tensorTransform",
    ),
    ("convolution", r"cudnn|fprop|dgrad|wgrad|implicit|conv(?!ert)"),
    ("product", r"gemm|cublas|cutlass|nvjet|xmma|splitK|_dot"),
    ("transposition", r"transpose"),
    ("concatenation (upsampling)", r"concatenate"),
    ("cutting (its gradient)", r"slice_fusion|split"),
    ("sum (BatchNorm, loss)", r"reduce"),
    ("gather, scatter", r"gather|scatter"),
    ("number by number", r"fusion|wrapped|loop_"),
)


def group_of(name: str) -> str:
    """Returns the kind of work that a kernel of this name does."""
    for group, pattern in GROUPS:
        if re.search(pattern, name, re.IGNORECASE):
            return group
    return "other"


Event = tuple[str, str, float, float]  # kernel, operation, start, nanoseconds


def events_of(folder: str | Path) -> tuple[str, list[Event]]:
    """Returns (name of the device, its events) of the last profile in the folder."""
    files = sorted(Path(folder).rglob("*.xplane.pb"))
    if not files:
        raise FileNotFoundError(f"no *.xplane.pb in {folder}")
    planes = list(ProfileData.from_file(str(files[-1])).planes)
    gpus = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    found: list[Event] = []
    for plane in gpus:
        lines = list(plane.lines)
        streams = [line for line in lines if (line.name or "").startswith("Stream")]
        for line in streams or lines:
            for event in line.events:
                stats = {str(k): v for k, v in event.stats}
                operation = str(stats.get("hlo_op") or stats.get("name") or "")
                found.append((event.name, operation, event.start_ns, event.duration_ns))
    if found:
        return ", ".join(plane.name for plane in gpus), found
    for plane in planes:  # a CPU
        for line in plane.lines:
            for event in line.events:
                operation = {str(k): v for k, v in event.stats}.get("hlo_op")
                if operation is not None:
                    found.append(
                        (event.name, str(operation), event.start_ns, event.duration_ns)
                    )
    return "host", found


def busy_ns(found: list[Event]) -> float:
    """Returns the length of the union of all intervals."""
    total, end = 0.0, -1.0
    for start, stop in sorted((s, s + d) for _, _, s, d in found):
        if start > end:
            total, end = total + stop - start, stop
        elif stop > end:
            total, end = total + stop - end, stop
    return total


def sources(hlo: str) -> dict[str, str]:
    """Returns operation of the compiled program -> its place in the model."""
    pattern = re.compile(r'%?([\w.\-]+) = .*?op_name="([^"]*)"')
    return {m[1]: m[2] for line in hlo.splitlines() if (m := pattern.search(line))}


def table(
    folder: str | Path, *, calls: int, wall_s: float, hlo: str = ""
) -> tuple[str, dict]:
    """Returns (the table as text, its main numbers) of a profile of equal calls."""
    plane, found = events_of(folder)
    if not found:
        return "the profile holds no kernels\n", {"kernels": 0}
    names: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0])
    groups: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    for name, operation, _, ns in found:
        group = groups[group_of(name if name != operation else operation)]
        for sums in (names[name, operation], group):
            sums[0], sums[1] = sums[0] + 1, sums[1] + ns
    by_time = sorted(groups.items(), key=lambda item: -item[1][1])
    total = sum(ns for *_, ns in found)
    busy = busy_ns(found)
    span = max(s + d for *_, s, d in found) - min(s for *_, s, _ in found)
    places = sources(hlo)
    summary = {
        "plane": plane,
        "calls": calls,
        "kernels_a_call": len(found) / calls,
        "kernel_ms_a_call": total / calls / 1e6,
        "busy_ms_a_call": busy / calls / 1e6,
        "span_ms_a_call": span / calls / 1e6,
        "wall_ms_a_call": 1e3 * wall_s / calls,
        "idle_share_of_span": 1 - busy / span,
        "groups_ms_a_call": {
            group: round(ns / calls / 1e6, 3) for group, (_, ns) in by_time
        },
    }

    def line(count: float, ns: float, decimals: int, what: str) -> str:
        each = f"{ns / calls / 1e6:9.3f} {ns / total:6.1%}"
        return f"{each} {count / calls:6.{decimals}f}  {what}"

    lines = [
        f"{plane}: {calls} calls, {len(found) / calls:.0f} kernels a call, "
        f"{total / calls / 1e6:.2f} ms of kernels a call, busy "
        f"{busy / calls / 1e6:.2f} of {span / calls / 1e6:.2f} ms",
        "",
        "  ms/call  share  count  group",
        *(line(count, ns, 0, group) for group, (count, ns) in by_time),
        "",
        "  ms/call  share  count  kernel | operation | from",
    ]
    ranked = sorted(names.items(), key=lambda item: -item[1][1])
    for (name, operation), (count, ns) in ranked[:60]:
        place = places.get(operation, "")[-90:]
        lines.append(line(count, ns, 1, f"{name[:90]} | {operation[:40]} | {place}"))
    return "\n".join(lines) + "\n", summary


if __name__ == "__main__":
    print(table(sys.argv[1], calls=1, wall_s=1.0)[0])
