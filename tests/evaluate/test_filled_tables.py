"""Tables of made-up runs, worked out by hand, as text."""

import csv
import io
import json

import pytest

from attunet_jax.evaluate.tables import (
    Result,
    table,
    table_files,
    to_csv,
    to_json,
    to_latex,
    to_markdown,
)

BETTER = [0.01, 0.02, 0.04, 0.08, 0.1, 0.2]


def row(case: str, organ: str, dice, distance_mm: float | None = 1.0) -> dict:
    return {
        "case_id": case,
        "organ": organ,
        "dice": dice,
        "precision": 0.5,
        "recall": dice,
        "surface_distance_mm": distance_mm,
        "diagonal_mm": 200.0,
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
    lines = text.partition("### ")[0].splitlines()
    (line,) = (line for line in lines if line.startswith(f"| {label} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def compared(text: str, label: str) -> list[str]:
    """The cells of the comparison of this quantity."""
    lines = text.partition("### Comparisons")[2].splitlines()
    (line,) = (line for line in lines if f"| {label} |" in line)
    return [cell.strip() for cell in line.strip("|").split("|")]


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
    # Student's t with one degree of freedom: 12.706 * 0.1 around 0.6.
    assert table_lines == [
        "| Method (Train/Test Split) | U-Net (24/2; paper 120/30) |",
        "| --- | --- |",
        "| Pancreas DSC | 0.600 ± 0.100 [-0.671, 1.871], n=2 (paper 0.814 ± 0.116) |",
        "| Pancreas Precision | 0.500 ± 0.000 [0.500, 0.500], n=2 "
        "(paper 0.848 ± 0.110) |",
        "| Pancreas Recall | 0.600 ± 0.100 [-0.671, 1.871], n=2 "
        "(paper 0.806 ± 0.126) |",
        "| Pancreas S2S Dist (mm) | 2.000 ± 0.000, n=1, 1 undefined "
        "(101.000 with 1 missed) (paper 2.358 ± 1.464) |",
        "| Kidney DSC | 0.900 ± 0.000 [0.900, 0.900], n=2 (paper 0.963 ± 0.013) |",
        "| Number of Params | 5,888,004 (paper 5.88 M) |",
        "| Inference Time | 0.250 s (paper 0.167 s) |",
    ]
    assert "### " not in text
    assert "- Ours: phantoms." in text
    assert "- Intervals are unreliable: n=1, fewer than 50 cases." in text
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
    assert cells(text, "Pancreas DSC")[0] == "0.500 ± 0.000 [0.500, 0.500], n=6"
    assert "- Data: phantoms." in text
    # The comparison of our own networks stays.
    assert compared(text, "Pancreas DSC")[0] == "Att U-Net (24/6) - U-Net (24/6)"
    assert to_csv(table_1).startswith(
        'Method (Train/Test Split),U-Net (24/6),Att U-Net (24/6)\nPancreas DSC,"0.500'
    )


def test_the_better_of_two_networks_is_bold_where_the_interval_leaves_out_0():
    text = to_markdown(make(two_runs()))
    unet, attention, *_ = cells(text, "Pancreas DSC")
    assert unet == "0.500 ± 0.000 [0.500, 0.500], n=6 (paper 0.814 ± 0.116)"
    # The mean of BETTER is 0.075.
    assert attention.startswith("**0.575 ± 0.0")
    # Less is better for distances; precision is the same in both.
    assert cells(text, "Pancreas S2S Dist (mm)")[1].startswith("**")
    assert not cells(text, "Pancreas S2S Dist (mm)")[0].startswith("**")
    assert cells(text, "Pancreas Precision")[1].startswith("0.500")
    # t = 2.5706 at 5 degrees; the deviation of BETTER is 0.070071.
    pair, _, difference, p, p_holm, false, _, better, n = compared(text, "Pancreas DSC")
    assert pair == "Att U-Net (24/6) - U-Net (24/6)"
    assert difference == "**+0.075** [+0.001, +0.149]"
    # Four comparisons; three have p = 2 / 2**6, Holm: four times it.
    assert (p, p_holm, n) == ("0.031", "0.125", "6")
    assert (better, float(false) < 0.025) == ("Att U-Net (24/6)", True)
    assert compared(text, "Pancreas Precision")[2:] == [
        "+0.000 [+0.000, +0.000]",
        *("1.000", "1.000", "0.500", "0.000", "-", "6"),
    ]
    assert "- U-Net (24/6): demo network, 300 steps" in text


def test_the_network_with_larger_distances_is_not_bold():
    text = to_markdown(make(two_runs(distances=(1.0, 2.0))))
    unet, attention, *_ = cells(text, "Pancreas S2S Dist (mm)")
    assert unet.startswith("**") and not attention.startswith("**")


def test_from_too_few_pairs_nothing_is_called_better():
    runs = {key: result(run.rows[:5]) for key, run in two_runs().items()}
    text = to_markdown(make(runs))
    assert compared(text, "Pancreas DSC")[7:] == ["-", "5"]
    assert not any(c.startswith("**") for c in cells(text, "Pancreas DSC"))


def test_a_missed_organ_is_shown_with_its_penalty_and_wins_nothing():
    runs = two_runs()
    # The Attention U-Net is nearer in every case but a seventh, which it misses.
    runs["unet", "80_20"].rows.append(row("c6", "pancreas", 0.5, 2.0))
    runs["attention_unet", "80_20"].rows.append(row("c6", "pancreas", 0.0, None))
    text = to_markdown(make(runs))
    attention = cells(text, "Pancreas S2S Dist (mm)")[1]
    # (sum of the six, 20.55, + 200) / 7.
    assert "n=6, 1 undefined (31.507 with 1 missed)" in attention
    assert not attention.startswith("**")
    line = compared(text, "Pancreas S2S Dist (mm)")
    # (6 * -1.075 + 198) / 7.
    assert line[2].startswith("-1.075 [") and "(+27.364 with 1 missed)" in line[2]
    assert line[7:] == ["-", "6, 1 undefined"]


def test_organs_the_paper_does_not_have_get_a_row():
    rows = [row("a", "left_kidney", 0.8), row("a", "liver|x", 0.9)]
    built = make({("unet", "20_80"): result(rows)})
    text = to_markdown(built)
    # None of them is the paper's: they get what the paper gives of the pancreas.
    assert cells(text, "Left kidney DSC") == ["0.800 ± 0.000, n=1"]
    assert "| Liver\\|x DSC |" in text
    labels = [quantity["label"] for quantity in built["quantities"]]
    assert labels[0] == "Left kidney DSC" and labels[3] == "Left kidney S2S Dist (mm)"
    assert labels[4:] == [
        *("Liver|x DSC", "Liver|x Precision", "Liver|x Recall"),
        *("Liver|x S2S Dist (mm)", "Number of Params", "Inference Time"),
    ]
    # Beside one of the paper's, Dice. An organ that no case has gets no row.
    rows += [row("a", "spleen", 0.7), {"case_id": "a", "organ": "pancreas"}]
    built = make({("unet", "20_80"): result(rows)})
    labels = [quantity["label"] for quantity in built["quantities"]]
    assert labels[:3] == ["Spleen DSC", "Left kidney DSC", "Liver|x DSC"]
    built = make({("unet", "scr"): result(rows[:1])}, number=3)
    assert "Left kidney Recall" in to_markdown(built)


def test_csv_has_ours_and_the_paper_s_in_columns_of_their_own():
    heading, *lines = csv.reader(io.StringIO(to_csv(make(two_runs()))))
    assert heading == [
        "Method (Train/Test Split)",
        "U-Net, paper (120/30)",
        "U-Net (24/6)",
        "Att U-Net, paper (120/30)",
        "Att U-Net (24/6)",
    ]
    assert lines[0][:3] == [
        "Pancreas DSC",
        "0.814 ± 0.116",
        "0.500 ± 0.000 [0.500, 0.500], n=6",
    ]
    assert lines[-2][1:] == ["5.88 M", "5,888,004", "6.40 M", "6,407,402"]
    assert {len(line) for line in lines} == {5}


def test_scores_are_written_in_the_long_form_of_challenge_r():
    runs = two_runs()
    runs["unet", "80_20"].rows[0]["surface_distance_mm"] = None
    files = table_files(make(runs), runs)
    heading, *lines = csv.reader(io.StringIO(files["table1_cases.csv"]))
    assert heading == ["task", "case", "algorithm", "value"]
    assert lines[1] == ["80_20 pancreas dice", "c1", "U-Net", "0.5"]
    assert ["80_20 pancreas surface_distance_mm", "c0", "U-Net", "NA"] in lines
    assert len(lines) == 4 * 2 * 6
    (first, *_) = csv.DictReader(io.StringIO(files["table1_comparisons.csv"]))
    assert (first["first"], first["second"]) == ("unet", "attention_unet")
    assert float(first["mean_difference"]) == pytest.approx(0.075)


def test_latex_has_columns_of_numbers_and_nothing_that_latex_would_read():
    rows = [row("a", "a_b & 50%", 0.5, 12.25), row("b", "a_b & 50%", 0.7, 1.25)]
    text = to_latex(make({("unet", "80_20"): result(rows)}))
    # 6.750 ± 5.500: one digit before the point, four in the deviation. The paper has
    # no such organ: its column holds words alone.
    assert "\\begin{tabular}{llS[table-format=1.3(4)]}" in text
    assert "{A b \\& 50\\% DSC} & {-} & 0.600 \\pm 0.100 \\\\" in text
    assert " &  & {\\scriptsize [-0.671, 1.871], n=2} \\\\" in text
    assert text.count("\\toprule") == text.count("\\bottomrule") == 1
    both = to_latex(make(two_runs(), paper=False))
    assert "& \\bfseries 0.575 \\pm 0.064 \\\\" in both
    assert both.count("\\toprule") == 2
    assert both.count("{") == both.count("}")


def test_json_has_all_digits_and_the_comparisons():
    read = json.loads(to_json(make(two_runs())))
    dice = read["quantities"][0]
    assert (dice["organ"], dice["metric"]) == ("pancreas", "dice")
    assert dice["cells"][1]["ours"]["mean"] == pytest.approx(0.575, abs=1e-12)
    assert dice["cells"][1]["ours"]["better"] is True
    assert dice["cells"][1]["paper"] == {"mean": 0.84, "std": 0.087, "bold": True}
    assert len(dice["cells"]) == len(read["entries"]) == 2
    assert read["comparisons"][0]["p"] == pytest.approx(1 / 32)
    assert read["comparisons"][0]["better"] == "attention_unet"
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
    assert f"n=6 (paper {paper} ±" in found[0]
    assert len(found) == len(built["quantities"])
    # In CSV the paper's numbers have a line of their own.
    lines = list(csv.reader(io.StringIO(to_csv(built))))
    assert len(lines) == 1 + 2 * len(built["entries"])
    assert lines[1][1].startswith(paper) and lines[2][1].startswith("0.500 ± 0.000")


def test_a_network_that_the_table_does_not_have_is_refused():
    with pytest.raises(KeyError, match="table 2 has no entry"):
        make({("unet", "80_20"): result([])}, number=2)


def test_somebody_else_s_network_stands_beside_ours_and_three_are_ranked():
    theirs = result([row(f"c{i}", "pancreas", 0.25) for i in range(6)], None)
    built = table(
        1,
        two_runs(),
        data="phantoms",
        inference="",
        added={("nnU-Net", "80_20"): theirs},
    )
    text = to_markdown(built)
    assert "| Att U-Net (24/6; paper 120/30) | nnU-Net (24/6)" in text
    assert cells(text, "Pancreas DSC")[2].startswith("0.250 ± 0.000")
    assert cells(text, "Number of Params")[2] == "-"
    assert "| nnU-Net (24/6) - Att U-Net (24/6) | Pancreas DSC" in text
    # Bold: better than both others.
    assert [c.startswith("**") for c in cells(text, "Pancreas DSC")] == [0, 1, 0]
    assert "| Pancreas DSC | nnU-Net (24/6) | 3 [3, 3] | 6 |" in text
    assert "### Ranks" not in to_markdown(make(two_runs()))


def test_seeds_of_one_network_are_averaged_case_by_case_and_split_apart():
    rows = [
        {**row(case, "pancreas", dice), "seed": seed}
        for seed, values in ((0, (0.2, 0.6)), (1, (0.4, 0.8)))
        for case, dice in zip("ab", values, strict=True)
    ]
    run = result(rows)
    assert run.test_cases == 2
    text = to_markdown(make({("unet", "80_20"): run}, paper=False))
    # Case means 0.3 and 0.7; seed means 0.4 and 0.6; nothing else.
    assert cells(text, "Pancreas DSC")[0].startswith("0.500 ± 0.200 [")
    (line,) = (
        x
        for x in text.partition("### Seeds")[2].splitlines()
        if "| Pancreas DSC |" in x
    )
    assert "| 0.283 | 0.141 | 0.000 | 0.400, 0.600 | 2 |" in line
    assert "of each case's mean over the seeds" in text


def test_table_4_has_our_five_folds_beside_the_published_methods():
    rows = [row(f"c{i}", "pancreas", 0.5) for i in range(10)]
    run = Result(rows, 5, 0.1, 8, "", folds=5)
    text = to_markdown(make({("attention_unet", "5_fold"): run}, 4))
    ours = ["phantoms", "0.500 ± 0.000 [0.500, 0.500], n=10", "8/2", "5-CV"]
    assert cells(text, "Attention U-Net") == ours
    paper = ["CT-82", "0.815 ± 0.062", "-", "5-CV"]
    assert cells(text, "Attention U-Net, paper (5-CV)") == paper
    published = ["CT-82", "0.822 ± 0.057", "62/20", "4-CV"]
    assert cells(text, "Multi-Model 2D FCN [38]") == published
    without = make({("attention_unet", "5_fold"): run}, 4, paper=False)
    assert "FCN" not in to_markdown(without)
    assert cells(to_markdown(without), "Attention U-Net") == ours
    key = "nnU-Net", "5_fold"
    built = table(
        4,
        {("attention_unet", "5_fold"): run},
        data="phantoms",
        inference="",
        added={key: Result(rows, None, None, None, "")},
    )
    theirs = ["phantoms", "0.500 ± 0.000 [0.500, 0.500], n=10", "?/10", "-"]
    assert cells(to_markdown(built), "nnU-Net") == theirs
    assert "- Scored on the grid of the prepared data" in to_markdown(built)
