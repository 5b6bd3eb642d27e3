"""What a run of the benchmark is asked to measure, by name."""

from dataclasses import dataclass

from launch.benchmark.workload import Size

FIGURES = (
    "forward",
    "train_step",
    "input_pipeline",
    "preparation",
    "prediction",
    "metrics",
    "gate_parts",
)
NAMES = {
    "forward": "forward pass, batch 1",
    "train_step": "train step, batch {batch}",
    "input_pipeline": "input pipeline",
    "preparation": "preparation, {prepared} scans",
    "prediction": "whole-case prediction",
    "metrics": "metrics of a case",
    "gate_parts": "attention gates, batch 1",
}
PREPARED_SCANS = 4


@dataclass(frozen=True)
class Wanted:
    """The command line, checked."""

    size: Size
    networks: tuple[str, ...]
    figures: tuple[str, ...]
    dtypes: tuple[str, ...]
    convolution: str  # config.model.convolution of ours
    rounds: int
    against: tuple[str, ...]
    peer_python: str
    torch_compile: bool
    longest_call_s: float  # a peer that needs longer is skipped
