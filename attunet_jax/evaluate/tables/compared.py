"""Compares any evaluated networks, without a table of the paper around them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from attunet_jax.evaluate.scoring import scoring_text
from attunet_jax.evaluate.statistics.comparison import best_of, compare_networks
from attunet_jax.evaluate.statistics.ranks import ranks
from attunet_jax.evaluate.statistics.scores import by_organ, label, metric_label
from attunet_jax.evaluate.statistics.seeds import spread_of_seeds
from attunet_jax.evaluate.summary import summary
from attunet_jax.evaluate.tables.formats import (
    challenge_csv,
    comparisons_csv,
    markdown,
)
from attunet_jax.evaluate.tables.latex import latex
from attunet_jax.evaluate.tables.notes import notes_on_statistics
from attunet_jax.evaluate.tables.sheets import (
    Sheet,
    sheets_of_statistics,
    spread_cell,
    words,
)


def compared(
    networks: Mapping[str, Sequence[Mapping]],
    *,
    metrics: Sequence[str],
    interval: str = "t",
    seed: int = 0,
) -> dict:
    """Compares networks that were evaluated on the same cases.

    Args:
      networks: name -> rows of cases.jsonl, with `seed` where there are several.
      metrics: names of definitions.METRICS.
      interval, seed: as for `mean_interval`.

    Returns:
      JSON-ready: title, cases, interval; `networks` (name, seeds); `quantities` (label,
      organ, metric, and for each network a cell as `summary` gives it, and whether it
      is better than all others); `comparisons`, `seeds` and `ranks` as in a table of
      the paper; `footnotes`.
    """
    organs = list(dict.fromkeys(r["organ"] for rows in networks.values() for r in rows))
    cases = list(
        dict.fromkeys(r["case_id"] for rows in networks.values() for r in rows)
    )
    found = compare_networks(
        networks, organs=organs, metrics=metrics, interval=interval, seed=seed
    )
    best = best_of(found, len(networks))
    summaries = {
        name: summary(rows, metrics, interval=interval, seed=seed)
        for name, rows in networks.items()
    }

    def cell(name: str, organ: str, metric: str) -> dict | None:
        spread = summaries[name].get(organ, {}).get(metric)
        return spread and spread | {"better": (name, organ, metric) in best}

    quantities = [(organ, metric) for organ in organs for metric in metrics]
    grouped = {name: by_organ(rows) for name, rows in networks.items()}
    of_organ = {
        organ: {name: grouped[name].get(organ, []) for name in networks}
        for organ in organs
    }
    filled: dict = {
        "title": f"{' and '.join(networks)} on {len(cases)} cases",
        "cases": cases,
        "interval": interval,
        "networks": [
            {"name": name, "seeds": len({row.get("seed") for row in rows})}
            for name, rows in networks.items()
        ],
        "quantities": [
            {
                "label": label(organ, metric),
                "organ": organ,
                "metric": metric,
                "cells": [cell(name, organ, metric) for name in networks],
            }
            for organ, metric in quantities
        ],
        "comparisons": [
            {"label": label(c.organ, c.metric), **asdict(c)} for c in found
        ],
        "seeds": [
            {"label": label(organ, metric), "network": name, **asdict(spread)}
            for organ, metric in quantities
            for name, rows in of_organ[organ].items()
            if (spread := spread_of_seeds(rows, organ, metric))
        ],
        "ranks": [
            {"label": label(organ, metric), **asdict(rank)}
            for organ, metric in quantities
            for rank in ranks(of_organ[organ], organ, metric, seed=seed)
        ],
    }
    cells = [cell for q in filled["quantities"] for cell in q["cells"]]
    filled["footnotes"] = [
        scoring_text(row for rows in networks.values() for row in rows),
        *notes_on_statistics(cells, filled, metrics),
    ]
    return filled


def lacking(rows: Sequence[Mapping], metrics: Sequence[str]) -> list[str]:
    """Returns the labels of metrics that no row has: rows of older versions."""
    known = {key for row in rows for key in row}
    return [metric_label(name) for name in metrics if name not in known]


def compared_markdown(filled: Mapping) -> str:
    return markdown(f"{filled['title']}", _sheets(filled), filled["footnotes"])


def compared_files(
    filled: Mapping, networks: Mapping[str, Sequence[Mapping]]
) -> dict[str, str]:
    """Returns the name and content of each file of a comparison."""
    quantities = [(q["organ"], q["metric"]) for q in filled["quantities"]]
    rows = {(name, ""): of_network for name, of_network in networks.items()}
    return {
        "compare.md": compared_markdown(filled),
        "compare.csv": comparisons_csv(filled["comparisons"]),
        "compare.json": json.dumps(filled, indent=2, ensure_ascii=False) + "\n",
        "compare.tex": latex(
            filled["title"], "compare", _sheets(filled), filled["footnotes"]
        ),
        "compare_cases.csv": challenge_csv(rows, quantities),
    }


def _sheets(filled: Mapping) -> list[Sheet]:
    networks = [network["name"] for network in filled["networks"]]
    main = [words("Quantity", *networks)]
    for quantity in filled["quantities"]:
        cells = [spread_cell(c, quantity["metric"]) for c in quantity["cells"]]
        main.append([*words(quantity["label"]), *cells])
    names = {(name, ""): name for name in networks}
    return [Sheet("", main), *sheets_of_statistics(filled, names)]
