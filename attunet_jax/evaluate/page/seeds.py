"""One row a case and organ, where a network was trained with several seeds."""

from collections.abc import Mapping, Sequence

from attunet_jax.evaluate.page.names import metrics_in
from attunet_jax.evaluate.statistics.scores import by_case
from attunet_jax.evaluate.statistics.seeds import has_seeds


def over_seeds(rows: Sequence[Mapping]) -> list[Mapping]:
    """Averages the scores of each case and organ over the seeds.

    What one seed leaves undefined is undefined. Rows of one seed come back as they are.
    """
    if not has_seeds(rows):
        return list(rows)
    of_organ: dict[str, dict[str, dict]] = {}
    for row in rows:
        first = {key: value for key, value in row.items() if key != "seed"}
        of_organ.setdefault(row["organ"], {}).setdefault(row["case_id"], first)
    for organ, cases in of_organ.items():
        for metric in metrics_in(rows):
            for case_id, value in by_case(rows, organ, metric).items():
                cases[case_id][metric] = value
    return [row for cases in of_organ.values() for row in cases.values()]
