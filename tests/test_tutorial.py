"""docs/tutorial.ipynb: its cells run as a script, and its stored outputs are there."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


def code_cells() -> list[dict]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_the_cells_run_where_a_notebook_in_docs_would_run_them(quick_program):
    code = "\n\n".join("".join(cell["source"]) for cell in code_cells())
    assert code.count("STEPS = 150\n") == 1
    done = subprocess.run(
        [sys.executable, "-c", code.replace("STEPS = 150", "STEPS = 3")],
        cwd=NOTEBOOK.parent,
        env=os.environ | quick_program | {"MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    assert "pancreas  Dice" in done.stdout


def test_it_is_stored_small_without_errors_and_with_its_pictures():
    assert NOTEBOOK.stat().st_size < 300_000
    outputs = [output for cell in code_cells() for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 3
    assert all(cell["execution_count"] for cell in code_cells())
