"""Every odd and bad input of the corpus in one folder, and what is reported of each.

The tables of docs/data.md are generated:

    python -m pytest tests/data_prep/test_corpus.py --write-docs
"""

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

import bad_inputs as bad
import bad_series
import numpy as np
import pytest

from attunet_jax.data.dataset import open_dataset
from attunet_jax.data.shards import read_record
from attunet_jax.errors import exit_status
from data_prep import prepare, verify
from data_prep.verification.findings import KINDS

LABELS = "--labels=spleen=1,pancreas=2,kidney=3"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"
FOR_USERS = {"file_that_may_not_be_read"}  # root may read everything


class Runs(NamedTuple):
    everything: Path  # folder with scans, data and look
    err: str  # what prepare said of it
    usable: Path  # the same of the usable cases alone
    elsewhere: dict[str, str]  # case -> reason, of other layouts


@pytest.fixture(scope="module")
def runs(tmp_path_factory, write_series, run_program) -> "Runs":
    folder, alone = tmp_path_factory.mktemp("all"), tmp_path_factory.mktemp("usable")
    bad.make_corpus(folder / "scans", [*bad.USABLE, *bad.UNUSABLE], write_series)
    bad.make_corpus(alone / "scans", bad.USABLE, write_series)

    def words(root: Path, output: str) -> list[str]:
        where = [f"--input={root / 'scans'}", f"--output={root / output}"]
        return ["--source=nifti", LABELS, *where]

    process = run_program("data_prep.prepare", *words(folder, "data"), "--workers=2")
    assert prepare.main([*words(alone, "data"), "--workers=1"]) == 0
    look = [*words(folder, "look"), "--workers=1"]
    assert exit_status(lambda: verify.main(look)) == 3
    _, err = process.communicate(timeout=120)
    assert process.returncode == 3
    elsewhere = {}
    for source, make in (
        ("msd", bad_series.make_decathlon),
        ("totalsegmentator", bad_series.make_totalsegmentator),
    ):
        root = tmp_path_factory.mktemp(source)
        place = f"{make(root / 'scans')}/"
        where = [f"--input={place}", f"--output={root / 'data'}"]
        assert (
            exit_status(lambda w=where, s=source: prepare.main([f"--source={s}", *w]))
            == 3
        )
        assert open_dataset(root / "data").case_ids == ("sound",)
        elsewhere |= {n: r.replace(place, "") for n, r in rejected(root).items()}
    return Runs(folder, err, alone, elsewhere)


def case_id(name: str) -> str:
    return bad.CASE_IDS.get(name, name)


def examined(folder: Path) -> dict[str, dict]:
    """Rows of verify.json by case."""
    content = json.loads((folder / "look" / "verify.json").read_text("utf-8"))
    return {case["case_id"]: case for case in content["cases"]}


def rejected(folder: Path) -> dict[str, str]:
    rows = json.loads((folder / "data" / "rejected.json").read_text("utf-8"))
    return {row["case_id"]: row["reason"] for row in rows["rejected"]}


def test_the_tables_of_the_page_are_what_the_programs_report(runs, check_generated):
    folder = runs.everything
    cases, reasons = examined(folder), rejected(folder)
    accepted, refused = {}, {}
    for make in bad.USABLE:
        problems = cases[case_id(make.__name__)]["problems"]
        warnings = [KINDS[row["kind"]] for row in problems]
        accepted[make.__name__] = "; ".join(["prepared", *warnings])
    page = PAGE.read_text(encoding="utf-8")
    for make in bad.UNUSABLE:
        name = make.__name__
        if name in FOR_USERS and os.geteuid() == 0:
            (refused[name],) = re.findall(rf"^\| `{name}` \| (.+) \|$", page, re.M)
        else:
            refused[name] = reasons[case_id(name)].replace(f"{folder}/scans/", "")
    refused |= runs.elsewhere
    for block, heading, rows in (
        ("accepted inputs", "| case | result |", accepted),
        ("refused inputs", "| case | reason; paths are below --input |", refused),
    ):
        lines = [f"| `{name}` | {text} |" for name, text in rows.items()]
        table = "\n".join([heading, "|---|---|", *lines, ""])
        check_generated("data.md", block, table)


def test_prepare_and_verify_say_the_same_without_a_traceback(runs):
    folder, err = runs.everything, runs.err
    cases, reasons = examined(folder), rejected(folder)
    unusable = {make.__name__ for make in bad.UNUSABLE}
    if os.geteuid() == 0:
        unusable -= FOR_USERS
    assert reasons.keys() == unusable
    assert {name for name, case in cases.items() if not case["usable"]} == unusable
    for name, reason in reasons.items():
        first = cases[name]["problems"][0]
        assert first["severity"] == "error" and first["text"].startswith(reason)
    # Equal reasons are told once: every case is in one of the lines.
    told = re.findall(r"^  (?:(\d+) cases \(.*\), the first: |\S+: )/", err, re.M)
    assert sum(int(count or 1) for count in told) == len(reasons)
    assert len(told) < len(reasons)
    assert "Traceback" not in err and "Warning" not in err


def test_headers_that_claim_terabytes_take_no_memory(runs):
    (stated,) = map(float, re.findall(r"memory: at most ([0-9.]+) GB", runs.err))
    assert stated < 0.5


def test_odd_cases_become_the_voxels_of_plain_ones(runs):
    data = open_dataset(runs.everything / "data")
    for make in bad.USABLE:
        case = data.case(case_id(make.__name__))
        hu, label = bad.expected(make.__name__)
        np.testing.assert_array_equal(case.image_hu, hu, make.__name__)
        np.testing.assert_array_equal(case.label, label, make.__name__)


def test_bad_cases_change_no_byte_of_the_others(runs):
    contents = []
    for data in (runs.everything / "data", runs.usable / "data"):
        manifest = json.loads((data / "manifest.json").read_text("utf-8"))
        files = [shard["file"] for shard in manifest["shards"]]
        contents.append(
            {
                case["case_id"]: read_record(
                    data / files[case["shard"]], case["record"]
                )
                for case in manifest["cases"]
            }
        )
    assert len(contents[1]) == len(bad.USABLE)
    for name, record in contents[1].items():
        assert contents[0][name] == record, name
