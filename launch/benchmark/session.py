"""What is to be measured in; the whole document, rows, ratios and skips, out."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attunet_jax.data.dataset import Dataset
from attunet_jax.errors import one_line
from launch.benchmark import flops, machine, scans, stages
from launch.benchmark.gate_parts import gate_parts
from launch.benchmark.ours import Ours, out_of_memory
from launch.benchmark.peers.client import Peer, PeerFailed, check_equal, peer_wishes
from launch.benchmark.rows import OURS, ratios, row, with_work
from launch.benchmark.timing import Runner, alternating, timed, warmed
from launch.benchmark.wanted import NAMES, PREPARED_SCANS, Wanted
from launch.benchmark.workload import config_of


@dataclass
class Session:
    """Collects rows; what does not fit into memory is skipped with a line."""

    wanted: Wanted
    device: Any
    rows: list[dict] = field(default_factory=list)
    ratios: list[dict] = field(default_factory=list)
    peers: list[dict] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    parameters: dict[str, int] = field(default_factory=dict)
    peaks: dict[str, Any] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """The document that is written as JSON."""
        wanted = self.wanted
        say(f"peaks of {self.device.device_kind}")
        self.peaks = machine.measure_peaks(wanted.size, wanted.dtypes, wanted.rounds)
        with tempfile.TemporaryDirectory(prefix="attunet_benchmark_") as folder:
            say(f"{wanted.size.scans} made-up scans")
            dataset = scans.make_dataset(Path(folder), wanted.size)
            for network in wanted.networks:
                self._network(network, dataset)
            self._input_pipeline(dataset)
            self._preparation(Path(folder))
        if "metrics" in wanted.figures:
            self._measure("metrics", None, stages.metrics(wanted.size))
        return {
            "machine": machine.describe(self.device),
            "size": wanted.size.name,
            "shape": list(wanted.size.shape),
            "scan_shape": list(wanted.size.scan_shape),
            "batch": wanted.size.batch,
            "rounds": wanted.rounds,
            "convolution": wanted.convolution,
            "parameters": self.parameters,
            "peaks": self.peaks,
            "rows": self.rows,
            "ratios": self.ratios,
            "peers": self.peers,
            "skipped": self.skipped,
        }

    def _network(self, network: str, dataset: Dataset) -> None:
        wanted = self.wanted
        ours = {
            dtype: Ours(
                config_of(network, wanted.size, dtype, wanted.convolution),
                dataset,
                self.device,
            )
            for dtype in wanted.dtypes
        }
        first = ours[wanted.dtypes[0]]
        self.parameters[network] = first.parameters
        sides: dict[str, Callable[[Ours], Callable[[], object]]] = {
            "forward": Ours.forward,
            "train_step": Ours.train_step,
        }
        chosen = [figure for figure in sides if figure in wanted.figures]
        with ExitStack() as stack:
            others = self._start_peers(network, first, stack) if chosen else []
            for figure in chosen:
                self._side_by_side(figure, network, ours, sides[figure], others)
        if "gate_parts" in wanted.figures:
            for dtype, one in ours.items():
                if one.config.model.sub_gates:
                    say(f"{self._name('gate_parts')}, {network}, {dtype}")
                    with self._skipping("gate_parts", network):
                        self._gate_parts(network, one.config.model)
        if "prediction" in wanted.figures:
            for dtype, one in ours.items():
                with self._skipping("prediction", network):
                    runner = stages.whole_case_prediction(one, wanted.size)
                    self._measure("prediction", network, runner, compute_dtype=dtype)

    def _side_by_side(
        self,
        figure: str,
        network: str,
        ours: dict[str, Ours],
        build: Callable[[Ours], Callable[[], object]],
        others: list[Peer],
    ) -> None:
        """Ours and all peers in alternating rounds."""
        runners: dict[str, Runner] = {}
        dtypes: dict[str, str] = {}
        for dtype, one in ours.items():
            with self._skipping(figure, f"{network}, {dtype}"):
                say(f"{self._name(figure)}, {network}, {dtype}: compiling")
                runner = timed(build(one))
                runner(1)
                runners[f"{OURS}, {dtype}"], dtypes[f"{OURS}, {dtype}"] = runner, dtype
        for peer in others:
            with self._skipping(figure, network):
                runner = peer.runner("forward" if figure == "forward" else "train")
                runner(1)
                runners[peer.name], dtypes[peer.name] = runner, peer.compute_dtype
        if not runners:
            return
        say(f"{self._name(figure)}, {network}: {len(runners)} in turn")
        series = alternating(
            {name: warmed(runner) for name, runner in runners.items()},
            self.wanted.rounds,
            lambda name, error: self._skips(figure, f"{network}, {name}", error),
        )
        for name, times in series.items():
            mine = name.startswith(OURS)
            entry = row(
                self._name(figure),
                times,
                network=network,
                by=OURS if mine else name,
                compute_dtype=dtypes[name],
            )
            if mine:
                work = self._work(figure, ours[dtypes[name]])
                entry = with_work(entry, work, self.peaks)
            self.rows.append(entry)
        self.ratios += ratios(self._name(figure), network, series, dtypes)

    def _gate_parts(self, network: str, model: Any) -> None:
        """Each part alone, in alternating rounds."""
        runners = gate_parts(model, self.wanted.size.shape)
        series = alternating(runners, self.wanted.rounds)
        for part, times in series.items():
            self.rows.append(
                row(
                    f"{self._name('gate_parts')}: {part}",
                    times,
                    network=network,
                    compute_dtype=model.compute_dtype,
                )
            )

    def _start_peers(self, network: str, ours: Ours, stack: ExitStack) -> list[Peer]:
        wanted, started = self.wanted, []
        wishes = peer_wishes(
            wanted.against,
            ours.config.model,
            ours.class_count,
            wanted.size,
            backend=self.device.platform,
            compiled=wanted.torch_compile,
        )
        for name, wish in wishes.items():
            with self._skipping("peer", network):
                say(f"starting {name}")
                peer = stack.enter_context(
                    Peer(name, wanted.peer_python, wish, wanted.longest_call_s)
                )
                check_equal(peer, ours.parameters)
                started.append(peer)
                self.peers.append({"name": name, "network": network, **peer.about})
        return started

    def _work(self, figure: str, ours: Ours) -> flops.Work:
        size, classes = self.wanted.size, ours.class_count
        batch = 1 if figure == "forward" else size.batch
        operations = flops.network_operations(
            ours.config.model, classes, batch, size.shape
        )
        if figure == "forward":
            return flops.forward_work(operations)
        return flops.train_work(operations, classes, batch, size.shape)

    def _input_pipeline(self, dataset: Dataset) -> None:
        if "input_pipeline" not in self.wanted.figures:
            return
        config = config_of("unet", self.wanted.size, "float32")
        ours = Ours(config, dataset, self.device)
        with stages.input_pipeline(ours) as runner:
            self._measure(
                "input_pipeline",
                None,
                runner,
                per=config.data.batch_size,
                unit="cases/s",
                note=f"{config.data.threads} threads",
            )

    def _preparation(self, folder: Path) -> None:
        if "preparation" not in self.wanted.figures:
            return
        runner = stages.preparation(self.wanted.size, folder, PREPARED_SCANS)
        self._measure(
            "preparation",
            None,
            runner,
            note=f"phantoms of --size={self.wanted.size.phantom}, with its start",
        )

    def _measure(
        self,
        figure: str,
        network: str | None,
        runner: Runner,
        *,
        compute_dtype: str | None = None,
        per: int = 1,
        unit: str = "s",
        note: str = "",
    ) -> None:
        say(self._name(figure) + (f", {network}" if network else ""))
        runner(1)  # compiles, fills caches
        series = alternating({figure: runner}, self.wanted.rounds)[figure]
        self.rows.append(
            row(
                self._name(figure),
                series,
                network=network,
                compute_dtype=compute_dtype,
                per=per,
                unit=unit,
                note=note,
            )
        )

    def _name(self, figure: str) -> str:
        return NAMES[figure].format(
            batch=self.wanted.size.batch, prepared=PREPARED_SCANS
        )

    @contextmanager
    def _skipping(self, figure: str, of: str) -> Iterator[None]:
        """Turns a lack of memory, or a peer that failed, into a line."""
        try:
            yield
        except Exception as error:
            if not self._skips(figure, of, error):
                raise

    def _skips(self, figure: str, of: str, error: Exception) -> bool:
        """Whether it is one of those that are a line and no end; notes the line."""
        if not (isinstance(error, PeerFailed) or out_of_memory(error)):
            return False
        name = figure if figure == "peer" else self._name(figure)
        line = f"{name}, {of}: {one_line(error)[:300]}"
        self.skipped.append(line)
        say(f"skipped: {line}")
        return True


def say(line: str) -> None:
    """Progress; results go to stdout."""
    print(line, file=sys.stderr, flush=True)
