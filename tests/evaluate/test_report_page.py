"""report.html: one small file that fetches nothing, whatever it is made of."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from attunet_jax.errors import BadData
from attunet_jax.evaluate.page import write
from attunet_jax.evaluate.page.case_table import case_section
from attunet_jax.evaluate.page.groups import read_groups
from attunet_jax.evaluate.page.study.facts import training_time
from attunet_jax.evaluate.page.study.runs import read_run
from attunet_jax.evaluate.page.write import write_report

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)></script>]]>"


def rows_of(cases, organs, *, seed=0, **more):
    rng = np.random.default_rng(seed)
    return [
        {
            "case_id": case,
            "organ": organ,
            "dice": float(rng.uniform(0.5, 1)),
            "surface_distance_mm": float(rng.uniform(0, 4)),
            "truth_ml": float(rng.uniform(20, 200)),
            "prediction_ml": 50.0,
            "spacing_mm": [2.0, 1.0, 1.0],
            **more,
        }
        for case in cases
        for organ in organs
    ]


def data_in(text):
    """What the page's script fills the table of cases with."""
    found = re.search(r"id=case-data>(.*?)</script>", text)
    assert found is not None
    return json.loads(found[1])


class Page(HTMLParser):
    """What a page's elements are, and which addresses they name."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.handlers, self.texts = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "action")]
        self.handlers += [k for k, _ in attrs if k.startswith("on")]

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def written(tmp_path):
    def write(networks, **options):
        path = tmp_path / "report.html"
        write_report(path, networks, **options)
        return path.read_text(encoding="utf-8")

    return write


def test_hostile_names_stay_text_and_nothing_is_fetched(written, tmp_path):
    groups_csv = tmp_path / "cases.csv"
    groups_csv.write_text(
        f"case_id,{HOSTILE.replace(',', '')!s}\n".replace('"', "")
        + "".join(f"{c},{i % 2}\n" for i, c in enumerate("abcdefgh"))
    )
    rows = rows_of("abcdefgh", [HOSTILE, "liver"])
    for row in rows[:2]:
        row["case_id"] = HOSTILE
    groups = read_groups(groups_csv, list("bcdefgh"))
    text = written(
        {HOSTILE: rows, "other": rows_of("abcdefgh", ["liver"])}, groups=groups
    )
    page = Page(text)
    assert page.handlers == [] and "img" not in page.tags
    # The data of the table of cases, and the page's own script.
    assert page.tags.count("script") == 2
    assert all(address.startswith("#") for address in page.addresses)
    assert "://" not in text and "@import" not in text and "url(" not in text
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None and policy[1].startswith("default-src 'none'")
    assert "unsafe-inline" not in policy[1].partition("script-src")[2]


def test_the_table_of_cases_has_the_rows_of_all_networks(written):
    text = written({"a": rows_of("xy", ["liver"]), "b": rows_of("xyz", ["liver"])})
    data = data_in(text)
    names = data["names"]
    assert names == [["x", "y", "z"], ["liver"], ["a", "b"]]
    assert sorted((names[0][r[0]], names[2][r[2]]) for r in data["rows"]) == [
        ("x", "a"), ("x", "b"), ("y", "a"), ("y", "b"), ("z", "b")
    ]  # fmt: skip


def test_the_first_words_claim_a_difference_only_where_it_is_shown(written):
    cases = [f"c{i}" for i in range(12)]
    good, worse = rows_of(cases, ["liver"]), rows_of(cases, ["liver"])
    for i, row in enumerate(worse):
        row["dice"] -= 0.2 + 0.001 * i
    shown = written({"good": good, "worse": worse})
    first = shown[: shown.index("<nav")]
    assert "liver: good over worse" in first and "worse over" not in first
    same = written({"a": good, "b": rows_of(cases, ["liver"], seed=7)})
    first = same[: same.index("<nav")]
    assert " over " not in first and "no difference shown" in first


def test_the_time_of_a_training_is_that_of_its_last_account(tmp_path):
    account = {"step": 4, "goodput": 0.75, "starts": 2.0, "unix_time_s": 1e9}
    account |= {"time_steps_s": 5400.0, "time_start_s": 1800.0}
    rows = [account | {"goodput": 0.1}, account | {"time_not_running_s": 9e9}, {}]
    (tmp_path / "config.json").write_text('{"config": {}}')
    for last, expected in (
        ({"step": 5}, ("2.00 h in 2 starts, 75.0% of it in steps (goodput)",)),
        ({"goodput": "most"}, ()),
    ):
        text = "".join(json.dumps(row) + "\n" for row in [*rows, last])
        (tmp_path / "metrics.jsonl").write_text(text)
        assert training_time({"unet": read_run(tmp_path)}) == expected


def test_plots_that_do_not_fit_are_counted(written, monkeypatch):
    monkeypatch.setattr(write, "PLOT_BYTES", 10_000)
    organs = [f"organ_{i}" for i in range(12)]
    text = written({"one": rows_of("abcdefgh", organs)})
    left = re.search(
        r"(\d+) box plots are left out, to keep this page below 5 MB", text
    )
    shown = text.count('aria-label="Box plot')
    assert left is not None and shown > 3 and int(left[1]) + shown == 24


def test_pictures_are_smaller_where_the_page_would_be_too_large(
    written, monkeypatch, tmp_path
):
    noise = np.random.default_rng(0).integers(0, 256, (300, 700), np.uint8)
    for case in "abcdefgh":
        Image.fromarray(noise).save(tmp_path / f"{case}.png")
    rows = rows_of("abcdefgh", ["liver"])
    options = {"folders": {"one": [tmp_path]}}
    whole = written({"one": rows}, **options)
    assert whole.count("data:image/webp") == 8 and "smaller than usual" not in whole
    limit = len(whole) - 150_000
    monkeypatch.setattr(write, "MAX_BYTES", limit)
    text = written({"one": rows}, **options)
    assert len(text.encode()) < limit and "smaller than usual" in text
    assert text.count("data:image/webp") > 0
    monkeypatch.setattr(write, "MAX_BYTES", 100_000)
    text = written({"one": rows}, **options)
    assert len(text.encode()) < 100_000 and "No pictures" in text


def test_of_too_many_cases_those_of_the_lowest_dice_are_listed():
    rows = rows_of([f"c{i}" for i in range(400)], ["liver"])
    text = case_section({"one": rows}, limit=14_000)
    assert len(text) < 14_000
    kept = data_in(text)["rows"]
    found = [row[3] for row in kept]
    assert 100 < len(found) < 400
    assert (
        found
        == [float(f"{d:.4g}") for d in sorted(r["dice"] for r in rows)][: len(found)]
    )
    assert f"{400 - len(found)} rows of the highest Dice are left out" in text


def test_groups_are_values_where_few_and_halves_of_numbers_where_many(tmp_path):
    path = tmp_path / "cases.csv"
    lines = ["case_id;age;sex;site;note"]
    lines += [f"c{i};{30 + i};{'fm'[i % 2]};{i % 3};free text {i}" for i in range(20)]
    path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    groups = read_groups(path, [f"c{i}" for i in range(20)])
    by_name = {attribute.name: attribute for attribute in groups.attributes}
    assert list(by_name) == ["age", "sex", "site"]
    assert by_name["age"].groups == ("below 39.5", "39.5 or more")
    assert by_name["age"].group_of["c9"] == "below 39.5"
    assert by_name["sex"].groups == ("f", "m")
    assert by_name["site"].groups == ("0", "1", "2")
    assert len(groups.left_out) == 1 and groups.left_out[0].startswith("note")


def test_a_groups_file_that_cannot_be_used_is_named_with_what_is_wrong(tmp_path):
    path = tmp_path / "cases.csv"
    for content, wrong in {
        "case_id,age\na,3\n": "case b",
        "case_id,age\na,3\nb,4\nb,5\n": "b is there twice",
        "name,age\na,3\n": "case_id",
        "": "case_id",
        "case_id\na\nb\n": "no column besides",
        "case_id,age,age\na,1,2\nb,1,2\n": "two columns",
    }.items():
        path.write_text(content)
        with pytest.raises(BadData, match=wrong) as caught:
            read_groups(path, ["a", "b"])
        assert str(caught.value).startswith(f"{path}: ")
