"""Every config field: its type, the values that it may have, and its names of before.

`configs/base.py` has the defaults and the meanings. The table stands in the library,
which does not import `configs`, because the command line, configs made in Python and
the configs of finished runs are all checked by it. It needs no JAX.
"""

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from attunet_jax.errors import BadArguments
from attunet_jax.files import is_url
from attunet_jax.storage.urls import problem_of


@dataclass(frozen=True)
class Field:
    """What a field takes. `kind` and `range` are words that follow on "must be"."""

    kind: str
    read: Callable[[str], Any]  # a flag's text -> value; raises ValueError
    is_kind: Callable[[Any], bool]
    range: str = ""
    in_range: Callable[[Any], bool] = lambda value: True
    example: str = ""
    choices: tuple[Any, ...] = ()  # all its values, where they are only a few

    def problem(self, value: Any) -> str | None:
        """Says what the value must be; None where it is."""
        if self.is_kind(value):
            return None if self.in_range(value) else f"must be {self.range}"
        words = [f"must be {self.kind}", self.range]
        words += [f"such as {self.example}" if self.example else ""]
        return ", ".join(filter(None, words))

    def parse(self, text: str) -> Any:
        """Returns the value. Raises `ValueError` with words for after "FLAG=TEXT: "."""
        try:
            value = self.read(text)
        except ValueError:
            value = None  # of no kind
        problem = self.problem(value)
        if problem:
            raise ValueError(problem)
        return value


def as_typed(value: Any) -> str:
    """Returns a value as the command line takes it."""
    if isinstance(value, tuple | list):
        return ",".join(map(as_typed, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _words(text: str) -> list[str]:
    """Splits `(a, 'b')` and `a,b`."""
    words = [word.strip(" '\"") for word in text.strip("[]() ").split(",")]
    return words[:-1] if words[-1] == "" else words


def _text() -> Field:
    return Field("text", str, lambda value: isinstance(value, str))


def _run() -> Field:
    return _place("a path of this machine or gs://BUCKET/...", ("gs",))


def _place(
    words: str = "a path of this machine, gs://BUCKET/... or s3://BUCKET/...",
    schemes: tuple[str, ...] = ("gs", "s3"),
) -> Field:
    return Field(
        "text",
        str,
        lambda value: isinstance(value, str),
        words,
        lambda value: not is_url(value) or problem_of(value, schemes) is None,
    )


def _boolean() -> Field:
    def read(text: str) -> bool | None:
        return BOOLEANS.get(text.lower())

    return Field("true or false", read, lambda value: isinstance(value, bool))


def _one_of(*choices: Any) -> Field:
    names = {as_typed(choice): choice for choice in choices}
    return Field(
        f"one of {', '.join(names)}",
        names.get,
        lambda value: any(type(value) is type(c) and value == c for c in choices),
        choices=choices,
    )


def _whole(range: str, in_range: Callable[[int], bool]) -> Field:
    return Field("a whole number", int, _is_whole, range, in_range)


def _at_least(least: int) -> Field:
    return _whole(f"{least} or more", lambda value: value >= least)


def _number(range: str, in_range: Callable[[float], bool]) -> Field:
    return Field("a number", float, _is_number, range, in_range)


ABOVE_0 = _number("above 0", lambda value: value > 0)
NOT_NEGATIVE = _number("0 or more", lambda value: value >= 0)
SHARE = _number("from 0 to 1", lambda value: 0 <= value <= 1)


def _sizes(kind: str, example: str, *, counts: Callable[[int], bool]) -> Field:
    return Field(
        kind,
        lambda text: tuple(int(word) for word in _words(text)),
        lambda value: (
            isinstance(value, tuple | list)
            and counts(len(value))
            and all(map(_is_whole, value))
        ),
        "each 1 or more",
        lambda value: min(value) >= 1,
        example=example,
    )


def _volume(example: str) -> Field:
    """Sizes along D, H and W."""
    return _sizes("three whole numbers", example, counts=lambda count: count == 3)


FACTORS = Field(
    "two numbers",
    lambda text: tuple(float(word) for word in _words(text)),
    lambda value: (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(map(_is_number, value))
    ),
    "above 0 and the smaller first",
    lambda value: 0 < value[0] <= value[1],
    example="0.7,1.3",
)
CLASSES = Field(
    "names",
    lambda text: tuple(_words(text)),
    lambda value: (
        isinstance(value, tuple | list)
        and all(isinstance(name, str) and name for name in value)
    ),
    "background and then organs, each once, or empty (all organs of the data)",
    lambda value: (
        not value
        or (
            len(value) > 1
            and value[0] == "background"
            and len(set(value)) == len(value)
        )
    ),
    example="background,liver",
)
STEPS = Field(
    "whole numbers",
    lambda text: tuple(int(word) for word in _words(text)),
    lambda value: isinstance(value, tuple | list) and all(map(_is_whole, value)),
    "each 1 or more, or empty",
    lambda value: all(step >= 1 for step in value),
    example="100,500",
)
CHECKPOINT = Field(
    "best, latest or the number of a step",
    str,
    lambda value: (
        isinstance(value, str) and (value in ("best", "latest") or value.isdecimal())
    ),
)

FIELDS: dict[str, Field] = {
    "name": _text(),
    # What NumPy and Grain take for a seed.
    "seed": _whole(f"from 0 to {2**32 - 1}", lambda value: 0 <= value < 2**32),
    "classes": CLASSES,
    "init_from": _run(),
    "model.widths": _sizes(
        "two or more whole numbers", "16,32,64", counts=lambda count: count >= 2
    ),
    "model.sub_gates": _at_least(0),
    "model.gating_channels": _at_least(0),
    "model.gate_source": _one_of("decoder", "bottleneck"),
    "model.gate_kernel": _one_of(1, 2),
    "model.gate_reduction": _at_least(1),
    "model.gate_output_transform": _boolean(),
    "model.attention_coefficients": _one_of("scalar", "vector"),
    "model.gate_initialisation": _one_of("pass_through", "kaiming"),
    "model.deep_supervision": _one_of("fused", "auxiliary", "none"),
    "model.align_corners": _boolean(),
    "model.compute_dtype": _one_of("float32", "bfloat16"),
    "model.remat": _boolean(),
    "model.convolution": _one_of(
        "auto", "compiler", "channels_last", "matrix", "onednn"
    ),
    "data.directory": _place(),
    "data.split": _text(),
    "data.batch_size": _at_least(1),
    "data.crop_shape": _volume("96,160,160"),
    "data.read_shape": _volume("96,208,208"),
    "data.padding": _one_of("lowest", "line_minimum"),
    "data.normalisation": _one_of("ct", "scan"),
    "data.foreground_fraction": SHARE,
    "data.threads": _at_least(1),
    "data.prefetch_batches": _at_least(1),
    "augment.rotation_degrees": _number("from 0 to 180", lambda x: 0 <= x <= 180),
    "augment.shift_fraction": SHARE,
    "augment.zoom_range": FACTORS,
    "augment.flip_probability": SHARE,
    "augment.normalise_over": _one_of("case", "window"),
    "loss.smoothing": NOT_NEGATIVE,
    "loss.smoothing_inside_factor": _boolean(),
    "loss.include_background": _boolean(),
    "loss.reduce_over": _one_of("classes", "outputs"),
    "loss.auxiliary_weight": NOT_NEGATIVE,
    "optimizer.name": _one_of("adam", "sgd"),
    "optimizer.learning_rate": ABOVE_0,
    "optimizer.l2": NOT_NEGATIVE,
    "optimizer.decay_factor": ABOVE_0,
    "optimizer.decay_every_epochs": _at_least(1),
    "optimizer.grad_accum_steps": _at_least(1),
    "train.epochs": _at_least(1),
    "train.steps": _at_least(0),
    "train.log_every_steps": _at_least(1),
    "train.evaluate_every_steps": _at_least(1),
    "train.checkpoint_every_steps": _at_least(1),
    "train.keep_latest": _at_least(1),
    "train.keep_best": _at_least(0),
    "train.keep_steps": STEPS,
    "train.log_cases": _boolean(),
    "train.hang_limit_s": ABOVE_0,
    "mesh.data": _whole("1 or more, or -1", lambda value: value == -1 or value >= 1),
    "mesh.spatial": _at_least(1),
    "mesh.spatial_across_slices": _boolean(),
    "predict.checkpoint": CHECKPOINT,
    "predict.argmax_over": _one_of("classes", "outputs"),
    "predict.region": _one_of("whole", "centre_crop"),
    "predict.whole_volume_limit_vox": _at_least(0),
    "predict.window_shape": _volume("96,160,160"),
    # An overlap of 1 would never move on.
    "predict.window_overlap": _number("from 0 to below 1", lambda x: 0 <= x < 1),
    "predict.window_sigma": ABOVE_0,
    "predict.spatial": _at_least(1),
    "predict.average_flips": _boolean(),
}

# Field today by its name in configs and checkpoints of before.
RENAMED = {
    "model.rematerialise": "model.remat",
    "optimizer.average_batches": "optimizer.grad_accum_steps",
    "loss.mean_over": "loss.reduce_over",
    "predict.largest_of": "predict.argmax_over",
}

# Fields that stored configs of before lack, with what they meant then.
ADDED = {
    "init_from": "",
    "data.normalisation": "scan",
    "data.padding": "lowest",
    "loss.reduce_over": "classes",
    "train.keep_steps": (),
    "train.log_cases": False,
    "train.hang_limit_s": 600.0,
    "mesh.spatial_across_slices": False,
    "predict.argmax_over": "classes",
    "predict.region": "whole",
    "predict.spatial": 1,
}


def check_field(name: str, value: Any) -> None:
    """Raises `BadArguments` that names the flag, its value and what it must be."""
    problem = FIELDS[name].problem(value)
    if problem:
        raise BadArguments(f"--config.{name}={as_typed(value)}: {problem}")


def check_fields(config: Mapping[str, Any], group: str = "") -> None:
    """Checks each field of a config, or of one `group` of it, by the table.

    Raises `BadArguments` for a value that cannot be used, and for a field that is
    unknown or missing.
    """
    prefix = f"{group}." if group else ""
    values = dict(_flat(config, prefix))
    for name in values:
        if name not in FIELDS:
            raise BadArguments(unknown_field(name))
    for name in FIELDS:
        if name.startswith(prefix):
            if name not in values:
                raise BadArguments(f"--config.{name}: this field is missing")
            check_field(name, values[name])


def check_stored(config: Mapping[str, Any]) -> None:
    """Checks the fields of a finished run that have only a few values, by the table.

    Fields that `config` lacks are not checked: runs of before may lack some. Raises
    `BadArguments`.
    """
    for name, value in _flat(config, ""):
        if name in FIELDS and (FIELDS[name].choices or name.startswith("predict.")):
            check_field(name, value)


def unknown_field(name: str) -> str:
    """Says that there is no such field, and which one may be meant."""
    if name in RENAMED:
        return f"--config.{name} is now --config.{RENAMED[name]}"
    near = meant_by(name)
    hint = f", did you mean --config.{near}?" if near else ""
    return f"--config.{name}: no such field{hint}"


def meant_by(name: str) -> str | None:
    """Returns the field that a misspelt name may mean; its group may be missing."""
    name = name.replace("-", "_")
    last = name.rpartition(".")[2]
    of_last = {field.rpartition(".")[2]: field for field in reversed(FIELDS)}
    if last in of_last:
        return of_last[last]
    near = difflib.get_close_matches(name, FIELDS, 1, 0.8)
    near += [of_last[x] for x in difflib.get_close_matches(last, of_last, 1, 0.75)]
    return near[0] if near else None


def _flat(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if hasattr(value, "items"):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
