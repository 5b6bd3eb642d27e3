"""CLAIM 2024 and TRIPOD+AI: the items that a program can know, and those it cannot.

Items are named in our own words. CLAIM: Tejani et al., Radiology: Artificial
Intelligence 6 (2024), e240300. TRIPOD+AI: Collins et al., BMJ 385 (2024), e078378.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from attunet_jax.data.dataset import Dataset
from attunet_jax.evaluate.definitions import METRICS
from attunet_jax.evaluate.page.names import metrics_in
from attunet_jax.evaluate.page.study import facts
from attunet_jax.evaluate.page.study.facts import BLANK
from attunet_jax.evaluate.page.study.runs import Source
from attunet_jax.evaluate.scoring import scoring_text
from attunet_jax.web_page import table


@dataclass(frozen=True)
class Item:
    """What is to be reported, and what is known of it: a line for each fact."""

    claim: str  # number in CLAIM 2024; may be empty
    tripod: str  # in TRIPOD+AI; may be empty
    what: str
    known: tuple[str, ...] = ()  # none: to be filled by the authors


_MODEL = (
    "model.widths",
    "model.sub_gates",
    "model.gating_channels",
    "model.deep_supervision",
    "model.compute_dtype",
)
_TRAINING = ("train.steps", "train.epochs", "data.batch_size", "data.crop_shape")
_STATISTICS = (
    "mean with Student’s 95 % interval, deviation over cases, number of cases "
    "and of undefined scores",
    "pairs of networks on the same cases: Student’s 95 % interval of the mean "
    "difference, two-sided Wilcoxon signed-rank test, Holm’s correction",
)


def checklist(
    networks: Mapping[str, Sequence[Mapping]],
    sources: Mapping[str, Source],
    dataset: Dataset | None,
) -> list[Item]:
    """Returns the items in the order of CLAIM, filled with what is known."""
    known = {name: source.run for name, source in sources.items() if source.run}
    every = [row for rows in networks.values() for row in rows]

    def of_runs(*fields: str) -> tuple[str, ...]:
        """The fields of the configs: once where all runs agree."""
        return facts.agreed(
            {
                name: ", ".join(
                    f"{field} = {facts.text(value)}"
                    for field in fields
                    if (value := run.value(field)) is not None
                )
                for name, run in known.items()
            }
        )

    metrics = metrics_in(every)
    splits = facts.splits(sources, dataset)
    leaks = facts.leaks(sources, dataset)
    statistics = _STATISTICS[: min(len(networks), 2)]
    seen = ("Scores and Comparisons, above",)
    return [
        Item("1–4", "1–4", "Title, abstract, background, intended use, aims"),
        Item("5, 6", "4", "Design and goal of the study"),
        Item("7", "5a", "Sources of the data", facts.sources(dataset)),
        Item("7", "5b, 6a", "Dates and places of the scans"),
        Item("8", "6b", "Criteria for taking up cases"),
        Item("9", "7", "Preprocessing", facts.preprocessing(known, dataset)),
        Item("9", "7", "Normalisation of intensities", facts.normalisation(known)),
        Item("10, 11", "7", "Selection of data, removal of identities"),
        Item("12", "11", "Missing data", facts.missing(every, metrics)),
        Item("13", "9a", "Acquisition of the scans", facts.acquisition(dataset)),
        Item("14–18", "8a–c", "Truth: who drew it, how, and how far readers agree"),
        Item("19", "12a", "Splits: cases in each part", splits),
        Item("20", "12a", "What keeps the parts apart", facts.apart(dataset)),
        Item("20", "12a", "Test scans among the training scans", leaks),
        Item("21", "10", "Intended number of cases, and why"),
        Item("22", "12c, 22", "Network", (*of_runs("name"), *of_runs(*_MODEL))),
        Item("23", "12c", "Software and its versions", facts.software(known)),
        Item("24", "12c", "Initial parameters", facts.initial(known)),
        Item("25", "12c", "Augmentation", of_runs(*facts.fields("augment", known))),
        Item("25", "12c", "Loss", of_runs(*facts.fields("loss", known))),
        Item("25", "12c", "Optimiser", of_runs(*facts.fields("optimizer", known))),
        Item("25", "12c", "Length of training, batches", of_runs(*_TRAINING)),
        Item("25", "12c", "Seeds", (*of_runs("seed"), *facts.seeds(networks))),
        Item("25", "12c", "Hardware", facts.hardware(known)),
        Item("25", "12c", "Training time", facts.training_time(known)),
        Item("26", "12c", "Choice of the final weights", of_runs("predict.checkpoint")),
        Item("27", "12c", "Ensemble of networks"),
        Item(
            "28", "12e", "Metrics",
            tuple(f"{METRICS[m].label}: {METRICS[m].definition}" for m in metrics),
        ),
        Item("28", "12e", "Grid and definition of surfaces", (scoring_text(every),)),
        Item("29", "12e", "Statistics", statistics),
        Item("30", "12d, 14", "Robustness, fairness between groups"),
        Item("31", "12g", "Explanation of predictions"),
        Item("32", "12a", "Test on data of the same source", facts.tested(networks)),
        Item("33", "16", "Test on data of another source"),
        Item("34", "17, 18d", "Ethics, registration"),
        Item("35, 36", "20a–c", "Cases taken up and left out; who the patients are"),
        Item("37, 38", "23a", "Performance with its uncertainty", seen),
        Item("39", "23b", "Failures", ("Worst cases and All cases, above",)),
        Item("40, 41", "25–27", "Limits, use in practice"),
        Item("42, 43", "18c, 18e, 18f", "Protocol; code and data", facts.code(known)),
        Item("44", "18a, 18b", "Funding, interests"),
    ]  # fmt: skip


def checklist_section(
    networks: Mapping[str, Sequence[Mapping]],
    sources: Mapping[str, Source],
    dataset: Dataset | None,
) -> str:
    """Returns the checklist as a table."""
    items = checklist(networks, sources, dataset)
    filled = sum(bool(item.known) for item in items)
    lines = [
        f"<tr><td class=number>{escape(item.claim)}<td class=number>"
        f"{escape(item.tripod)}<th scope=row>{escape(item.what)}<td>"
        + (
            "<br>".join(map(escape, item.known))
            if item.known
            else f"<span class=blank>{BLANK}</span>"
        )
        for item in items
    ]
    head = (
        "<tr><th scope=col class=number>CLAIM<th scope=col class=number>TRIPOD+AI"
        "<th scope=col>What<th scope=col>In this study"
    )
    return (
        "<h2 id=checklist>Checklist for authors</h2>\n"
        f"<p class=note>Items of CLAIM 2024 and TRIPOD+AI in short words: {filled} "
        f"filled by the program, {len(items) - filled} {BLANK}. What is filled says "
        "what was done, not that it suffices.</p>\n"
        f"<div class=whole>{table(head, lines)}</div>\n"
    )
