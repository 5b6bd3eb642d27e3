"""Small vector drawings: axes with round numbers, and marks in a network's colour.

Marks that are many are one path, a few bytes each. Colours are classes of the page's
style (`n0`, `n1`, ...), so that a drawing reads on light and dark ground and on paper.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = 8  # of networks; the ninth has the first's again
LETTER = 5.6  # mean width of a letter of the drawings' text, in pixels


@dataclass(frozen=True)
class Scale:
    """Takes values from [low, high] to pixels [start, end]; logarithmic if `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = (math.log10(x) for x in (low, high, max(value, low)))
        share = (value - low) / (high - low)
        return self.start + (self.end - self.start) * share

    def ticks(self, count: int = 5) -> list[float]:
        """Returns about `count` round numbers within the range."""
        if self.log:
            return _log_ticks(self.low, self.high)
        step = _round_step((self.high - self.low) / count)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


def around(values: Sequence[float], count: int = 5) -> tuple[float, float]:
    """Returns round bounds that hold all values, which differ even if those do not."""
    low, high = min(values), max(values)
    if high - low < 1e-9:
        margin = max(abs(low) * 0.05, 0.05)
        low, high = low - margin, high + margin
    step = _round_step((high - low) / count)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(r * power for r in (1, 2, 2.5, 5, 10) if r * power >= step * 0.999)


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1,) if last - first > 3 else (1, 3) if last - first > 1 else (1, 2, 5)
    ticks = [m * 10.0**e for e in range(first, last + 1) for m in steps]
    return [t for t in ticks if low * 0.999 <= t <= high * 1.001]


def drawing(width: int, height: int, body: str, alt: str) -> str:
    """Returns the drawing; `alt` says what it shows, for those who do not see it."""
    return (
        f'<svg viewBox="0 0 {width} {height}" width={width} height={height} role=img '
        f'aria-label="{escape(alt, quote=True)}">{body}</svg>'
    )


def text(x: float, y: float, words: str, kind: str = "", title: str = "") -> str:
    """Returns a text; `kind` names classes: `m` centred, `e` ended at x, `b` strong."""
    hint = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<text x={px(x)} y={px(y)} class="{kind}">{escape(words)}{hint}</text>'
        if kind
        else f"<text x={px(x)} y={px(y)}>{escape(words)}{hint}</text>"
    )


def vertical_axis(scale: Scale, left: float, right: float) -> str:
    """Returns lines across the drawing at round values, with the values at the left."""
    ticks = scale.ticks()
    lines = "".join(f"M{px(left)} {px(scale(t))}H{px(right)}" for t in ticks)
    words = "".join(
        text(left - 5, scale(t) + 3.5, tick_text(t, ticks), "e") for t in ticks
    )
    return f'<path class=g d="{lines}"/>{words}'


def horizontal_axis(scale: Scale, bottom: float) -> str:
    """Returns a line below the drawing with marks and round values."""
    ticks = scale.ticks()
    marks = "".join(f"M{px(scale(t))} {px(bottom)}v4" for t in ticks)
    line = f"M{px(scale.start)} {px(bottom)}H{px(scale.end)}"
    words = "".join(
        text(scale(t), bottom + 15, tick_text(t, ticks), "m") for t in ticks
    )
    return f'<path class=g d="{line}{marks}"/>{words}'


def tick_text(value: float, ticks: Sequence[float]) -> str:
    """Returns a round number with the decimals that its neighbours need too."""
    for digits in range(7):
        if all(abs(t - round(t, digits)) < 1e-9 * max(1, abs(t)) for t in ticks):
            return f"{value:,.{digits}f}".replace("-", "−")
    return f"{value:.2g}".replace("-", "−")


def dots(points: Iterable[tuple[float, float]], colour: int) -> str:
    """Returns round dots as one path."""
    path = "".join(f"M{px(x)} {px(y)}h0" for x, y in points)
    return f'<path class="p n{colour % COLOURS}" d="{path}"/>' if path else ""


def line(points: Sequence[tuple[float, float]], kind: str) -> str:
    """Returns a line through the points; `kind` names its classes."""
    if not points:
        return ""
    path = "M" + "L".join(f"{px(x)} {px(y)}" for x, y in points)
    return f'<path class="{kind}" d="{path}"/>'


def px(value: float) -> str:
    """Returns a length with at most one decimal, in few characters."""
    return f"{value:.1f}".removesuffix(".0")


def shortened(words: str, width: float, *, measure: Callable[[str], int] = len) -> str:
    """Returns the words, cut in the middle where they are wider than `width` pixels."""
    letters = max(int(width / LETTER), 3)
    if measure(words) <= letters:
        return words
    front = (letters - 1 + 1) // 2
    return words[:front] + "…" + words[len(words) - (letters - 1 - front) :]
