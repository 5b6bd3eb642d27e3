"""Lets every process keep what it compiled, where JAX lets process 0 alone.

On GPUs and TPUs all processes look for one program under one name, and what process 0
writes into a folder that all see serves them all. On CPUs the name holds the process
(`accelerator_config` in jax/_src/cache_key.py): the others found nothing and compiled
at every start, while process 0 waited for them in its first step.
"""

from types import SimpleNamespace
from typing import Any


def keep_in_every_process() -> None:
    """From now on this process writes into the compilation cache, if it has CPUs.

    JAX has no public name for it; where its own names are others, nothing changes.
    """
    try:
        from jax._src import compiler as module

        compiler: Any = module
        write, own = compiler._cache_write, compiler.distributed
        own.global_state.process_id  # noqa: B018 - is it there
    except (ImportError, AttributeError):
        return
    as_first = SimpleNamespace(global_state=SimpleNamespace(process_id=0))

    def write_in_any(*arguments: Any, **named: Any) -> Any:
        import jax

        if jax.default_backend() == "cpu":
            compiler.distributed = as_first
        try:
            return write(*arguments, **named)
        finally:
            compiler.distributed = own

    compiler._cache_write = write_in_any
