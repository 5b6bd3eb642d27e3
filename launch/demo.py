"""The whole job on data it makes itself: phantoms, records, training, a Table 1.

    python -m launch.demo --output=demo_output
    python -m launch.demo --output=longer --config.train.steps=2000

What `make demo` runs. Prints each command before running it; a second run goes on with
what is there. The scans are phantoms, the networks small and trained for minutes: the
figures show that every stage works and say nothing about real scans.
"""

import shlex
import subprocess
import sys
import time
from pathlib import Path

from attunet_jax.errors import BadArguments
from attunet_jax.files import make_folder
from launch import cli

FLAGS = cli.Flags(__doc__, config="demo")
FLAGS.add("output", str, "demo_output", "Folder for everything the demo makes.")
FLAGS.add("cases", int, 40, "Phantoms to make.")

ABOUT = (
    "Phantoms, not patients; a small network, minutes of training: these figures show "
    "that every stage works, nothing about accuracy on real scans."
)


def main(values: cli.Values) -> None:
    if values.cases < 10:
        raise BadArguments(f"--cases={values.cases}: a table needs at least 10")
    output = Path(values.output)
    make_folder(output)
    began = time.perf_counter()
    scans, data, runs = output / "scans", output / "data", output / "runs"
    _run("data_prep.phantom", output=scans, cases=values.cases, seed=1)
    _run(
        "data_prep.prepare",
        source="nifti",
        input=scans,
        output=data,
        labels="spleen=1,pancreas=2,kidney=3",
        spacing_mm=4,
        test_fraction=0.2,
    )
    _run(
        "launch.tables",
        *values.config_words(),
        table=1,
        data=data,
        workdir=runs,
        splits="80_20",
        about=ABOUT,
    )
    trained = runs / "80_20" / "attention_unet"
    scan = sorted((scans / "images").iterdir())[0]
    _run(
        "launch.predict",
        workdir=trained,
        input=scan,
        output=output / "predictions",
        overwrite="true",
    )
    minutes = (time.perf_counter() - began) / 60
    pictures = ", ".join(str(p) for p in sorted(trained.glob("evaluation/test/*.png")))
    print(
        f"\nDone in {minutes:.1f} minutes. {ABOUT}\n"
        f"table     {runs / 'table1.md'}\n"
        f"pictures  {pictures}\n"
        f"          {trained / 'progress.png'} (learning curve)\n"
        f"label map {output / 'predictions'} (on the scan's own grid)\n"
        "next      your own scans: see 'Train on your own scans' in README.md"
    )


def _run(module: str, *more: str, **options: object) -> None:
    """Runs a program of the project as a user would, and stops where it fails."""
    words = [f"--{name}={value}" for name, value in options.items()] + list(more)
    print(f"\n$ python -m {module} {shlex.join(words)}", flush=True)
    status = subprocess.run([sys.executable, "-m", module, *words]).returncode
    if status:
        raise SystemExit(status)


if __name__ == "__main__":
    cli.run(FLAGS, main)
