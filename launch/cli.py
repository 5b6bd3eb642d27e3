"""What all programs share: flags with a locked config, help, one-line errors.

What XLA compiled is kept on disk, so that the next start of a program finds it.

In `~/.cache/attunet_jax/xla` (or under `XDG_CACHE_HOME`), a folder for each kind of
processor: programs for CPUs hold its instructions, and a home folder may be shared by
many machines. `JAX_COMPILATION_CACHE_DIR` names another place;
`JAX_ENABLE_COMPILATION_CACHE=false` does without. The folder can be removed.
"""

import ast
import hashlib
import logging
import os
import platform
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from attunet_jax.errors import BadArguments, exit_status, one_line

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FLAGS = flags.FLAGS


def define_config(default: str) -> None:
    """`--config=FILE` and `--config.FIELD=value`; an unknown field is an error."""
    config_flags.DEFINE_config_file(
        "config",
        None,  # put into argv by run(): a default here is parsed, and fails, too early
        f"File with get_config() (default configs/{default}.py); --config.FIELD=value "
        f"changes a field. All fields with their defaults: {CONFIGS / 'base.py'}",
        lock_config=True,
    )
    _DEFAULT_CONFIG.append(str(CONFIGS / f"{default}.py"))


_DEFAULT_CONFIG: list[str] = []
_CONFIG_FILE_GIVEN: list[str] = []


def define_process_flags() -> None:
    """The flags of a program that may run in several processes."""
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0.")
    flags.DEFINE_integer("num_processes", None, "How many processes there are.")
    flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
    flags.DEFINE_integer("join_timeout_s", 120, "How long to wait for the others.")
    flags.DEFINE_integer(
        "heartbeat_timeout_s", 45, "A process silent for so long ends the job."
    )


def run(main: Callable[[Any], int | None], documentation: str) -> None:
    """Parses the flags, runs `main(FLAGS)` and exits with its status."""

    def program() -> int | None:
        if {"--help", "-h", "-help"} & set(sys.argv[1:]):
            print(f"{documentation.strip()}\n\nFlags:{_own_flags_help()}")
            return 0
        _parse(sys.argv)
        keep_compiled()
        if "config" in FLAGS:
            _split_names(FLAGS["config"].value)
        for name in ("absl", "asyncio"):
            logging.getLogger(name).addFilter(_worth_saying)
        threading.excepthook = _in_a_thread
        sys.unraisablehook = _unraisable
        return main(FLAGS)

    sys.exit(exit_status(program))


def _parse(argv: list[str]) -> None:
    """Fills FLAGS from `argv`, which is `sys.argv`: ml_collections reads that one."""
    given = [a.partition("=")[2] for a in argv if a.startswith("--config=")]
    for path in given:
        _check_config_file(path)
    _CONFIG_FILE_GIVEN.extend(given)
    if _DEFAULT_CONFIG and not given:
        argv.insert(1, f"--config={_DEFAULT_CONFIG[0]}")
    try:
        rest = FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        # ml_collections names an unknown field through several exception types.
        raise BadArguments(f"{_reason(error)} (--help lists the flags)") from None
    if rest[1:]:
        raise BadArguments(f"{' '.join(rest[1:])}: every argument is --name=value")


def _split_names(config: Any) -> None:
    """`--config.classes=background,liver` comes as one name; numbers come apart."""
    words = ",".join(config.classes).strip("[]()").split(",")
    config.classes = tuple(word.strip(" '\"") for word in words if word)


def _worth_saying(record: logging.LogRecord) -> bool:
    """Not what Orbax logs though all is right, nor the errors it raises as well."""
    if record.exc_info:
        return False
    said = record.getMessage()
    # The first: checkpoints between two measurements have none.
    right = ("did not provide metrics", "exception was never retrieved")
    return not any(words in said for words in right)


def _in_a_thread(arguments: threading.ExceptHookArgs) -> None:
    """A full disk ends a library's thread too; the main thread says it in one line."""
    if not _of_the_disk(arguments.exc_value):
        threading.__excepthook__(arguments)


def _unraisable(arguments: Any) -> None:
    """The same of what libraries do when they are torn down, some after the others."""
    if not _of_the_disk(arguments.exc_value):
        sys.__unraisablehook__(arguments)


def _of_the_disk(error: BaseException | None) -> bool:
    return isinstance(error, OSError) or str(error) == "Event loop is closed"


def _reason(error: Exception) -> str:
    text = one_line(error)
    if isinstance(error, AttributeError | KeyError):
        text = "unknown config field: " + text.strip("\"'")
    return text[:300]


def _check_config_file(path: str) -> None:
    file = Path(path)
    if not file.is_file():
        known = ", ".join(
            sorted(f"configs/{p.name}" for p in CONFIGS.glob("[a-z]*.py"))
        )
        raise BadArguments(f"--config={path}: no such file; there are {known}")
    try:
        ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise BadArguments(f"--config={path}: not Python: {one_line(error)}") from None


def _own_flags_help() -> str:
    lines = [""]
    for module, module_flags in sorted(FLAGS.flags_by_module_dict().items()):
        if not module.startswith("launch") and module != sys.argv[0]:
            continue  # flags that libraries define for themselves
        for flag in module_flags:
            default = f" (default {flag.default})" if flag.default is not None else ""
            lines.append(f"  --{flag.name}: {flag.help}{default}")
    return "\n".join(lines)


def required(name: str) -> Any:
    """A flag's value. Raises `BadArguments` when it was not given."""
    value = FLAGS[name].value
    if value in (None, ""):
        raise BadArguments(f"--{name}=... is needed (--help shows an example)")
    return value


def prediction_overrides() -> dict[str, Any]:
    """Fields of `config.predict` given on the command line, by their own names.

    For programs that use a finished run: everything else is the run's own. Raises
    `BadArguments` for another field, or a config file.
    """
    given = {"--config=FILE": 0} if _CONFIG_FILE_GIVEN else {}
    for name, value in config_flags.get_override_values(FLAGS["config"]).items():
        given[f"--config.{name}"] = value
    prefix = "--config.predict."
    for name in given:
        if not name.startswith(prefix):
            raise BadArguments(
                f"{name}: the run in --workdir has its own; only --config.predict.* "
                "can be changed here"
            )
    return {name.removeprefix(prefix): value for name, value in given.items()}


def keep_compiled() -> None:
    """Sets JAX's own variables, so it must come before JAX is imported."""
    # Programs with oneDNN's convolution in them cannot be kept; nothing else fails so.
    warnings.filterwarnings(
        "ignore", "Error writing persistent compilation cache entry.*bad_alloc"
    )
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "attunet_jax" / "xla" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # a home that cannot be written: compile every time
    if os.access(folder, os.W_OK):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)


def _processor() -> str:
    """Architecture and a digest of the instructions it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        has = next(x for x in lines if x.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        has = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(has.encode()).hexdigest()[:12]}"
