"""One train step in a process of its own; the most memory it had beyond before, out.

    python -m launch.benchmark.memory_process '{"by": "torch", ...}'

On a GPU the library's own count of bytes; on a CPU the kernel's: the process's resident
pages before the step, and the high-water mark of them in it. The only line of output is
{"step_bytes": n, "state_bytes": m}: what the step needs beside network and optimizer,
and what those are.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")


def main() -> None:
    wish = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run = {"attunet_jax": _ours, "torch": _torch}[wish["by"]]
    print(json.dumps(run(wish)), file=answers, flush=True)


def _ours(wish: dict) -> dict[str, int]:
    import jax
    import numpy as np

    from attunet_jax.data.batch import whole_scans
    from launch.benchmark import ours, scans, workload

    size = workload.find_size(wish["size"], backend="cpu")
    config = workload.config_of(wish["network"], size, wish["compute_dtype"])
    config.model.rematerialise = wish["rematerialise"]
    # A step needs no data set: one batch of noise, as the pipeline would give it.
    rng = np.random.default_rng(0)
    shape = (size.batch, *size.read_shape)
    batch = whole_scans(
        rng.integers(-1000, 1000, shape).astype(np.int16),
        rng.integers(0, 4, shape).astype(np.uint8),
    )
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        small = workload.find_size("tiny", backend="cpu")
        dataset = scans.make_dataset(Path(folder), small)
        one = ours.Ours(config, dataset, jax.devices()[0])
    one.batches = lambda: _once(batch)  # type: ignore[method-assign]
    call = one.train_step()
    state = sum(x.nbytes for x in jax.tree.leaves(one.state))
    device = jax.devices()[0]
    stats = device.memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        before = stats["bytes_in_use"]
        call()
        after = device.memory_stats()
        return {"step_bytes": after["peak_bytes_in_use"] - before, "state_bytes": state}
    return {"step_bytes": _resident_beyond(call), "state_bytes": state}


class _once:
    """A stream of one batch."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __next__(self) -> Any:
        return self._batch

    def close(self) -> None:
        pass


def _torch(wish: dict) -> dict[str, int]:
    from launch.benchmark.peers.torch_process import Peer

    peer = Peer(wish["peer"])
    image, label = peer._inputs(wish["peer"]["batch"]["train"])
    # Parameters and Adam's two moments, which its first step makes.
    state = 3 * 4 * peer.parameters
    if peer.device.type == "cuda":
        cuda = peer.torch.cuda
        peer._train(image, label)
        peer.optimizer.zero_grad(set_to_none=True)
        cuda.synchronize()
        before = cuda.memory_allocated()
        cuda.reset_peak_memory_stats()
        peer._train(image, label)
        cuda.synchronize()
        return {
            "step_bytes": cuda.max_memory_allocated() - before,
            "state_bytes": state,
        }
    beyond = _resident_beyond(lambda: peer._train(image, label))
    return {"step_bytes": beyond - 2 * 4 * peer.parameters, "state_bytes": state}


def _resident_beyond(call: Callable[[], object]) -> int:
    """Bytes of the high-water mark while `call` runs once, beyond those before."""
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the mark begins anew
    call()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{STATUS} says no {name}")


if __name__ == "__main__":
    main()
