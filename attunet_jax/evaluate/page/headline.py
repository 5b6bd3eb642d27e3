"""The page's first words, which say no more than its statistics do."""

from collections.abc import Sequence
from html import escape

from attunet_jax.evaluate.page.names import number, organ_label, organs_in
from attunet_jax.evaluate.page.scores import Means, Networks
from attunet_jax.evaluate.statistics.comparison import Comparison
from attunet_jax.evaluate.statistics.intervals import UNRELIABLE_BELOW

MOST_NAMED = 6  # organs or claims in a sentence


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
        paragraphs.append(_difference([c for c in found if c.metric == "dice"]))
    return "".join(f"<p>{escape(text)}</p>\n" for text in paragraphs)


def _means(organs: Sequence[str], means: Means) -> str:
    of_networks = []
    for name, of_network in means.items():
        shown = [
            f"{organ_label(organ)} {number(dice['mean'])}"
            + (
                f" [{number(dice['low'])}, {number(dice['high'])}]"
                if dice["low"] is not None
                else ""
            )
            for organ in organs[:MOST_NAMED]
            if (dice := of_network.get(organ, {}).get("dice")) and dice["n"]
        ]
        if shown:
            if len(organs) > MOST_NAMED:
                shown.append(f"{len(organs) - MOST_NAMED} more in the table")
            of_networks.append(f"{name}: {', '.join(shown)}.")
    if not of_networks:
        return ""
    return f"Mean Dice with its 95 % interval. {' '.join(of_networks)}"


def _difference(of_dice: Sequence[Comparison]) -> str:
    if not of_dice:
        return "The networks have no case in common, so nothing can be compared."
    better = [c for c in of_dice if c.better]
    if not better:
        text = (
            f"Of {_count(len(of_dice), 'paired comparison')} of Dice none supports "
            "that a network is better"
        )
        text += "; that is no proof that they are equal."
        shown = [c for c in of_dice if c.detectable is not None][:MOST_NAMED]
        if shown and len(of_dice) <= MOST_NAMED:
            limits = ", ".join(
                f"{number(c.detectable)} ({organ_label(c.organ)})" for c in shown
            )
            text += f" A difference smaller than {limits} would hardly have shown."
        return text
    claims = []
    for c in better[:MOST_NAMED]:
        worse = c.first if c.better == c.second else c.second
        ends = sorted(abs(end) for end in (c.low, c.high) if end is not None)
        claims.append(
            f"{organ_label(c.organ)}: {c.better} over {worse} by "
            f"{number(abs(c.mean_difference or 0))} [{number(ends[0])}, "
            f"{number(ends[-1])}], p {_p(c.p_holm)} after Holm’s correction"
        )
    text = f"A higher mean Dice is supported for {'; '.join(claims)}"
    if len(better) > MOST_NAMED:
        text += f"; and {len(better) - MOST_NAMED} more in the table"
    if rest := len(of_dice) - len(better):
        text += f". {_count(rest, 'other comparison')} of Dice: no difference shown"
    return f"{text}."


def _p(p: float | None) -> str:
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"= {number(p)}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
