"""launch.figures: what a run has figures for is drawn, the rest named; mistakes."""

import json
import re

import pytest

from attunet_jax.errors import BadArguments, BadData
from attunet_jax.evaluate import slices
from launch import figures


@pytest.fixture
def draw(capsys, loaded_once):
    """Draws in this process; returns (status, what was printed)."""

    def here(*words):
        try:
            figures.main(figures.FLAGS.parse(list(map(str, words))))
        except (BadArguments, BadData) as error:
            return error.status, f"{''.join(capsys.readouterr())}{error}"
        return 0, capsys.readouterr().out

    return here


def test_all_three_figures_are_drawn_of_a_test_case(
    draw, gated, prepared, s3, tmp_path, monkeypatch
):
    """Into a bucket; without the figures themselves, which take a second each."""

    def save(figure, path, **_):
        texts = figure.subfigs[1].texts[0].get_text().split()
        path.write_text(" ".join(texts))

    monkeypatch.setattr(slices, "save", save)
    url = f"{s3.make()}/out"
    status, said = draw(
        *(f"--workdir={gated}", f"--against={gated}", f"--output={url}"),
        f"--cache_dir={tmp_path}",
    )
    assert status == 0 and said.count(f"wrote {url}/figure_") == 6
    assert "left out" not in said
    captions = {name: text.decode() for name, text in s3.contents(url).items()}
    assert captions.keys() == {
        f"figure_{name}.{ending}"
        for name in ("3a", "3b", "4")
        for ending in ("png", "pdf")
    }
    splits = json.loads((prepared / "splits.json").read_text())["splits"]["80_20"]
    for path, text in captions.items():
        assert text.startswith(f"Figure {path[7:].partition('.')[0]}. Case "), text
        assert text.split()[3].rstrip(",") in splits["test"]


def test_what_cannot_be_drawn_is_named_and_what_cannot_be_meant_refused(
    draw, gated, trained, prepared, tmp_path
):
    run = f"--workdir={gated}"
    for words, line in (
        (("--figures=3b",), "--figures=3b: needs --against"),
        (("--figures=5",), "--figures=5: is none of 3a, 3b, 4"),
        (("--steps=3,12",), "--steps=3: .* has the steps 2, 12"),
        (("--steps=soon",), "--steps=soon: must be"),
        (("--organ=liver",), "--organ=liver: is none of spleen, pancreas, kidney"),
        (("--case=nobody",), "has no case 'nobody'"),
        (("--config.model.sub_gates=1",), "--config.model.sub_gates: the run in"),
    ):
        output = tmp_path / "none"
        status, said = draw(run, *words, f"--output={output}")
        assert status == 2 and "\n" not in said, said
        assert not output.exists()
        assert re.search(line, said), said
    status, said = draw(f"--workdir={trained[0]}")
    assert status == 2 and "no attention gates" in said and "--against" in said
    assert draw(f"--workdir={tmp_path}")[0] == 3
