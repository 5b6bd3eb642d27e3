"""The flag system: values of every kind, the config's fields, messages."""

import importlib
from pathlib import Path

import pytest

from attunet_jax.errors import BadArguments
from data_prep import plan
from launch import cli, config_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def flags():
    own = cli.Flags("Does it.", config="attention_unet")
    own.add("workdir", Path, None, "Where.", required=True)
    own.add("size", str, "small", "Which.", choices=("small", "full"))
    own.add("spacing_mm", cli.spacing_mm, (2.0, 2.0, 2.0), "D,H,W.")
    own.add("splits", cli.names, None, "Which.")
    own.add("strict", bool, False, "Whether.")
    own.add("cases", int, 40, "How many.")
    return own


def test_each_kind_of_flag_has_its_default_and_its_value(flags):
    values = flags.parse(["--workdir=RUN"])
    assert values.workdir == Path("RUN")
    assert (values.size, values.strict, values.cases) == ("small", False, 40)
    assert (values.spacing_mm, values.splits) == ((2, 2, 2), None)
    words = ["--workdir", "RUN", "--strict", "--cases=3", "--spacing_mm=1.5"]
    values = flags.parse([*words, "--splits=80_20,20_80", "--size=full"])
    assert (values.size, values.strict, values.cases) == ("full", True, 3)
    assert values.spacing_mm == (1.5, 1.5, 1.5)
    assert values.splits == ["80_20", "20_80"]
    # A second command line in the same process begins with the defaults again.
    assert flags.parse(["--workdir=RUN", "--nostrict"]).cases == 40


def test_config_fields_take_the_type_of_their_default(flags):
    values = flags.parse(
        [
            "--workdir=RUN",
            "--config.data.batch_size=4",
            "--config.data.crop_shape=(16, 24,32)",
            "--config.augment.zoom_range=1,1.5",
            "--config.classes=background, 'liver'",
            "--config.model.remat",
            "--config.optimizer.learning_rate=1e-3",
        ]
    )
    config = values.config
    assert config.data.batch_size == 4 and config.data.crop_shape == (16, 24, 32)
    assert config.augment.zoom_range == (1.0, 1.5)
    assert config.classes == ("background", "liver")
    assert config.model.remat is True
    assert config.optimizer.learning_rate == 0.001
    assert config.is_locked and len(values.fields) == 6
    again = flags.parse(["--workdir=RUN", *values.config_words()])
    assert again.config == config


def test_of_a_flag_that_is_given_twice_the_last_counts_whatever_its_type(flags):
    values = flags.parse(
        [
            "--workdir=RUN1",
            "--splits=a,b",
            "--config.model.widths=(4,6)",
            "--config.data.batch_size=3",
            "--config.classes=background,liver",
            "--config.model.widths=8,8,8",
            "--config.data.batch_size=4",
            "--config.classes=background,spleen",
            "--splits=c",
            "--workdir=RUN2",
        ]
    )
    config = values.config
    assert (values.workdir, values.splits) == (Path("RUN2"), ["c"])
    assert config.model.widths == (8, 8, 8) and config.data.batch_size == 4
    assert config.classes == ("background", "spleen")


def test_what_a_config_file_holds_is_checked_like_the_command_line(flags, tmp_path):
    own = tmp_path / "mine.py"
    for line, message in [
        ("data.batch_size = 0", "--config.data.batch_size=0: must be 1 or more"),
        ("data.batchsize = 2", "--config.data.batchsize: no such field, did you mean"),
        ("data.crop_shape = (48,)", "crop_shape=48: must be three whole numbers"),
        ("data.batch_size = 'lots'", "data.batch_size=lots: must be a whole number"),
        ("data.crop_shape = 48", "data.crop_shape=48: must be three whole numbers"),
        ("optimizer.name = 'lion'", "optimizer.name=lion: must be one of adam, sgd"),
    ]:
        own.write_text(
            "from configs import base\n\n\ndef get_config():\n"
            f"    config = base.get_config()\n    config.{line}\n    return config\n"
        )
        with pytest.raises(BadArguments, match=message) as caught:
            flags.parse(["--workdir=RUN", f"--config={own}"])
        text = str(caught.value)
        assert "\n" not in text and "\\" not in text


def test_a_config_is_found_by_name_and_by_path_from_any_folder(
    flags, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "configs/demo.py", str(config_file.CONFIGS / "demo.py")):
        for words in ([f"--config={name}"], ["--config", name]):
            assert flags.parse(["--workdir=RUN", *words]).config.name == "demo"
    own = tmp_path / "mine.py"
    own.write_text(
        "from configs import base\n\n\ndef get_config():\n"
        "    config = base.get_config()\n    config.name = 'mine'\n    return config\n"
    )
    values = flags.parse(["--workdir=RUN", "--config=mine.py", "--config.seed=3"])
    assert (values.config.name, values.config.seed) == ("mine", 3)


@pytest.mark.parametrize(
    "word, message",
    [
        (
            "--config.data.batchsize=2",
            "--config.data.batchsize: no such field, did you mean "
            "--config.data.batch_size?",
        ),
        ("--batch_size=2", "--batch_size, did you mean --config.data.batch_size?"),
        ("--wrokdir=x", "unknown flag --wrokdir, did you mean --workdir?"),
        (
            "--config.data.batch_size=lots",
            "--config.data.batch_size=lots: must be a whole number",
        ),
        (
            "--config.data.crop_shape=48",
            "--config.data.crop_shape=48: must be three whole numbers, each 1 or more",
        ),
        ("--config.data.crop_shape=1,2,x", "must be three whole numbers"),
        ("--config.model.widths=a", "must be two or more whole numbers"),
        ("--config.model.remat=maybe", "must be true or false"),
        ("--config.data.batch_size=0", "--config.data.batch_size=0: must be 1 or more"),
        ("--config.predict.checkpoint=bset", "must be best, latest or the number"),
        ("--config.optimizer.name=adamw", "must be one of adam, sgd"),
        ("--config.optimizer.learning_rate=nan", "must be a number, above 0"),
        ("--learning-rate=1", "did you mean --config.optimizer.learning_rate?"),
        ("--config.train.batch_size=1", "did you mean --config.data.batch_size?"),
        (
            "--config.model.rematerialise=True",
            "--config.model.rematerialise is now --config.model.remat",
        ),
        ("--cases=1.5", "--cases=1.5: must be a whole number"),
        ("--size=huge", "--size=huge: must be one of small, full"),
        ("--spacing_mm=1,2", "--spacing_mm=1,2: must be one or three numbers"),
        ("--cases", "Missing value for flag --cases"),
    ],
)
def test_a_mistake_names_the_flag_and_what_it_takes(flags, word, message):
    with pytest.raises(BadArguments) as caught:
        flags.parse(["--workdir=RUN", word])
    text = str(caught.value)
    assert message in text and "\n" not in text and "\\" not in text
    assert text.endswith("(--help lists the flags)")


def test_what_is_missing_surplus_or_broken_is_named(flags, tmp_path):
    broken = tmp_path / "broken.py"
    for text, message in [
        ("def get_config(:", "not Python"),
        ("import nothing_of_this_name", "No module named 'nothing_of_this_name'"),
        ("x = 1", "get_config"),
    ]:
        broken.write_text(text)
        with pytest.raises(BadArguments, match=message):
            flags.parse(["--workdir=RUN", f"--config={broken}"])
    for words, message in [
        ([], "--workdir=... is needed"),
        (["--workdir="], "--workdir=... is needed"),
        (["--workdir=RUN", "surplus"], "surplus: every argument is --name=value"),
        (["--workdir=RUN", "--config=unet3"], "unet3: no such file; there are .*demo"),
    ]:
        with pytest.raises(BadArguments, match=message):
            flags.parse(words)


def test_a_finished_run_takes_fields_of_prediction_alone(flags):
    field = "--config.predict.checkpoint=latest"
    values = flags.parse(["--workdir=RUN", field])
    assert values.predict_fields() == {"checkpoint": "latest"}
    for word in ("--config.data.batch_size=3", "--config=demo"):
        with pytest.raises(BadArguments, match="only --config.predict"):
            flags.parse(["--workdir=RUN", field, word]).predict_fields()


URLS = (
    "gs://bucket/run",
    "s3://bucket/x",
    "gs://b/x",  # too short for a bucket's name
    "hf://bucket/x",
    "file:///data",
    "https://x.org/a",
    "GS://b",
    "a+b:/c",
)


# Kind of a flag -> the URLs that it takes, as others would read and write them.
IN_BUCKETS = {
    cli.readable: ("gs://bucket", "s3://bucket"),
    cli.writable: ("gs://bucket", "s3://bucket"),
    cli.workdir: ("gs://bucket",),
}


def path_flags():
    """(module, its flags' declarations) of all programs."""
    for file in sorted([*ROOT.glob("launch/**/*.py"), *ROOT.glob("data_prep/*.py")]):
        if "FLAGS = cli.Flags" in file.read_text():
            module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            yield module, importlib.import_module(module).FLAGS


def test_a_url_is_taken_where_buckets_are_and_makes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = set()
    for module, flags in path_flags():
        needed = [
            f"--{f.name}={f.choices[0] if f.choices else 'x'}"
            for f in flags._flags
            if f.required
        ]
        needed += ["RUN", "RUN"] if flags._words else []
        for flag in flags._flags:
            if flag.kind is not Path and flag.kind not in IN_BUCKETS:
                assert flag.name not in ("workdir", "data", "input", "output"), module
                continue
            seen.add(flag.name)
            taken = IN_BUCKETS.get(flag.kind, ())
            for url in URLS:
                if url.startswith(taken):
                    values = flags.parse([*needed, f"--{flag.name}={url}/"])
                    assert getattr(values, flag.name) == url
                    continue
                with pytest.raises(BadArguments) as caught:
                    flags.parse([*needed, f"--{flag.name}={url}"])
                text = str(caught.value)
                assert text.startswith(f"--{flag.name}={url}: "), module
                assert "must be a path of this machine" in text or "mount" in text
                assert "\n" not in text
        if flags._config:
            for word in ("data.directory=hf://bucket/x", "init_from=s3://bucket/x"):
                with pytest.raises(BadArguments, match=f"--config.{word}: must be"):
                    flags.parse([*needed, f"--config.{word}"])
    assert seen >= {"workdir", "data", "input", "output", "sources", "golden"}
    for words in (["--input=az://b", "--output=x"], ["--input=x", "--output=az://b"]):
        with pytest.raises(BadArguments, match="put=az://b: must be a path of this"):
            plan.parse(["--source=nifti", *words])
    assert [*tmp_path.iterdir()] == []


def test_a_url_is_no_folder_for_the_library_and_the_caches(tmp_path, monkeypatch):
    import attunet_jax as aj
    from attunet_jax.files import cache_home, make_folder, write_text

    monkeypatch.chdir(tmp_path)
    for use in (
        aj.load,
        aj.read_scan,
        lambda path: make_folder(Path(path)),
        lambda path: write_text(Path(path), ""),
        lambda path: aj.load(Path(path)),
    ):
        with pytest.raises(BadArguments, match="gs:/.*must be a path of this machine"):
            use("gs://bucket/run")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "gs://bucket/cache")
    with pytest.raises(BadArguments, match="JAX_COMPILATION_CACHE_DIR=gs://"):
        cli.keep_compiled()
    monkeypatch.setenv("XDG_CACHE_HOME", "gs://bucket")
    assert cache_home() == Path.home() / ".cache"
    assert [*tmp_path.iterdir()] == []


def test_words_without_a_flag_are_taken_where_a_program_declares_them():
    flags = cli.Flags("Compares.")
    flags.add("output", Path, None, "Where to.")
    with pytest.raises(BadArguments, match="a: every argument is --name=value"):
        flags.parse(["a", "--output=x"])
    flags.add_words("runs", "RUN", 2, "Evaluated runs.")
    values = flags.parse(["a", "--output=x", "b=c", "--", "-d"])
    assert (values.runs, values.output) == (["a", "b=c", "-d"], Path("x"))
    with pytest.raises(BadArguments, match="1 RUN given, 2 or more are needed"):
        flags.parse(["a"])
    assert "  RUN: Evaluated runs. (2 or more)\n" in flags.help()
