"""Runs the measurements of `python -m launch.benchmark speed` and collects results."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attunet_jax.data.dataset import Dataset
from attunet_jax.errors import one_line
from attunet_jax.files import temporary_folder
from launch.benchmark import flops, machine, workload
from launch.benchmark.ours import (
    Ours,
    gate_parts,
    input_pipeline,
    metrics,
    out_of_memory,
    preparation,
    whole_case_prediction,
)
from launch.benchmark.peers.client import Peer, PeerFailed, check_equal, peer_requests
from launch.benchmark.report import OURS, make_result, ratios, with_work
from launch.benchmark.timing import Runner, alternating, timed, with_warmup
from launch.benchmark.workload import MEASUREMENTS, PREPARED_SCANS


@dataclass(frozen=True)
class Options:
    """The checked command line."""

    size: workload.Size
    networks: tuple[str, ...]
    measurements: tuple[str, ...]
    dtypes: tuple[str, ...]
    convolution: str  # config.model.convolution of ours
    rounds: int
    against: tuple[str, ...]
    peer_python: str
    torch_compile: bool
    longest_call_s: float  # a peer that needs longer is skipped


@dataclass
class Measurements:
    """Collects results; what does not fit into memory is skipped with a line."""

    options: Options
    device: Any
    results: list[dict[str, Any]] = field(default_factory=list)
    ratios: list[dict[str, Any]] = field(default_factory=list)
    peers: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    parameters: dict[str, int] = field(default_factory=dict)
    peaks: dict[str, Any] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """Returns the document that is written as JSON."""
        options = self.options
        print_progress(f"peaks of {self.device.device_kind}")
        self.peaks = machine.measure_peaks(options.size, options.dtypes, options.rounds)
        with temporary_folder("attunet_benchmark_") as folder:
            print_progress(f"{options.size.scans} synthetic scans")
            dataset = workload.make_dataset(folder, options.size)
            for network in options.networks:
                self._network(network, dataset)
            self._input_pipeline(dataset)
            self._preparation(folder)
        if "metrics" in options.measurements:
            self._measure("metrics", None, metrics(options.size))
        return {
            "machine": machine.describe(self.device),
            "size": options.size.name,
            "shape": list(options.size.shape),
            "scan_shape": list(options.size.scan_shape),
            "batch": options.size.batch,
            "rounds": options.rounds,
            "convolution": options.convolution,
            "parameters": self.parameters,
            "peaks": self.peaks,
            "results": self.results,
            "ratios": self.ratios,
            "peers": self.peers,
            "skipped": self.skipped,
        }

    def _network(self, network: str, dataset: Dataset) -> None:
        options = self.options
        networks = {
            dtype: Ours(
                workload.make_config(network, options.size, dtype, options.convolution),
                dataset,
                self.device,
            )
            for dtype in options.dtypes
        }
        first = networks[options.dtypes[0]]
        self.parameters[network] = first.parameters
        builders: dict[str, Callable[[Ours], Callable[[], object]]] = {
            "forward": Ours.forward,
            "train_step": Ours.train_step,
        }
        chosen = [
            measurement
            for measurement in builders
            if measurement in options.measurements
        ]
        with ExitStack() as stack:
            peers = self._start_peers(network, first, stack) if chosen else []
            for measurement in chosen:
                self._side_by_side(
                    measurement, network, networks, builders[measurement], peers
                )
        if "gate_parts" in options.measurements:
            for dtype, one in networks.items():
                if one.config.model.sub_gates:
                    print_progress(f"{self._name('gate_parts')}, {network}, {dtype}")
                    with self._skipping("gate_parts", network):
                        self._gate_parts(network, one.config.model)
        if "prediction" in options.measurements:
            for dtype, one in networks.items():
                with self._skipping("prediction", network):
                    runner = whole_case_prediction(one, options.size)
                    self._measure("prediction", network, runner, compute_dtype=dtype)

    def _side_by_side(
        self,
        measurement: str,
        network: str,
        networks: dict[str, Ours],
        build: Callable[[Ours], Callable[[], object]],
        peers: list[Peer],
    ) -> None:
        """Times ours and all peers in alternating rounds."""
        runners: dict[str, Runner] = {}
        dtypes: dict[str, str] = {}
        for dtype, one in networks.items():
            with self._skipping(measurement, f"{network}, {dtype}"):
                print_progress(
                    f"{self._name(measurement)}, {network}, {dtype}: compiling"
                )
                runner = timed(build(one))
                runner(1)
                runners[f"{OURS}, {dtype}"], dtypes[f"{OURS}, {dtype}"] = runner, dtype
        for peer in peers:
            with self._skipping(measurement, network):
                runner = peer.runner("forward" if measurement == "forward" else "train")
                runner(1)
                runners[peer.name], dtypes[peer.name] = runner, peer.compute_dtype
        if not runners:
            return
        print_progress(f"{self._name(measurement)}, {network}: {len(runners)} in turn")
        series = alternating(
            {name: with_warmup(runner) for name, runner in runners.items()},
            self.options.rounds,
            lambda name, error: self._skips(measurement, f"{network}, {name}", error),
        )
        for name, times in series.items():
            is_ours = name.startswith(OURS)
            result = make_result(
                self._name(measurement),
                times,
                network=network,
                by=OURS if is_ours else name,
                compute_dtype=dtypes[name],
            )
            if is_ours:
                work = self._work(measurement, networks[dtypes[name]])
                result = with_work(result, work, self.peaks)
            self.results.append(result)
        self.ratios += ratios(self._name(measurement), network, series, dtypes)

    def _gate_parts(self, network: str, model: Any) -> None:
        """Times each part alone, in alternating rounds."""
        runners = gate_parts(model, self.options.size.shape)
        series = alternating(runners, self.options.rounds)
        for part, times in series.items():
            self.results.append(
                make_result(
                    f"{self._name('gate_parts')}: {part}",
                    times,
                    network=network,
                    compute_dtype=model.compute_dtype,
                )
            )

    def _start_peers(self, network: str, ours: Ours, stack: ExitStack) -> list[Peer]:
        options, started = self.options, []
        requests = peer_requests(
            options.against,
            ours.config.model,
            ours.class_count,
            options.size,
            backend=self.device.platform,
            compiled=options.torch_compile,
        )
        for name, request in requests.items():
            with self._skipping("peer", network):
                print_progress(f"starting {name}")
                peer = stack.enter_context(
                    Peer(name, options.peer_python, request, options.longest_call_s)
                )
                check_equal(peer, ours.parameters)
                started.append(peer)
                self.peers.append({"name": name, "network": network, **peer.about})
        return started

    def _work(self, measurement: str, ours: Ours) -> flops.Work:
        size, classes = self.options.size, ours.class_count
        batch = 1 if measurement == "forward" else size.batch
        operations = flops.network_operations(
            ours.config.model, classes, batch, size.shape
        )
        if measurement == "forward":
            return flops.forward_work(operations)
        return flops.train_work(operations, classes, batch, size.shape)

    def _input_pipeline(self, dataset: Dataset) -> None:
        if "input_pipeline" not in self.options.measurements:
            return
        config = workload.make_config("unet", self.options.size, "float32")
        ours = Ours(config, dataset, self.device)
        with input_pipeline(ours) as runner:
            self._measure(
                "input_pipeline",
                None,
                runner,
                per=config.data.batch_size,
                unit="cases/s",
                note=f"{config.data.threads} threads",
            )

    def _preparation(self, folder: Path) -> None:
        if "preparation" not in self.options.measurements:
            return
        runner = preparation(self.options.size, folder, PREPARED_SCANS)
        self._measure(
            "preparation",
            None,
            runner,
            note=f"phantoms of --size={self.options.size.phantom}, with process start",
        )

    def _measure(
        self,
        measurement: str,
        network: str | None,
        runner: Runner,
        *,
        compute_dtype: str | None = None,
        per: int = 1,
        unit: str = "s",
        note: str = "",
    ) -> None:
        print_progress(self._name(measurement) + (f", {network}" if network else ""))
        runner(1)  # compiles, fills caches
        series = alternating({measurement: runner}, self.options.rounds)[measurement]
        self.results.append(
            make_result(
                self._name(measurement),
                series,
                network=network,
                compute_dtype=compute_dtype,
                per=per,
                unit=unit,
                note=note,
            )
        )

    def _name(self, measurement: str) -> str:
        return MEASUREMENTS[measurement].format(
            batch=self.options.size.batch, prepared=PREPARED_SCANS
        )

    @contextmanager
    def _skipping(self, measurement: str, of: str) -> Iterator[None]:
        """Skips what runs out of memory, and a peer that failed."""
        try:
            yield
        except Exception as error:
            if not self._skips(measurement, of, error):
                raise

    def _skips(self, measurement: str, of: str, error: Exception) -> bool:
        """Returns whether a measurement is skipped for this error; records a line."""
        if not (isinstance(error, PeerFailed) or out_of_memory(error)):
            return False
        name = measurement if measurement == "peer" else self._name(measurement)
        line = f"{name}, {of}: {one_line(error)[:300]}"
        self.skipped.append(line)
        print_progress(f"skipped: {line}")
        return True


def print_progress(line: str) -> None:
    """Prints progress to stderr; results go to stdout."""
    print(line, file=sys.stderr, flush=True)
