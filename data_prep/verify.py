"""Examines every scan and label map before the preparation, and reports problems.

    python -m data_prep.verify --source=nifti --input=SCANS \\
        --labels=spleen=1,pancreas=2,kidney=3
    python -m data_prep.verify --source=nnunet --input=Dataset007 --output=CHECK

Prints a table and writes verify.html (pictures of every case with the outlines of its
labels; open it in a browser) and verify.json into --output. The input is only read.
D, H and W run feet to head, front to back and the patient's right to left; "axes" are
those of the file: LPS runs to the left, the back (posterior) and the head (superior).
Cases that data_prep.prepare would leave out are listed at the end, and the exit status
is 3; everything else unusual is a warning.
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from attunet_jax import interrupts
from attunet_jax.errors import BadArguments, BadData, exit_status
from attunet_jax.files import write_text
from attunet_jax.storage.mirror import mirrored
from attunet_jax.storage.names import lies_within, shown, with_urls
from attunet_jax.storage.outputs import staged_files
from attunet_jax.workers import choose_workers, run_in_processes
from data_prep.manifest import passed_over_line
from data_prep.resources import verify_bytes
from data_prep.sources import SOURCES, find_cases
from data_prep.sources.layout import not_used, with_other_labels, with_series
from data_prep.verification import table
from data_prep.verification.examine import Settings, examine, organ_colours
from data_prep.verification.findings import across_cases
from data_prep.verification.page import page
from data_prep.verification.pictures import Picture
from launch import cli

FORMAT, FORMAT_VERSION = "attunet_jax.verify", 1
RERUN = "examines all cases again"

FLAGS = cli.Flags(__doc__)
FLAGS.add(
    "source", str, None, "Layout of the folder.", choices=sorted(SOURCES), required=True
)
FLAGS.add(
    "input",
    cli.readable,
    None,
    "Folder of the scans, also of gs:// or s3://; only read.",
    required=True,
)
FLAGS.add_cache_dir()
FLAGS.add(
    "output",
    cli.writable,
    Path("verify"),
    "Folder for verify.html and verify.json, also of gs:// or s3://.",
)
FLAGS.add(
    "labels",
    str,
    None,
    "As for prepare: spleen=1,pancreas=2,kidney=3; without it each value is shown by "
    "itself, unless the layout names them.",
)
FLAGS.add("series", str, None, "As for prepare: UID,UID of several in one folder.")
FLAGS.add("ignore_unknown_labels", bool, False, "As for prepare.")
FLAGS.add("strict", bool, False, "Refuse scans that may be no CT, as prepare does.")
FLAGS.add("spacing_mm", cli.spacing_mm, (2.0, 2.0, 2.0), "As for prepare.")
FLAGS.add(
    "workers",
    int,
    None,
    "Processes, each with one scan in memory (default: as many as cores, fewer if "
    "memory is short).",
)


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    with staged_files(
        arguments.output, arguments.cache_dir, user="verify", files=("verify.*",)
    ) as output:
        arguments.input = mirrored(arguments.input, arguments.cache_dir)
        arguments.output = output
        if lies_within(output, arguments.input):
            raise BadArguments(
                f"--output={output} lies within --input={arguments.input}, which is "
                "only read: name another folder"
            )
        return _verify(arguments)


def _verify(arguments: cli.Values) -> int:
    layout = find_cases(arguments.source, arguments.input)
    organs, ignored = layout.chosen(arguments.labels)
    if layout.no_organs and not organs:
        print(layout.no_organs, file=sys.stderr)
    settings = Settings(
        organs,
        arguments.spacing_mm,
        arguments.ignore_unknown_labels,
        arguments.strict,
    )
    labelled, unlabelled = (
        with_series(with_other_labels(pairs, ignored), arguments.series)
        for pairs in (layout.pairs, layout.unlabelled)
    )
    calls = [(pair, settings) for pair in labelled]
    calls += [(pair, settings, True) for pair in unlabelled]
    if not calls:
        raise BadData(f"{arguments.input}: no scans found for {arguments.source}")
    output = arguments.output
    _make_output(output)
    reports, pictures = _examine_all(calls, arguments.workers, output)
    for report, found in zip(reports, across_cases(reports), strict=True):
        report["problems"] += found
    organs = organs or _label_values(reports)
    title = f"{shown(arguments.input)} ({arguments.source})"
    _write(
        output / "verify.json",
        json.dumps(_summary(reports, organs, arguments), indent=1) + "\n",
    )
    _write(
        output / "verify.html", page(reports, pictures, organ_colours(organs), title)
    )
    if unused := not_used(arguments.input, layout):
        print(f"of no case, not used: {unused}")
    if line := passed_over_line(reports):
        print(line)
    return _print_results(reports, list(organs), arguments)


def parse(argv: list[str] | None) -> cli.Values:
    arguments = FLAGS.parse(argv)
    if arguments.workers is not None and arguments.workers < 1:
        raise BadArguments(f"--workers={arguments.workers} must be 1 or more")
    return arguments


def _make_output(output: Path) -> None:
    """Makes the folder, and checks before the work that it can be written."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / ".writable").touch()
        (output / ".writable").unlink()
    except OSError as error:
        raise _cannot_write(output, error) from None


def _examine_all(
    calls: Sequence[tuple], requested: int | None, output: Path
) -> tuple[list[dict], list[list[Picture]]]:
    """Returns reports and pictures in the order of the calls; shows a progress bar."""
    process_bytes = verify_bytes(pair for pair, *_ in calls)
    workers = choose_workers("verify", process_bytes, len(calls), requested)
    results: dict[int, tuple[dict, list[Picture]]] = {}
    with tqdm(total=len(calls), unit="case", desc="verify") as bar:

        def on_result(number: int, result: tuple[dict, list[Picture]]) -> None:
            results[number] = result
            bar.update()

        if workers == 1:
            for number, call in enumerate(calls):
                on_result(number, examine(*call))
        else:
            run_in_processes(examine, calls, workers, output, on_result, RERUN)
    in_order = [results[number] for number in range(len(calls))]
    return [report for report, _ in in_order], [pictures for _, pictures in in_order]


def _label_values(reports: Sequence[Mapping]) -> dict[str, tuple[int, ...]]:
    """Each label value that occurs as an organ, where nothing names them."""
    names = {name for report in reports for name in report.get("organs", {})}
    values = sorted(int(name.removeprefix("label_")) for name in names)
    return {f"label_{value}": (value,) for value in values}


def _summary(reports: Sequence[Mapping], organs: Mapping, arguments) -> dict:
    kinds = Counter(
        kind
        for report in reports
        for kind in {row["kind"] for row in report["problems"]}
    )
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "source": arguments.source,
        "input": shown(arguments.input),
        "organs": {organ: list(values) for organ, values in organs.items()},
        "spacing_mm": list(arguments.spacing_mm),
        "cases_in_all": len(reports),
        "cases_usable": sum(report["usable"] for report in reports),
        "cases_by_problem": dict(sorted(kinds.items())),
        "cases": list(reports),
    }


def _print_results(reports: Sequence[Mapping], organs: list[str], arguments) -> int:
    """Prints the table and the problems. Raises `BadData` where a case is unusable."""
    html = arguments.output / "verify.html"
    print(table.table(reports, organs))
    print(with_urls(table.warnings(reports)), end="")
    if organs and organs[0].startswith("label_") and not arguments.labels:
        print(
            "labels have no names yet: give --labels=spleen=1,... here and to prepare"
        )
    print(f"pictures: {shown(html)}", flush=True)
    if listed := table.unusable(reports):
        print(with_urls(listed), end="", file=sys.stderr)
        bad = sum(not report["usable"] for report in reports)
        raise BadData(
            f"{html}: {bad} of {len(reports)} cases cannot be used, for the reasons "
            "above"
        )
    return 0


def _write(path: Path, text: str) -> None:
    """Writes the file atomically. What UTF-8 cannot hold (file names) is escaped."""
    try:
        text = with_urls(text)
        write_text(path, text.encode("utf-8", "backslashreplace").decode("utf-8"))
    except OSError as error:
        raise _cannot_write(path, error) from None


def _cannot_write(path: Path, error: OSError) -> BadData:
    return BadData(
        f"{path}: cannot be written ({error.strerror}); choose another --output"
    )


if __name__ == "__main__":
    interrupts.listen(f"the same command {RERUN}")
    interrupts.leave(exit_status(main))
