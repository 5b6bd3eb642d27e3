"""Which trainings and evaluations a table consists of, and the command of each."""

import importlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attunet_jax.config_fields import FIELDS, as_typed
from attunet_jax.errors import BadArguments
from attunet_jax.evaluate.paper_tables import CROSS_VALIDATION, FOLDS, TABLES, Entry
from attunet_jax.storage.names import shown
from configs.base import PAPER_CLASSES
from launch.cli import Values
from launch.config_file import fields_of, load_config

# Table 3: before and after fine-tuning, from scratch; on the split that is 61/21 of 82.
STAGES = ("bft", "aft", "scr")
BEGUN_ELSEWHERE = ("bft", "aft")
STAGE_SPLIT = "75_25"
# Those of the published code on CT-82: from scratch, and in cross-validation.
STAGE_CLASSES = ("background", "pancreas")
FOLD_SPLITS = tuple(f"fold_{k}" for k in range(1, FOLDS + 1))
TRAIN = "python -m launch.train"


@dataclass(frozen=True)
class Row:
    """One trained network and its evaluation: an entry of a table, a fold, a seed."""

    entry: Entry
    config: Any  # resolved, of this network
    config_name: str  # the file that it is derived from
    folder: Path  # of its training and evaluation; may stand for one of a bucket
    source: Path | None  # the run that it begins from, or that is evaluated as it is
    requested: bool  # otherwise it is taken into the table where it is there
    # Where its own grid is scored: the original scans, here or in a bucket.
    scans: Path | str | None = None
    cache_dir: Path | None = None  # of copies of buckets

    @property
    def name(self) -> str:
        """Returns its place in the table's folder: `80_20/unet`."""
        return "/".join(self.folder.parts[-2:])

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def split(self) -> str:
        """The data's split, also where the entry is a stage or all folds."""
        return self.config.data.split

    @property
    def trains(self) -> bool:
        return self.entry.split != "bft"

    @property
    def trained(self) -> Path:
        """The folder of the run that is evaluated."""
        return self.folder if self.trains or self.source is None else self.source

    @property
    def evaluation(self) -> Path:
        name = "test" if self.scans is None else "test_on_scan_grid"
        return self.folder / "evaluation" / name

    @property
    def grid(self) -> str:
        return "prepared" if self.scans is None else "scan"

    def train_words(self) -> list[str]:
        """Returns the arguments of launch.train that give exactly this training."""
        base = dict(fields_of(load_config(self.config_name)))
        given = [
            f"--config.{name}={as_typed(value)}"
            for name, value in fields_of(self.config)
            if name in FIELDS and name != "data.directory" and base[name] != value
        ]
        return [
            f"--config={self.config_name}",
            *given,
            f"--data={self.config.data.directory}",
            f"--workdir={shown(self.folder)}",
            *self._cache_words(),
        ]

    def _cache_words(self) -> list[str]:
        return [f"--cache_dir={self.cache_dir}"] if self.cache_dir else []

    def train_command(self, launcher: str) -> list[str]:
        """Returns the whole command; `launcher` stands for `python -m launch.train`."""
        words = shlex.split(launcher or TRAIN)
        return [*words, *self.train_words()]

    def evaluate_words(
        self, pictures: int, stored_predict: dict[str, Any] | None
    ) -> list[str]:
        """Returns the arguments of launch.evaluate for this row's evaluation.

        `stored_predict` are the settings that the run has or will have: the config's
        are given where they differ.
        """
        settings = self.config.predict.to_dict()
        stored = settings if stored_predict is None else stored_predict
        other = [k for k, x in settings.items() if _plain(stored.get(k)) != _plain(x)]
        words = [
            f"--workdir={shown(self.trained)}",
            f"--data={self.config.data.directory}",
        ]
        if not self.trains:  # another's run, on a split that is not its own
            words += [f"--output={shown(self.evaluation)}", f"--split={self.split}"]
        words += [f"--pictures={pictures}", "--timing"]
        if self.scans is not None:
            words += ["--grid=scan", f"--truth={self.scans}"]
        words += self._cache_words()
        return words + [f"--config.predict.{k}={as_typed(settings[k])}" for k in other]


def started_here(command: Sequence[str]) -> list[str]:
    """Returns the command with this same Python where it begins with `python`."""
    return [sys.executable if command[0] == "python" else command[0], *command[1:]]


def rows_of(
    number: int,
    values: Values,
    *,
    requested: Sequence[str] = (),
    seeds: int = 1,
    sources: Path | None = None,
) -> list[Row]:
    """Returns the rows of a table of the paper in `values.workdir`, of this machine.

    Those of the splits (or stages) and the seeds that are `requested`, and the others
    of which a folder is there. `sources` is the folder of the runs that rows of Table 3
    begin from.

    Raises `BadArguments` where the config is not that of an Attention U-Net.
    """
    if not values.config.model.sub_gates:
        raise BadArguments(
            "--config must be an Attention U-Net (model.sub_gates above 0): the U-Nets "
            "of the table are derived from it"
        )
    rows = []
    first = values.config.seed
    for entry in TABLES[number].entries:
        is_folds = entry.split == CROSS_VALIDATION
        for split in FOLD_SPLITS if is_folds else (entry.split,):
            parent = values.workdir / split
            asked = set(range(first, first + seeds)) if entry.split in requested else ()
            for seed in sorted({*asked, *_seeds_there(parent, entry.network, first)}):
                suffix = "" if seed == first else f"_seed_{seed}"
                folder = parent / f"{entry.network}{suffix}"
                source = None
                if entry.split in BEGUN_ELSEWHERE and sources is not None:
                    source = sources / folder.name
                rows.append(
                    Row(
                        entry=entry,
                        config=config_of(values, entry, split, seed, source),
                        config_name=values.config_name,
                        folder=folder,
                        source=source,
                        requested=seed in asked,
                        scans=values.truth,
                        cache_dir=values.cache_dir,
                    )
                )
    return rows


def config_of(
    values: Values, entry: Entry, split: str, seed: int, source: Path | None
) -> Any:
    """Returns a copy of `values.config` for one row."""
    copy = values.config.copy_and_resolve_references()
    importlib.import_module(f"configs.{entry.network}").apply_to(copy)
    copy.seed = seed
    copy.data.split = STAGE_SPLIT if split in STAGES else split
    copy.data.directory = str(values.data)
    if split in ("aft", "scr") or entry.split == CROSS_VALIDATION:
        copy.classes = STAGE_CLASSES
    elif not copy.classes:
        copy.classes = PAPER_CLASSES
    if source is not None:
        copy.init_from = shown(source)
    return copy


def _seeds_there(parent: Path, network: str, first: int) -> Iterator[int]:
    """The seeds of which a folder is there: `unet` the first, `unet_seed_1` another."""
    if (parent / network).is_dir():
        yield first
    for folder in parent.glob(f"{network}_seed_*"):
        seed = folder.name.removeprefix(f"{network}_seed_")
        if seed.isdecimal() and folder.is_dir() and int(seed) != first:
            yield int(seed)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
