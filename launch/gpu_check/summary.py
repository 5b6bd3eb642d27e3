"""Prints the main results of a check on one page.

    python -m launch.gpu_check.summary RESULTS

Leaves out what a step has not written, so that an incomplete check has a summary too.
"""

import json
import sys
from pathlib import Path
from typing import Any

SMOKES = ("smoke", "smoke_again", "smoke_exact")
BENCHMARKS = ("torch", "torch_compile", "torch_f32", "torch_unet", "rest")
HEAD = (
    "\nstep                 train ms  queued   fwd ms  compile s  MiB  TFLOP/s"
    "  least GB/s  bits"
)
NOT_FINISHED = "not finished"
LEFT_OUT = "left out: "  # how check.sh begins the line


def load(path: Path) -> dict[str, Any]:
    """Returns the file's content; empty if it is missing or incomplete."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def print_smokes(folder: Path) -> None:
    smokes = {name: load(folder / f"{name}.json") for name in SMOKES}
    for name, one in smokes.items():
        if not one:
            continue
        print(f"\n{name}: {one.get('verdict', NOT_FINISHED)} {one.get('wrong', '')}")
        for key, value in one.items():
            shown = any(word in key for word in ("relative", "difference", "precision"))
            if name == "smoke" and shown:
                print(f"  {key:<50} {value:.2e}")
        for key, value in one.items():
            if key.endswith("same bits when repeated"):
                print(f"  {key:<50} {value}")
    first, again = smokes["smoke"], smokes["smoke_again"]
    for key in (k for k in first if k.endswith("digest") and k in again):
        same = "the same" if first[key] == again[key] else "ANOTHER"
        print(f"  {key}: {same} in a second process")


def print_steps(folder: Path) -> None:
    print(HEAD)
    for path in sorted(folder.glob("*.json")):
        one = load(path)
        if "train" not in one and "train_compile_s" not in one:
            continue
        train, rates = one.get("train", {}), one.get("train_rates", {})
        print(
            f"{path.stem:<20} {train.get('median_ms', 0):8.2f}"
            f" {train.get('queued_ms', 0):8.2f}"
            f" {one.get('forward', {}).get('queued_ms', 0):8.2f}"
            f" {one.get('train_compile_s', 0):9.1f}"
            f" {one.get('train_used', {}).get('peak_bytes_in_use_MiB', 0):7.0f}"
            f" {rates.get('TFLOP_s', 0):7.1f} {rates.get('least_GB_s', 0):9.0f}"
            f"   {one.get('train_same_bits_when_repeated')}"
        )
        if "copy_GB_s" in one:
            print(
                f"    peaks {one['copy_GB_s']:.0f} GB/s, {one['product_TFLOP_s']} "
                f"TFLOP/s; shares {rates.get('share_of_copy_peak')} "
                f"{rates.get('share_of_product_peak')}"
            )
        profile = one.get("profile", {})
        if "groups_ms_a_call" in profile:
            groups = profile["groups_ms_a_call"].items()
            print(
                f"    {profile['kernels_a_call']:.0f} kernels, busy "
                f"{profile['busy_ms_a_call']:.2f} of "
                f"{profile['span_ms_a_call']:.2f} ms: "
                + ", ".join(f"{group} {ms:.2f}" for group, ms in groups)
            )


def print_benchmarks(folder: Path) -> None:
    for name in BENCHMARKS:
        document = load(folder / name / "benchmark.json")
        if not document:
            continue
        print(f"\n{name}: ms a call")
        for result in document["results"]:
            seconds = result["unit"] == "s"
            value = result["median"] * 1e3 if seconds else result["median"]
            print(
                f"  {result['measurement'][:24]:<24} {str(result['network']):<15} "
                f"{result['by'][:46]:<46} {str(result['compute_dtype']):<9} "
                f"{value:9.2f} {'ms' if seconds else result['unit']}"
            )
        for line in document["skipped"]:
            print(f"  skipped: {line[:150]}")


def print_rest(folder: Path) -> None:
    for name in ("fits_large", "fits_medium"):
        one = load(folder / f"{name}.json")
        if one:
            print(
                f"\n{name}: {one.get('crop')} {one.get('verdict', NOT_FINISHED)} "
                f"step {one.get('step_s', 0):.3f} s, peak {one.get('peak_GiB', 0):.1f} "
                "GiB"
            )
    one = load(folder / "endtoend.json")
    if one:
        print(f"\nendtoend: {one.get('verdict', NOT_FINISHED)}")
        for row in one.get("paper_metrics", [])[-3:]:
            print(f"  {row}")
        print(
            f"  stopped and resumed: bit for bit {one.get('resume_bit_for_bit')}, "
            f"statuses {one.get('resume_statuses')}, first differing step "
            f"{one.get('resume_first_differing_step')}"
        )
    for path in (folder / "tests.log", folder / "parity.log"):
        if not path.exists():
            continue
        lines = path.read_text(errors="replace").splitlines()
        if lines and not lines[-1].startswith(LEFT_OUT):
            bad = [x for x in lines if x.startswith(("FAILED", "ERROR"))][:12]
            print(f"\n{path.stem}: " + "\n  ".join([*bad, *lines[-2:]]))


def print_left_out(folder: Path) -> None:
    for path in sorted(folder.glob("*.log")):
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith(LEFT_OUT):
                print(f"{path.stem}: {line}")


def main(results: str) -> None:
    folder = Path(results)
    print("\n# Summary")
    print_smokes(folder)
    print_steps(folder)
    print_benchmarks(folder)
    print_rest(folder)
    print_left_out(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
