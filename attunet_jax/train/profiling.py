"""`--profile_steps=10:12` in, a profile that XProf and TensorBoard open out."""

from pathlib import Path

import jax

from attunet_jax.errors import BadArguments


def parse_steps(text: str | None) -> tuple[int, int] | None:
    """ "10:12" to (10, 12): first and last step. Raises `BadArguments`."""
    if not text:
        return None
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last)):
        raise BadArguments(
            f"--profile_steps={text} is not FIRST:LAST, two steps from 1 on"
        )
    return int(first), int(last)


class Profile:
    """Records the wanted steps of this process into `workdir/profile`.

    `wanted` None records nothing.
    """

    def __init__(self, workdir: Path, wanted: tuple[int, int] | None) -> None:
        self._folder = workdir / "profile"
        self._wanted = wanted
        self._running = False

    def before(self, step: int) -> None:
        """Before the step is sent off. One that was to begin before now begins here."""
        if self._wanted and not self._running and self._wanted[0] <= step:
            if step <= self._wanted[1]:
                jax.profiler.start_trace(self._folder)
                self._running = True

    def after(self, step: int, result: object) -> str | None:
        """After it is sent off; says where the profile lies once it is written."""
        if not (self._running and self._wanted and step == self._wanted[1]):
            return None
        first = self._wanted[0]
        jax.block_until_ready(result)
        self.close()
        return (
            f"profile of steps {first} to {step}: tensorboard --logdir="
            f"{self._folder} (needs tensorboard-plugin-profile), or xprof"
        )

    def close(self) -> None:
        """Writes what was recorded so far."""
        if self._running:
            jax.profiler.stop_trace()
            self._running, self._wanted = False, None
