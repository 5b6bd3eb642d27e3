"""Every program says what it does, with examples that paste, without loading jax."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from launch import cli, config_file

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = [
    "data_prep.phantom",
    "data_prep.prepare",
    "data_prep.verify",
    "launch.train",
    "launch.predict",
    "launch.evaluate",
    "launch.score",
    "launch.compare",
    "launch.compile_for",
    "launch.tables",
    "launch.demo",
    "launch.figures",
    "launch.import_weights",
    "launch.parity",
    "launch.benchmark speed",
    "launch.benchmark memory",
    "launch.benchmark input",
    "launch.benchmark preparation",
    "launch.benchmark cpu_forms",
    "launch.benchmark metrics",
]
# All in one process: what one of them imports would be found in all.
ASK_ALL = """
import contextlib, io, json, runpy, sys
answers = {}
for program in sys.argv[1:]:
    module, *words = program.split()
    sys.argv = [module, *words, "--help"]
    status, printed = None, io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as end:
            status = end.code
    answers[program] = status, printed.getvalue()
print(json.dumps([answers, "jax" in sys.modules]))
"""


def python(*words: str, **options):
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def test_help_shows_examples_whose_flags_all_exist_and_needs_no_jax():
    done = python("-c", ASK_ALL, *PROGRAMS)
    assert done.returncode == 0, done.stderr
    answers, jax_was_imported = json.loads(done.stdout)
    assert not jax_was_imported
    for program, (status, output) in answers.items():
        assert status == 0, program
        documentation, flags = re.split(r"(?m)^(?:Flags|options):", output)
        known = set(re.findall(r"--([a-z][a-z0-9_.]*)", flags))
        # An example goes on in the next line only after one backslash.
        whole = documentation.replace("\\\n", " ")
        takes_words = "\n  RUN: " in documentation
        start = "[A-Za-z-]" if takes_words else "--"
        examples = re.findall(rf"python -m {re.escape(program)} ({start}.*)", whole)
        assert examples, program
        for example in examples:
            for word in shlex.split(example.split("   (")[0], comments=True):
                if takes_words and not word.startswith("-"):
                    continue
                flag = word.partition("=")[0].removeprefix("--")
                assert flag in known or "." in flag, (program, word)


def test_help_lists_the_fields_that_the_config_has_with_its_defaults():
    described = {name: default for name, default, _ in config_file.base_fields()}
    fields = dict(config_file.fields_of(config_file.load_config("base")))
    assert described.keys() == fields.keys()
    assert described["data.crop_shape"] == "96,160,160"
    assert described["model.remat"] == "false"
    text = cli.Flags("Does it.", config="demo").help()
    assert "--config.data.batch_size: Cases a step, over all devices and hosts" in text
    assert "(default 2; 1 or more)" in text


def test_a_folder_of_programs_lists_them_with_what_they_do():
    for package, program, purpose in [
        ("launch", "launch.train", "Trains a network"),
        ("launch", "launch.cluster.jobset", "JobSet"),
        ("launch", "data_prep", "lists more"),
        ("data_prep", "data_prep.verify", "every scan and label map"),
    ]:
        done = python("-m", package)
        assert done.returncode == 0, done.stderr
        (line,) = [x for x in done.stdout.splitlines() if f"-m {program} " in x]
        assert purpose in line


@pytest.mark.parametrize("module", ["launch.train", "data_prep.prepare"])
def test_a_python_without_the_packages_says_how_to_have_them(module):
    done = python("-S", "-E", "-m", module, "--help")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert (
        "has no package" in done.stderr and "source .venv/bin/activate" in done.stderr
    )
