"""Every program says what it does, with an example, without loading jax."""

import re

import pytest

PROGRAMS = [
    "data_prep.phantom",
    "data_prep.prepare",
    "launch.train",
    "launch.predict",
    "launch.evaluate",
    "launch.compile_for",
    "launch.tables",
    "launch.demo",
    "launch.parity",
    "launch.benchmark speed",
    "launch.benchmark preparation",
]


@pytest.mark.parametrize("module", PROGRAMS)
def test_help_shows_an_example_whose_flags_all_exist(run_program, finish, module):
    status, output, errors = finish(run_program(*module.split(), "--help"))
    assert (status, errors) == (0, "")
    example, flags = re.split(r"(?m)^(?:Flags|options):", output)
    assert f"python -m {module} --" in output
    told = set(re.findall(r"--([a-z][a-z0-9_]*)", flags))
    for line in re.findall(rf"python -m {re.escape(module)} .*", example):
        for flag in re.findall(r"--([a-z][a-z0-9_]*)", line):
            assert flag in told or flag == "config", (flag, told)


def test_a_flag_that_does_not_exist_is_named(refused):
    status, line = refused("launch.train", "--wrokdir=x")
    assert status == 2 and "wrokdir" in line
