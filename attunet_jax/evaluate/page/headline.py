"""The page's first words, which say no more than its statistics do."""

from collections.abc import Sequence
from html import escape

from attunet_jax.evaluate.page.names import number, organ_label, organs_in
from attunet_jax.evaluate.page.scores import Means, Networks
from attunet_jax.evaluate.statistics.comparison import Comparison
from attunet_jax.evaluate.statistics.intervals import UNRELIABLE_BELOW
from attunet_jax.evaluate.statistics.paired import LEVEL

MOST_NAMED = 6  # claims in a sentence
MOST_MEANS = 8


def headline(networks: Networks, means: Means, found: Sequence[Comparison]) -> str:
    """Returns a few sentences as HTML: how many cases, means, what differs."""
    cases = {row["case_id"] for rows in networks.values() for row in rows}
    organs = organs_in(networks)
    first = (
        f"{_count(len(networks), 'network')}, {_count(len(cases), 'case')}, "
        f"{_count(len(organs), 'organ')}."
    )
    if len(cases) < UNRELIABLE_BELOW:
        first += f" Below {UNRELIABLE_BELOW} cases intervals are unreliable."
    paragraphs = [first]
    if text := _means(organs, means):
        paragraphs.append(text)
    if len(networks) > 1:
        paragraphs.append(difference_text([c for c in found if c.metric == "dice"]))
    return "".join(f"<p>{escape(text)}</p>\n" for text in paragraphs)


def _means(organs: Sequence[str], means: Means) -> str:
    """Every mean with its interval where they are few, else the lowest and highest."""
    few = len(organs) * len(means) <= MOST_MEANS
    of_networks = []
    for name, of_network in means.items():
        shown = {
            organ: dice
            for organ in organs
            if (dice := of_network.get(organ, {}).get("dice")) and dice["n"]
        }
        if not shown:
            continue
        if not few:
            low, high = (f(shown, key=lambda o: shown[o]["mean"]) for f in (min, max))
            of_networks.append(
                f"{name}: {number(shown[low]['mean'])} ({organ_label(low)}) to "
                f"{number(shown[high]['mean'])} ({organ_label(high)})."
            )
            continue
        texts = [
            f"{organ_label(organ)} {number(dice['mean'])}"
            + (
                f" [{number(dice['low'])}, {number(dice['high'])}]"
                if dice["low"] is not None
                else ""
            )
            for organ, dice in shown.items()
        ]
        of_networks.append(f"{name}: {', '.join(texts)}.")
    if not of_networks:
        return ""
    what = "with its 95 % interval" if few else "of the organs, lowest to highest"
    return f"Mean Dice {what}. {' '.join(of_networks)}"


def difference_text(of_dice: Sequence[Comparison]) -> str:
    """Says of which organs a higher mean Dice is supported, and of how many not."""
    if not of_dice:
        return "The networks have no case in common, so nothing can be compared."
    better = [c for c in of_dice if c.better]
    firm = [c for c in better if c.p_holm is not None and c.p_holm < LEVEL]
    text = ""
    if firm:
        claims = "; ".join(map(_claim, firm[:MOST_NAMED]))
        text = f"A higher mean Dice is supported for {claims}"
        if len(firm) > MOST_NAMED:
            text += f"; and {len(firm) - MOST_NAMED} more in the table"
        text += ". "
    if loose := len(better) - len(firm):
        text += (
            f"In {_count(loose, 'comparison')} of {len(of_dice)} the 95 % interval of "
            "the difference in Dice leaves out 0, but p does not keep below 0.05 when "
            "corrected for all comparisons (Holm): among so many, some do by chance. "
        )
    if rest := len(of_dice) - len(better):
        others = "other " if better else ""
        text += (
            f"{_count(rest, f'{others}paired comparison')} of Dice: no difference "
            "shown; that is no proof that the networks are equal."
        )
    shown = [c for c in of_dice if c.detectable is not None]
    if shown and not better and len(of_dice) <= MOST_NAMED:
        limits = ", ".join(
            f"{number(c.detectable)} ({organ_label(c.organ)})" for c in shown
        )
        text += f" A difference smaller than {limits} would hardly have shown."
    return text.strip()


def _claim(c: Comparison) -> str:
    worse = c.first if c.better == c.second else c.second
    ends = sorted(abs(end) for end in (c.low, c.high) if end is not None)
    return (
        f"{organ_label(c.organ)}: {c.better} over {worse} by "
        f"{number(abs(c.mean_difference or 0))} [{number(ends[0])}, "
        f"{number(ends[-1])}], p {_p(c.p_holm)} after Holm’s correction"
    )


def _p(p: float | None) -> str:
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"= {number(p)}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
