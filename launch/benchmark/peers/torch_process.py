"""Runs a PyTorch network in a process of its own, controlled by lines of JSON.

    python -m launch.benchmark.peers.torch_process '{"library": "torch", ...}'

Prints its versions and parameter count. Then it answers each input line
{"run": "forward" or "train", "calls": n} with {"seconds": s}, an error with
{"error": text}. It ends with its input.
"""

import gc
import json
import os
import sys
import time
from importlib.metadata import version
from typing import Any

import torch  # pyright: ignore[reportMissingImports]

from launch.benchmark.peers import torch_unet


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # keeps what libraries print apart from the answers

    def answer(content: dict) -> None:
        answers.write(json.dumps(content) + "\n")

    try:
        peer = Peer(json.loads(sys.argv[1]))
        answer(peer.describe())
        for line in sys.stdin:
            request = json.loads(line)
            answer({"seconds": peer.seconds(request["run"], request["calls"])})
    except Exception as error:  # reported by the client
        text = " ".join(f"{type(error).__name__}: {error}".split())
        answer({"error": text[:300]})


class Peer:
    """One network in one memory layout and compute type."""

    def __init__(self, request: dict) -> None:
        self.request = request
        self.device = torch.device(request["device"])
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("this PyTorch finds no GPU")
        # Tries all algorithms of cuDNN, once for each shape.
        torch.backends.cudnn.benchmark = True
        torch.manual_seed(0)
        if request["library"] == "monai":
            network = torch_unet.monai_attention_unet(
                request["widths"], request["classes"]
            )
        else:
            network = torch_unet.Published(
                request["widths"],
                request["classes"],
                request["sub_gates"],
                request["gating"],
            )
        self.parameters = torch_unet.parameter_count(network)
        self.format = (
            torch.channels_last_3d
            if request["channels_last"]
            else torch.contiguous_format
        )
        self.network = network.to(self.device, memory_format=self.format)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=1e-4, weight_decay=1e-6
        )
        self.call = torch.compile(self.network) if request["compile"] else self.network
        self.inputs: dict[str, Any] = {}

    def describe(self) -> dict:
        versions = {"torch": torch.__version__}
        if self.request["library"] == "monai":
            versions["monai"] = version("monai")
        return {
            "parameters": self.parameters,
            "versions": versions,
            "threads": torch.get_num_threads(),
        }

    def seconds(self, run: str, calls: int) -> float:
        """Returns the seconds of so many calls of "forward" or "train"."""
        function = {"forward": self.forward, "train": self.train_step}[run]
        if run not in self.inputs:
            self.inputs = {run: self.make_inputs(self.request["batch"][run])}
        self._finish()
        start = time.perf_counter()
        for _ in range(calls):
            function(*self.inputs[run])
            self._finish()
        seconds = time.perf_counter() - start
        # All share one device: none keeps memory between rounds.
        self.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return seconds

    def make_inputs(self, batch: int) -> tuple[Any, Any]:
        """Returns random images and label maps."""
        shape = tuple(reversed(self.request["shape"]))  # X, Y, Z, as published
        image = torch.randn(batch, 1, *shape, device=self.device)
        label = torch.randint(
            self.request["classes"], (batch, *shape), device=self.device
        )
        return image.to(memory_format=self.format), label

    def _autocast(self) -> Any:
        return torch.autocast(
            self.device.type,
            dtype=torch.bfloat16,
            enabled=self.request["compute_dtype"] == "bfloat16",
        )

    def forward(self, image: Any, label: Any) -> None:
        self.network.eval()
        with torch.inference_mode(), self._autocast():
            self.call(image)

    def train_step(self, image: Any, label: Any) -> None:
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            logits = self.call(image)
        torch_unet.soft_dice_loss(logits, label).backward()
        self.optimizer.step()

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


if __name__ == "__main__":
    main()
