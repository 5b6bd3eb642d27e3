"""A compiled program in; its memory, its work and its messages on one device out."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from attunet_jax.train.collectives import collectives_of


@dataclass(frozen=True)
class Cost:
    """All of one device; bytes but for the work."""

    arguments: int  # state and batch
    temporaries: int  # activations, gradients, and results that replace no argument
    peak: int | None  # most of both that is alive at once; None where not told
    flops: float | None  # multiplications and additions; None where not told
    messages: dict[str, tuple[int, int]]  # kind -> (count, bytes of its results)


def cost_of(compiled: Any) -> Cost:
    """`compiled` is a `jax.stages.Compiled`. Operations in loops count once."""
    memory = compiled.memory_analysis()
    messages: dict[str, list[int]] = defaultdict(list)
    for each in collectives_of(compiled.as_text()):
        messages[each.kind].append(each.bytes)
    new = memory.output_size_in_bytes - memory.alias_size_in_bytes
    arguments = memory.argument_size_in_bytes
    # CPU tells the arguments alone: there all temporaries are one block.
    peak = getattr(memory, "peak_memory_in_bytes", 0)
    return Cost(
        arguments=arguments,
        temporaries=memory.temp_size_in_bytes + new,
        peak=peak if peak > 2 * arguments else None,
        flops=(compiled.cost_analysis() or {}).get("flops"),
        messages={k: (len(v), sum(v)) for k, v in messages.items()},
    )
