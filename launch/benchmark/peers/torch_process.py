"""A peer in its own process: a line of JSON in asks, a line of JSON out answers.

    python -m launch.benchmark.peers.torch_process '{"library": "torch", ...}'

First answers with its versions and parameter count. Then each line
{"run": "forward" or "train", "calls": n} is answered by {"seconds": s}; what went wrong
by {"error": text}. The end of the input ends it.
"""

import gc
import json
import os
import sys
import time
from typing import Any


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever libraries print must not look like an answer

    def answer(content: dict) -> None:
        answers.write(json.dumps(content) + "\n")

    try:
        peer = Peer(json.loads(sys.argv[1]))
        answer(peer.describe())
        for line in sys.stdin:
            wish = json.loads(line)
            answer({"seconds": peer.seconds(wish["run"], wish["calls"])})
    except Exception as error:  # whatever it is, the other side has to say it
        text = " ".join(f"{type(error).__name__}: {error}".split())
        answer({"error": text[:300]})


class Peer:
    """One network in one variant."""

    def __init__(self, wish: dict) -> None:
        import torch  # pyright: ignore[reportMissingImports]

        from launch.benchmark.peers import torch_unet

        self.torch, self.networks, self.wish = torch, torch_unet, wish
        self.device = torch.device(wish["device"])
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("this PyTorch finds no GPU")
        # Its own best: tries all algorithms of cuDNN, once for each shape.
        torch.backends.cudnn.benchmark = True
        torch.manual_seed(0)
        if wish["library"] == "monai":
            network = torch_unet.monai_attention_unet(wish["widths"], wish["classes"])
        else:
            network = torch_unet.Published(
                wish["widths"], wish["classes"], wish["sub_gates"], wish["gating"]
            )
        self.parameters = torch_unet.parameter_count(network)
        self.format = (
            torch.channels_last_3d if wish["channels_last"] else torch.contiguous_format
        )
        self.network = network.to(self.device, memory_format=self.format)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=1e-4, weight_decay=1e-6
        )
        self.call = torch.compile(self.network) if wish["compile"] else self.network
        self.inputs: dict[str, Any] = {}

    def describe(self) -> dict:
        versions = {"torch": self.torch.__version__}
        if self.wish["library"] == "monai":
            from importlib.metadata import version

            versions["monai"] = version("monai")
        return {
            "parameters": self.parameters,
            "versions": versions,
            "threads": self.torch.get_num_threads(),
        }

    def seconds(self, run: str, calls: int) -> float:
        function = {"forward": self._forward, "train": self._train}[run]
        if run not in self.inputs:
            self.inputs = {run: self._inputs(self.wish["batch"][run])}
        self._finish()
        began = time.perf_counter()
        for _ in range(calls):
            function(*self.inputs[run])
            self._finish()
        took = time.perf_counter() - began
        # Peers and ours share one device: nobody keeps memory between rounds.
        self.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if self.device.type == "cuda":
            self.torch.cuda.empty_cache()
        return took

    def _inputs(self, batch: int) -> tuple[Any, Any]:
        torch = self.torch
        shape = tuple(reversed(self.wish["shape"]))  # X, Y, Z, as published
        image = torch.randn(batch, 1, *shape, device=self.device)
        label = torch.randint(self.wish["classes"], (batch, *shape), device=self.device)
        return image.to(memory_format=self.format), label

    def _autocast(self) -> Any:
        return self.torch.autocast(
            self.device.type,
            dtype=self.torch.bfloat16,
            enabled=self.wish["compute_dtype"] == "bfloat16",
        )

    def _forward(self, image: Any, label: Any) -> None:
        self.network.eval()
        with self.torch.inference_mode(), self._autocast():
            self.call(image)

    def _train(self, image: Any, label: Any) -> None:
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            logits = self.call(image)
        self.networks.soft_dice_loss(logits, label).backward()
        self.optimizer.step()

    def _finish(self) -> None:
        if self.device.type == "cuda":
            self.torch.cuda.synchronize()


if __name__ == "__main__":
    main()
