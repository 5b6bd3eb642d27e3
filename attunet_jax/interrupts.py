"""Ctrl-C and SIGTERM, heard at once whatever the program is doing.

Python calls a signal's handler when its main thread is back from the function in C that
it is in, and a compilation takes minutes; an exception raised there may be swallowed by
a callback of JAX, or unwind the program while threads of XLA still work. So the
handlers do nothing. Python also writes the signal's number into a pipe, at once, and a
thread that reads it says what was heard and ends the program: its children are ended,
unfinished files removed (see `files.replacing`), no destructor runs.

Within `deferred` the first signal is only said and noted, and the work itself comes to
its end; the second one ends the program.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from attunet_jax.errors import INTERRUPTED, Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
CONTINUES = "the same command continues from here"
# A terminal signals all processes of a command, and a program that started others
# passes its signal on: what comes so soon again is the same request.
REPEAT_S = 0.3
# How long children and the disk may take before the program ends without them.
PATIENCE_S = 5.0


class Deferral:
    """Notes a signal for work that ends by itself soon after."""

    def __init__(
        self,
        waits_for: str,
        on_signal: Callable[[int], object] | None,
        second_ends: bool,
    ) -> None:
        self.number = 0  # of the first signal heard; 0 is none
        self._waits_for = waits_for
        self._on_signal, self._second_ends = on_signal, second_ends

    def check(self, outcome: str = CONTINUES) -> None:
        """Raises `Interrupted` once a signal was heard."""
        if self.number:
            raise Interrupted(f"{name_of(self.number)}: stopped; {outcome}")

    def hear(self, number: int) -> bool:
        """Notes the signal; returns whether the work may go on to its end."""
        first = not self.number
        self.number = self.number or number
        if self._on_signal:
            self._on_signal(number)
        if first and self._waits_for:
            say(
                f"{name_of(number)} heard: waits for {self._waits_for} (a second one "
                "ends the program at once)"
            )
        return first or not self._second_ends


class _Listener:
    """The pipe that Python writes signals into, and the thread that reads it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.deferral: Deferral | None = None
        self.ignores = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before: dict[int, object] = {}
        self._before_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self.take_signals()
        threading.Thread(target=self._listen, name="interrupts", daemon=True).start()

    def take_signals(self) -> None:
        """Also when others took them: JAX does, where processes join."""
        for number in SIGNALS:
            before = signal.signal(number, _leave_to_thread)
            self._before.setdefault(number, before)

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        signal.set_wakeup_fd(self._before_fd)
        os.write(self._write, b"\0")

    def _listen(self) -> None:
        heard_s = -REPEAT_S
        while 0 not in (numbers := os.read(self._read, 64)):
            for number in numbers:
                now_s = time.monotonic()
                if number in SIGNALS and now_s - heard_s >= REPEAT_S:
                    heard_s = now_s
                    self._hear(number)
        os.close(self._read)
        os.close(self._write)

    def _hear(self, number: int) -> None:
        with self.lock:
            if self.ignores or (self.deferral and self.deferral.hear(number)):
                return
        _end(number)


_listener: _Listener | None = None
_outcome = CONTINUES
_at_end: list[Callable[[], object]] = []
_ending = threading.Event()
# Held by whoever changes what is on the disk; the thread that ends the program takes it
# and never gives it back.
_changes = threading.Lock()


def listen(outcome: str | None = None) -> None:
    """From now on a signal ends this program in order, with status 75.

    `outcome` follows on what was heard: what the same command will do.
    """
    global _listener, _outcome
    _outcome = outcome or _outcome
    if _listener is None:
        _listener = _Listener()


@contextmanager
def deferred(
    waits_for: str = "",
    *,
    on_signal: Callable[[int], object] | None = None,
    second_ends: bool = True,
) -> Iterator[Deferral]:
    """Within, the first signal is noted in `number` and does not end the program.

    Args:
      waits_for: what is said to be waited for; nothing is said without it.
      on_signal: called with the number of each signal, in another thread.
      second_ends: whether the next signal ends the program.
    """
    global _listener
    deferral = Deferral(waits_for, on_signal, second_ends)
    if threading.current_thread() is not threading.main_thread():
        yield deferral  # signals are the main thread's
        return
    own = _listener is None
    listener = _listener = _listener or _Listener()
    listener.take_signals()
    with listener.lock:
        before, listener.deferral = listener.deferral, deferral
    try:
        yield deferral
    finally:
        with listener.lock:
            listener.deferral = before
        if own:
            listener.close()
            _listener = None


def at_end(function: Callable[[], object]) -> None:
    """Has `function` called before a signal ends the program; the last one first."""
    _at_end.append(function)


@contextmanager
def changing() -> Iterator[None]:
    """Within, a file is begun or named; never entered once a signal ends all."""
    with _changes:
        yield


def wait_if_ending() -> None:
    """Does not return where a signal is ending the program: that has the last word."""
    if _ending.is_set():
        threading.Event().wait()


def ignore() -> None:
    """From now on signals change nothing: the program has done all, and is ending."""
    if _listener is not None:
        with _listener.lock:
            _listener.ignores = True


def leave(status: int) -> NoReturn:
    """Ends the program; after an interruption without waiting for threads of others."""
    wait_if_ending()
    if status == INTERRUPTED:
        _flush()
        os._exit(status)
    # While Python ends, it puts back the handlers that kill, but keeps these.
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    sys.exit(status)


def name_of(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def say(line: str) -> None:
    """Prints a line on stderr, whatever the main thread holds."""
    bars = getattr(sys.modules.get("tqdm"), "tqdm", None)
    begin = "\n" if getattr(bars, "_instances", None) else ""
    try:
        os.write(2, f"{begin}{line}\n".encode())
    except OSError:
        pass  # nobody reads it any more


def _leave_to_thread(*_: object) -> None:
    """A handler has to be there: only then the number is written to the pipe."""


def _end(number: int) -> NoReturn:
    _ending.set()
    say(f"interrupted by {name_of(number)}: {_outcome}")
    _changes.acquire(timeout=PATIENCE_S)
    _end_children()
    for function in reversed(_at_end):
        try:
            function()
        except Exception:  # noqa: BLE001 - the others are called in any case
            pass
    _flush()
    os._exit(INTERRUPTED)


def _flush() -> None:
    """What was printed; not for longer than its reader takes it."""
    thread = threading.Thread(target=sys.stdout.flush, daemon=True)
    thread.start()
    thread.join(1.0)


def _end_children() -> None:
    """Kills the processes that this one started, and waits until they are gone."""
    pids = _descendants(os.getpid())
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    until_s = time.monotonic() + PATIENCE_S
    while set(pids) & set(_descendants(os.getpid())) and time.monotonic() < until_s:
        time.sleep(0.01)


def _descendants(pid: int) -> list[int]:
    """Those that run, by /proc; elsewhere those that multiprocessing knows."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # ended while we looked
        if fields[0] not in "ZX":
            parents[int(stat.parent.name)] = int(fields[1])
    if not parents:
        return [p.pid for p in multiprocessing.active_children() if p.pid]
    found = [pid]
    for ancestor in found:
        found += [child for child, parent in parents.items() if parent == ancestor]
    return found[1:]
