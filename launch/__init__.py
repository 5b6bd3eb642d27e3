"""The programs of a run: `python -m launch` lists them.

A package that is not installed ends a program with one line on how to install it.
"""

import sys

from attunet_jax import interrupts

if sys.argv[0] == "-m":  # a program is being started: its imports take seconds
    interrupts.listen()


def _report_missing_package(kind, error, trace) -> None:
    own = ("attunet_jax", "configs", "data_prep", "launch")
    name = getattr(error, "name", None) or ""
    if not isinstance(error, ModuleNotFoundError) or name.startswith(own):
        sys.__excepthook__(kind, error, trace)
        return
    print(
        f"error: {sys.executable} has no package {name}: run "
        "'source .venv/bin/activate' in the project's folder, after 'make install'",
        file=sys.stderr,
    )
    raise SystemExit(2)


sys.excepthook = _report_missing_package
