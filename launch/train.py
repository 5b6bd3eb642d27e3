"""Trains a network on a prepared data set, or continues where the same command stopped.

    python -m launch.train --config=configs/attention_unet.py --data=DIR --workdir=RUN
    python -m launch.train --data=DIR --workdir=RUN2 --config.data.batch_size=4
    python -m launch.train --data=DIR --dry_run --config.mesh.spatial=2
    python -m launch.train --data=DIR --dry_run --device_memory_gib=80
    python -m launch.train --config=demo --print_config
    launch/cluster/local.sh 2 -- --data=DIR --workdir=RUN3   (docs/clusters.md)

RUN then holds checkpoints/, config.json, environment.json, metrics.jsonl, tensorboard/
and progress.png, the learning curve, drawn again while it trains; with several
processes logs/ too. Exit status: 0 done, 2 bad arguments, 3 bad data, 75 stopped by a
signal with everything saved, 134 another process died.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attunet_jax.config_fields import BOOLEANS
from attunet_jax.distributed import processes
from attunet_jax.errors import Interrupted, one_line
from launch import cli, config_file, metrics_hook
from launch.devices import check_devices, memory_is_enough
from launch.flag_types import positive_number

if TYPE_CHECKING:
    from attunet_jax.storage.staging import Staging


def dry_run_kind(text: str) -> str | bool:
    """Turns the text of --dry_run[=compile] into "estimate", "compile" or False."""
    if text == "compile":
        return text
    if text.lower() in BOOLEANS:
        return "estimate" if BOOLEANS[text.lower()] else False
    raise ValueError("must be compile, or nothing for an estimate")


# The run's account begins here: JAX and all that needs it is imported later.
BEGAN_S = time.time()
# A picture takes most of a second, and more on a busy machine: it is drawn so rarely
# that it takes a fiftieth of the time.
REDRAW_S, REDRAW_AFTER = 30.0, 50.0

FLAGS = cli.Flags(__doc__, config="attention_unet")
FLAGS.add(
    "workdir",
    cli.workdir,
    None,
    "Folder of the run, here or on gs://; made if it is not there.",
)
FLAGS.add(
    "data",
    cli.readable,
    None,
    "Prepared data set, here, on gs:// or s3://; sets config.data.directory.",
)
FLAGS.add_cache_dir()
FLAGS.add(
    "dry_run",
    dry_run_kind,
    False,
    "Print what the run would need, estimated in seconds, and whether it fits; write "
    "nothing. --dry_run=compile compiles it.",
)
FLAGS.add(
    "device_memory_gib",
    positive_number,
    None,
    "For --dry_run: memory of a device, where JAX cannot tell it or of another.",
)
FLAGS.add("print_config", bool, False, "Print every config field and its value.")
FLAGS.add("profile_steps", str, None, "FIRST:LAST step to record into RUN/profile.")
FLAGS.add("on_metrics", str, None, "FILE.py:FUNCTION that gets each row of metrics.")
FLAGS.add_process_flags()


def main(values: cli.Values) -> None:
    config, options = values.config, values.process_options()
    if values.data:
        config.data.directory = str(values.data)
    if values.print_config:
        print(config_file.as_text(config))
        return
    if not config.data.directory:
        values.required("data")
    if values.dry_run:
        processes.run_together(lambda: _print_cost(config, values), **options)
        return
    workdir = values.required("workdir")

    def work() -> None:
        check_devices()
        from attunet_jax.train.loop import train  # late: --help needs no jax
        from attunet_jax.train.monitor import parse_steps

        hook = values.on_metrics if processes.is_main_process() else None
        with (
            memory_is_enough(),
            _opened(workdir, values.cache_dir) as files,
            metrics_hook.opened(hook, files.folder, config) as on_metrics,
        ):
            train(
                config,
                files.folder,
                profile_steps=parse_steps(values.profile_steps),
                on_validation=_curve_in(files.folder),
                on_metrics=on_metrics,
                cache_dir=values.cache_dir,
                program_began_s=BEGAN_S,
                on_files=lambda: _send(files),
            )

    processes.run_together(work, **options)


@contextmanager
def _opened(workdir: Path | str, cache_dir: Path | None) -> Iterator["Staging"]:
    """Opens the folder of the run in all processes, or in none.

    Process 0 writes the run's files; each of the others writes its log.
    """
    import jax

    from attunet_jax.distributed.consensus import raise_on_all
    from attunet_jax.storage import run_folder

    number = jax.process_index()
    files = ("config.json", f"logs/process_{number}.log")
    if number == 0:
        files += ("environment.json", "metrics.jsonl", "progress.png")
        files += ("tensorboard", "profile")
    with ExitStack() as open_folders:
        yield raise_on_all(
            lambda: open_folders.enter_context(
                run_folder.written(
                    workdir, cache_dir, user=f"train-{number}", files=files
                )
            ),
            may_be_long=True,
        )


def _send(files: "Staging") -> None:
    """Uploads what has changed; what fails now is tried again with the next."""
    try:
        files.send()
    except Interrupted as error:
        print(f"warning: {one_line(error)}", file=sys.stderr, flush=True)


def _curve_in(workdir: Path) -> Callable[[bool], None]:
    """Returns what draws the learning curve so far, not too often, and at the end."""
    next_s = 0.0

    def draw(last: bool) -> None:
        nonlocal next_s
        if not last and time.monotonic() < next_s:
            return
        began_s = time.monotonic()
        from attunet_jax.evaluate.pictures import learning_curve_png
        from attunet_jax.train.metrics import read_rows

        rows = read_rows(workdir / "metrics.jsonl")
        learning_curve_png(workdir / "progress.png", rows)
        now_s = time.monotonic()
        next_s = now_s + max(REDRAW_S, REDRAW_AFTER * (now_s - began_s))

    return draw


def _print_cost(config: Any, values: cli.Values) -> None:
    check_devices()
    import jax

    from attunet_jax.train.dry_run import dry_run
    from attunet_jax.train.setup import setup

    memory_gib = values.device_memory_gib
    text = dry_run(
        setup(config, None, values.cache_dir),
        compiled=values.dry_run == "compile",
        memory_gib=memory_gib,
    )
    if jax.process_index() == 0:
        print(text)
        if jax.default_backend() == "cpu" and not memory_gib:
            print(_huge_pages(os.environ.get("GLIBC_TUNABLES", "")))


def _huge_pages(tunables: str) -> str:
    """Reports whether glibc asks Linux for huge pages: faster steps on a CPU."""
    if "glibc.malloc.hugetlb=" in tunables:
        return f"huge pages: GLIBC_TUNABLES={tunables} is set"
    return (
        "huge pages: not requested; with GLIBC_TUNABLES=glibc.malloc.hugetlb=1 before "
        "the command a step on a CPU is faster"
    )


if __name__ == "__main__":
    cli.run(FLAGS, main)
