"""The command line of every program: flags, config, help, one-line errors, exit status.

A program declares its flags in a `Flags`, which is an absl `FlagValues` of its own at
every `parse`, so that several programs can run in one process. With a config
(ml_collections, configs/base.py) each of its fields is a flag: --config.GROUP.FIELD.
"""

import ast
import difflib
import hashlib
import logging
import os
import platform
import sys
import textwrap
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from absl import flags as absl_flags

from attunet_jax import interrupts
from attunet_jax.config_fields import (
    FIELDS,
    as_typed,
    check_fields,
    meant_by,
    unknown_field,
)
from attunet_jax.errors import BadArguments, exit_status, one_line
from attunet_jax.files import cache_home, local_path
from launch.config_file import ROOT, base_fields, fields_of, load_config
from launch.flag_types import KINDS, Words
from launch.flag_types import names as names  # for the programs' own flags
from launch.flag_types import readable as readable
from launch.flag_types import spacing_mm as spacing_mm
from launch.flag_types import workdir as workdir
from launch.flag_types import writable as writable

SEE_HELP = "(--help lists the flags)"
_WRAP = textwrap.TextWrapper(
    88, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False
)
PROCESS_FLAGS: dict[str, tuple[type, Any, str]] = {
    "coordinator": (str, None, "HOST:PORT of process 0."),
    "num_processes": (int, None, "How many processes there are."),
    "process_id": (int, None, "Which of them this is, from 0."),
    "join_timeout_s": (int, 120, "How long to wait for the others."),
    "heartbeat_timeout_s": (int, 45, "A process silent for so long ends the job."),
}


class Values(SimpleNamespace):
    """The flags of a command line as attributes; `config` where the program has one."""

    config: Any
    config_name: str  # what --config named, or the program's default
    config_given: bool  # whether --config was on the command line
    fields: dict[str, Any]  # the config fields on the command line, by dotted name

    def required(self, name: str) -> Any:
        """Returns the flag's value. Raises `BadArguments` when it was not given."""
        value = getattr(self, name)
        if value in (None, ""):
            raise BadArguments(f"--{name}=... is needed (--help shows an example)")
        return value

    def config_words(self) -> list[str]:
        """Returns the words that give another program the same config."""
        given = [f"--config.{k}={as_typed(v)}" for k, v in self.fields.items()]
        return [f"--config={self.config_name}", *given]

    def process_options(self) -> dict[str, Any]:
        """Returns the flags of `add_process_flags` by name."""
        return {name: getattr(self, name) for name in PROCESS_FLAGS}

    def predict_fields(self) -> dict[str, Any]:
        """Returns the fields of `config.predict` on the command line, by their names.

        For programs that use a finished run, which has a config of its own. Raises
        `BadArguments` for a config file or a field of another group.
        """
        other = [f"--config={self.config_name}"] if self.config_given else []
        other += [f"--config.{name}" for name in self.fields]
        for word in other:
            if not word.startswith("--config.predict."):
                raise BadArguments(
                    f"{word}: the run in --workdir has its own; only "
                    "--config.predict.* can be changed here"
                )
        return {n.removeprefix("predict."): v for n, v in self.fields.items()}


@dataclass(frozen=True)
class _Flag:
    name: str
    kind: Callable[[str], Any]
    default: Any
    help: str
    choices: tuple[str, ...]
    required: bool

    def parse(self, text: str) -> Any:
        if self.choices and text not in self.choices:
            raise ValueError(f"must be one of {', '.join(self.choices)}")
        return KINDS.get(self.kind, self.kind)(text)


class Flags:
    """The flags of one program and, where `config` names one, its default config.

    `documentation` is the program's docstring: --help prints it above the flags.
    `group` restricts the config fields that --help lists.
    """

    def __init__(
        self, documentation: str | None, config: str | None = None, group: str = ""
    ) -> None:
        self._documentation = (documentation or "").strip()
        self._config, self._group = config, group
        self._flags: list[_Flag] = []
        self._words: Words | None = None
        if config:
            self.add("config", str, config, "Name of a file in configs/, or a path.")

    def add(
        self,
        name: str,
        kind: Callable[[str], Any],
        default: Any,
        help: str,
        *,
        choices: Sequence[str] = (),
        required: bool = False,
    ) -> None:
        """Declares --NAME. `kind` turns its text into a value.

        It is `str`, `int`, `float`, `bool`, `Path`, `readable`, `writable` or
        `workdir` for places that may be in a bucket, or a function that raises
        `ValueError` with words that follow on "--NAME=TEXT: ".
        """
        self._flags.append(_Flag(name, kind, default, help, tuple(choices), required))

    def add_words(self, name: str, shown: str, at_least: int, help: str) -> None:
        """Declares words without a flag, as in `launch.compare RUN RUN`.

        They are the list `values.NAME`; --help calls each `shown`.
        """
        self._words = Words(name, shown, at_least, help)

    def add_data(self) -> None:
        """Declares --data, which is needed, and --cache_dir."""
        words = "Prepared data set, here, on gs:// or s3://."
        self.add("data", readable, None, words, required=True)
        self.add_cache_dir()

    def add_cache_dir(self) -> None:
        """Declares --cache_dir, for programs that read from buckets."""
        self.add(
            "cache_dir",
            Path,
            None,
            "Where copies of gs:// and s3:// are kept on this host (default "
            "~/.cache/attunet_jax/buckets, or under XDG_CACHE_HOME).",
        )

    def add_process_flags(self) -> None:
        """Declares the flags of a program that may run in several processes."""
        for name, (kind, default, help) in PROCESS_FLAGS.items():
            self.add(name, kind, default, help)

    def parse(self, argv: Sequence[str] | None = None) -> Values:
        """Returns the values of `argv`, the words after the program's name.

        Raises `BadArguments` for a mistake; --help prints and ends the program.
        """
        words = list(sys.argv[1:] if argv is None else argv)
        if {"--help", "-h", "-help"} & set(words):
            print(self.help())
            raise SystemExit(0)
        absl_flags.FLAGS.mark_as_parsed()  # Grain asks there for flags of its own
        own = absl_flags.FlagValues()
        for flag in self._flags:
            is_switch = isinstance(flag.default, bool)
            _define(own, flag.name, flag.parse, flag.default, boolean=is_switch)
        config, fields = None, {}
        if self._config:
            config = load_config(_config_word(words) or self._config)
            fields = {k: v for k, v in fields_of(config) if k in FIELDS}
            for name, value in fields.items():
                # Without a default, which absl would parse: a file may hold anything.
                parse, is_switch = FIELDS[name].parse, isinstance(value, bool)
                _define(own, f"config.{name}", parse, None, boolean=is_switch)
        own.set_gnu_getopt(True)  # flags may follow words
        rest = _parse(own, words, fields)
        if rest and not self._words:
            raise BadArguments(f"{' '.join(rest)}: every argument is --name=value")
        values = Values(**{flag.name: own[flag.name].value for flag in self._flags})
        if self._words:
            setattr(values, self._words.name, self._words.check(rest))
        for flag in self._flags:
            if flag.required:
                values.required(flag.name)
        if config is not None:
            values.config_name = values.config
            values.config_given = own["config"].present > 0
            values.fields = {
                name: own[f"config.{name}"].value
                for name in fields
                if own[f"config.{name}"].present
            }
            config.update_from_flattened_dict(values.fields)
            check_fields(config)  # a config file may hold anything
            values.config = config
        return values

    def help(self) -> str:
        """Returns the docstring, the flags and the config fields as text."""
        lines = [self._documentation, ""]
        if self._words:
            lines += [_WRAP.fill(self._words.line()), ""]
        lines.append("Flags:")
        for flag in self._flags:
            words = flag.help
            if flag.choices:
                words += f" One of {', '.join(flag.choices)}."
            if flag.required:
                words += " (needed)"
            elif flag.default not in (None, "") and flag.default is not False:
                words += f" (default {as_typed(flag.default)})"
            lines.append(_WRAP.fill(f"--{flag.name}: {words}"))
        if self._config:
            lines += ["", "Config fields (defaults of configs/base.py):"]
            for name, default, comment in base_fields():
                if name.startswith(self._group):
                    taken = f"; {FIELDS[name].range}" if FIELDS[name].range else ""
                    words = f"{comment} (default {default or 'empty'}{taken})".strip()
                    lines.append(_WRAP.fill(f"--config.{name}: {words}"))
        return "\n".join(lines)


def run(flags: Flags, main: Callable[[Any], int | None]) -> NoReturn:
    """Parses the flags, runs `main(values)` and exits with its status."""

    def program() -> int | None:
        interrupts.listen()
        values = flags.parse()
        keep_compiled()
        for name in ("absl", "asyncio"):
            logging.getLogger(name).addFilter(_is_worth_printing)
        threading.excepthook = _exception_in_thread
        sys.unraisablehook = _exception_in_destructor
        return main(values)

    interrupts.leave(exit_status(program))


class _Parser(absl_flags.ArgumentParser):
    def __init__(self, kind: Callable[[str], Any]) -> None:
        self._kind = kind

    def parse(self, argument: Any) -> Any:  # absl also passes defaults through it
        return self._kind(argument) if isinstance(argument, str) else argument


def _define(
    own: absl_flags.FlagValues,
    name: str,
    kind: Callable[[str], Any],
    default: Any,
    *,
    boolean: bool,
) -> None:
    flag = absl_flags.Flag(
        parser=_Parser(kind),
        serializer=None,
        name=name,
        default=default,
        help_string="",
        boolean=boolean,
    )
    absl_flags.DEFINE_flag(flag, own)


def _parse(
    own: absl_flags.FlagValues, words: list[str], fields: dict[str, Any]
) -> list[str]:
    """Fills `own`; returns the words that are no flags."""
    try:
        return own(["", *words])[1:]
    except absl_flags.UnrecognizedFlagError as error:
        reason = _unknown(error.flagname, list(own), fields)
    except absl_flags.Error as error:
        reason = one_line(error).removeprefix("flag ")
    raise BadArguments(f"{reason[:300]} {SEE_HELP}")


def _unknown(name: str, flags: list[str], fields: dict[str, Any]) -> str:
    """Says that there is no such flag, and which one may be meant."""
    if name.startswith("config.") and fields:
        return unknown_field(name.removeprefix("config."))
    field = meant_by(name) if fields else None
    near = difflib.get_close_matches(name, [x for x in flags if "." not in x], 1)
    if field and (not near or field.rpartition(".")[2] == name):
        near = [f"config.{field}"]
    return f"unknown flag --{name}" + (f", did you mean --{near[0]}?" if near else "")


def _config_word(words: list[str]) -> str | None:
    """What the last --config=NAME or --config NAME gives."""
    given = None
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word.lstrip("-").partition("=")[0] == "config" and word.startswith("-"):
            given = word.partition("=")[2] if "=" in word else following
    return given


def print_programs(package: str) -> int:
    """Prints the programs of a folder with the first sentence of each docstring."""
    folder, rows = ROOT / package, {}
    patterns = ("*.py", "*/__main__.py", "cluster/*.py")
    for file in sorted(file for pattern in patterns for file in folder.glob(pattern)):
        text = file.read_text(encoding="utf-8")
        name = ".".join(file.relative_to(folder).with_suffix("").parts)
        name = name.removesuffix(".__main__")
        if file != folder / "__main__.py" and "\nif __name__ ==" in text:
            first = (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0]
            rows[f"python -m {package}.{name}"] = " ".join(first.split())
    width = max(map(len, rows))
    for command, line in rows.items():
        print(f"{command:<{width}}  {line}")
    other = "data_prep" if package == "launch" else "launch"
    print(f"Each has --help. python -m {other} lists more.")
    return 0


def _is_worth_printing(record: logging.LogRecord) -> bool:
    """Drops what Orbax logs when all is well, and errors that it raises as well."""
    if record.exc_info:
        return False
    message = record.getMessage()
    # The first: checkpoints between two evaluations have no metrics.
    harmless = ("did not provide metrics", "exception was never retrieved")
    return not any(words in message for words in harmless)


def _exception_in_thread(arguments: threading.ExceptHookArgs) -> None:
    """Silences a full disk in a library's thread: the main thread reports it."""
    if not _is_about_the_disk(arguments.exc_value):
        threading.__excepthook__(arguments)


def _exception_in_destructor(arguments: Any) -> None:
    """Silences a full disk, and loops closed in any order, in destructors."""
    if not _is_about_the_disk(arguments.exc_value):
        sys.__unraisablehook__(arguments)


def _is_about_the_disk(error: BaseException | None) -> bool:
    return isinstance(error, OSError) or str(error) == "Event loop is closed"


def keep_compiled() -> None:
    """Keeps what XLA compiles on disk, so that the next start of a program finds it.

    In `~/.cache/attunet_jax/xla` (or under `XDG_CACHE_HOME`), in a folder for each kind
    of processor: programs for CPUs hold its instructions, and machines may share a home
    folder. `JAX_COMPILATION_CACHE_DIR` names another place and
    `JAX_ENABLE_COMPILATION_CACHE=false` switches it off. The folder can be removed.
    Sets JAX's own variables, so it must be called before JAX is imported.
    """
    if (given := os.environ.get("JAX_COMPILATION_CACHE_DIR")) is not None:
        try:
            local_path(given)
        except BadArguments as error:
            raise BadArguments(f"JAX_COMPILATION_CACHE_DIR={error}") from None
        return
    folder = cache_home() / "attunet_jax" / "xla" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # a home that cannot be written: compile every time
    if os.access(folder, os.W_OK):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)


def _processor() -> str:
    """Returns the architecture and a digest of the instructions it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        instructions = next(x for x in lines if x.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        instructions = platform.processor()
    return (
        f"{platform.machine()}-{hashlib.sha256(instructions.encode()).hexdigest()[:12]}"
    )
