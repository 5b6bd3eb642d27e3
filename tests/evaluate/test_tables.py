"""Tables of made-up runs, worked out by hand, as text."""

import csv
import io
import json

import pytest

from attunet_jax.evaluate.tables import Result, table, to_csv, to_json, to_markdown

BETTER = [0.01, 0.02, 0.04, 0.08, 0.1, 0.2]


def row(case: str, organ: str, dice, distance_mm: float | None = 1.0) -> dict:
    return {
        "case_id": case,
        "organ": organ,
        "dice": dice,
        "precision": 0.5,
        "recall": dice,
        "surface_distance_mm": distance_mm,
    }


def result(rows, parameters=5_888_004, note="") -> Result:
    return Result(
        rows=rows,
        parameters=parameters,
        inference_s=0.25,
        train_cases=24,
        note=note,
    )


def make(results, number=1, paper=True) -> dict:
    return table(
        number,
        results,
        data="phantoms",
        inference="32x64x64 on one CPU",
        seed=0,
        paper=paper,
    )


def cells(text: str, label: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {label} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def two_runs(distances=(2.0, 1.0)) -> dict:
    worse = [row(f"c{i}", "pancreas", 0.5, distances[0] + i) for i in range(6)]
    better = [
        row(f"c{i}", "pancreas", 0.5 + gain, distances[1] + i - gain)
        for i, gain in enumerate(BETTER)
    ]
    return {
        ("unet", "80_20"): result(worse, note="demo network, 300 steps"),
        ("attention_unet", "80_20"): result(better, 6_407_402),
    }


def test_a_table_of_two_cases_and_one_network():
    rows = [
        row("a", "pancreas", 0.5, 2.0),
        row("b", "pancreas", 0.7, None),
        row("a", "kidney", 0.9),
        row("b", "kidney", 0.9),
    ]
    text = to_markdown(make({("unet", "80_20"): result(rows)}))
    table_lines = text.split("\n\n")[1].splitlines()
    # No column for a network without a result, no row for an organ without scores.
    assert table_lines == [
        "| Method (Train/Test Split) | U-Net (24/2; paper 120/30) |",
        "| --- | --- |",
        "| Pancreas DSC | 0.600 ± 0.100 (paper 0.814 ± 0.116) |",
        "| Pancreas Precision | 0.500 ± 0.000 (paper 0.848 ± 0.110) |",
        "| Pancreas Recall | 0.600 ± 0.100 (paper 0.806 ± 0.126) |",
        "| Pancreas S2S Dist (mm) | 2.000 ± 0.000 (n=1 of 2) (paper 2.358 ± 1.464) |",
        "| Kidney DSC | 0.900 ± 0.000 (paper 0.963 ± 0.013) |",
        "| Number of Params | 5,888,004 (paper 5.88 M) |",
        "| Inference Time | 0.250 s (paper 0.167 s) |",
    ]
    assert "Paired difference" not in text
    assert "- Ours: phantoms." in text
    assert "- Inference time: 32x64x64 on one CPU." in text


def test_without_the_papers_numbers_nothing_of_the_paper_is_left():
    for number, key in (1, ("unet", "80_20")), (3, ("unet", "aft")):
        runs = {**two_runs(), key: two_runs()["unet", "80_20"]}
        runs = runs if number == 1 else {key: runs[key]}
        built = make(runs, number, paper=False)
        for text in to_markdown(built), to_csv(built):
            assert "paper" not in text
        numbers = [cell["paper"] for q in built["quantities"] for cell in q["cells"]]
        assert set(numbers) == {None}
    table_1 = make(two_runs(), paper=False)
    text = to_markdown(table_1)
    assert cells(text, "Pancreas DSC")[0] == "0.500 ± 0.000"
    assert "- Data: phantoms." in text
    # The paired test of our own networks stays.
    assert "| Att U-Net (24/6) - U-Net (24/6) | Pancreas DSC | +0.075 [+0.0" in text
    assert to_csv(table_1).startswith(
        "Method (Train/Test Split),U-Net (24/6),Att U-Net (24/6)\nPancreas DSC,0.500"
    )


def test_the_better_of_two_networks_is_bold_where_they_differ():
    text = to_markdown(make(two_runs()))
    unet, attention, *_ = cells(text, "Pancreas DSC")
    assert unet == "0.500 ± 0.000 (paper 0.814 ± 0.116)"
    # The mean of BETTER is 0.075.
    assert attention.startswith("**0.575 ± 0.0")
    # Less is better for distances; precision is the same in both.
    assert cells(text, "Pancreas S2S Dist (mm)")[1].startswith("**")
    assert not cells(text, "Pancreas S2S Dist (mm)")[0].startswith("**")
    assert cells(text, "Pancreas Precision")[1].startswith("0.500")
    lines = [line for line in text.splitlines() if "Att U-Net (24/6) - U-Net" in line]
    assert lines[0].startswith(
        "| Att U-Net (24/6) - U-Net (24/6) | Pancreas DSC | +0.075 [+0.0"
    )
    assert lines[0].endswith("] | 0.031 | 6 |")
    assert lines[1] == (
        "| Att U-Net (24/6) - U-Net (24/6) | Pancreas Precision "
        "| +0.000 [+0.000, +0.000] | 1.000 | 6 |"
    )
    assert "- U-Net (24/6): demo network, 300 steps" in text


def test_the_network_with_larger_distances_is_not_bold():
    text = to_markdown(make(two_runs(distances=(1.0, 2.0))))
    unet, attention, *_ = cells(text, "Pancreas S2S Dist (mm)")
    assert unet.startswith("**") and not attention.startswith("**")


def test_too_few_pairs_are_said_and_nothing_is_bold():
    runs = two_runs()
    runs = {key: result(run.rows[:5]) for key, run in runs.items()}
    text = to_markdown(make(runs))
    assert "| +0.050 | not tested: 5 pairs, fewer than 6 | 5 |" in text
    assert not any(c.startswith("**") for c in cells(text, "Pancreas DSC"))


def test_organs_the_paper_does_not_have_get_a_row():
    rows = [row("a", "left_kidney", 0.8), row("a", "liver|x", 0.9)]
    built = make({("unet", "20_80"): result(rows)})
    text = to_markdown(built)
    assert cells(text, "Left kidney DSC") == ["0.800 ± 0.000"]
    assert "| Liver\\|x DSC |" in text
    labels = [quantity["label"] for quantity in built["quantities"]]
    assert labels == [
        "Left kidney DSC",
        "Liver|x DSC",
        "Number of Params",
        "Inference Time",
    ]


def test_csv_has_ours_and_the_paper_s_in_columns_of_their_own():
    heading, *lines = csv.reader(io.StringIO(to_csv(make(two_runs()))))
    assert heading[:5] == [
        "Method (Train/Test Split)",
        "U-Net (24/6)",
        "paper (120/30)",
        "Att U-Net (24/6)",
        "paper (120/30)",
    ]
    assert lines[0][:3] == ["Pancreas DSC", "0.500 ± 0.000", "0.814 ± 0.116"]
    assert lines[-2][:4] == ["Number of Params", "5,888,004", "5.88 M", "6,407,402"]
    assert {len(line) for line in lines} == {5}


def test_json_has_all_digits_and_the_tests():
    read = json.loads(to_json(make(two_runs())))
    dice = read["quantities"][0]
    assert (dice["organ"], dice["metric"]) == ("pancreas", "dice")
    assert dice["cells"][1]["ours"]["mean"] == pytest.approx(0.575, abs=1e-12)
    assert dice["cells"][1]["ours"]["better"] is True
    assert dice["cells"][1]["paper"] == {"mean": 0.84, "std": 0.087, "bold": True}
    assert len(dice["cells"]) == len(read["entries"]) == 2
    assert read["tests"][0]["p"] == pytest.approx(1 / 32)
    assert read["tests"][0]["better"] == "attention_unet"
    assert read["entries"][0]["note"] == "demo network, 300 steps"


@pytest.mark.parametrize(
    ("number", "key", "name", "paper"),
    [
        (2, ("unet_huge", "80_20"), "U-Net, huge (24/6; paper 120/30)", "0.825"),
        (3, ("unet", "aft"), "AFT U-Net (24/6; paper 61/21)", "0.820"),
    ],
)
def test_tables_2_and_3_have_a_network_a_row(number, key, name, paper):
    rows = two_runs()["unet", "80_20"].rows
    built = make({key: result(rows)}, number)
    found = cells(to_markdown(built), name)
    assert found[0].startswith(f"0.500 ± 0.000 (paper {paper} ±")
    assert len(found) == len(built["quantities"])
    lines = list(csv.reader(io.StringIO(to_csv(built))))
    assert len(lines) == 1 + len(built["entries"])
    assert [line[1] for line in lines if line[0] == name] == ["0.500 ± 0.000"]


def test_a_network_that_the_table_does_not_have_is_refused():
    with pytest.raises(KeyError, match="table 2 has no entry"):
        make({("unet", "80_20"): result([])}, number=2)


def test_somebody_else_s_network_stands_beside_ours():
    theirs = result([row(f"c{i}", "pancreas", 0.25) for i in range(6)], None)
    built = table(
        1,
        two_runs(),
        data="phantoms",
        inference="",
        seed=0,
        added={("nnU-Net", "80_20"): theirs},
    )
    text = to_markdown(built)
    assert "| Att U-Net (24/6; paper 120/30) | nnU-Net (24/6" in text
    assert cells(text, "Pancreas DSC")[2].startswith("0.250 ± 0.000")
    assert cells(text, "Number of Params")[2] == "-"


def test_seeds_of_one_network_are_averaged_case_by_case():
    rows = [
        {**row(case, "pancreas", dice), "seed": seed}
        for seed, values in ((0, (0.2, 0.6)), (1, (0.4, 0.8)))
        for case, dice in zip("ab", values, strict=True)
    ]
    run = result(rows)
    assert run.test_cases == 2
    text = to_markdown(make({("unet", "80_20"): run}, paper=False))
    # Case means 0.3 and 0.7.
    assert cells(text, "Pancreas DSC")[0].startswith("0.500 ± 0.200")


def test_table_4_has_our_five_folds_beside_the_published_methods():
    rows = [row(f"c{i}", "pancreas", 0.5) for i in range(10)]
    results = {("attention_unet", "5_fold"): result(rows)}
    text = to_markdown(make(results, 4))
    assert "0.500 ± 0.000" in text and "(paper 0.815 ± 0.062)" in text
    assert cells(text, "Multi-Model 2D FCN [38]")[1] == "0.822 ± 0.057"
    assert "FCN" not in to_markdown(make(results, 4, paper=False))
