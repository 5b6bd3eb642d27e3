"""Checks that evaluations can be compared: the same cases, organs, grid and truth."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from attunet_jax.errors import BadArguments
from attunet_jax.evaluate.evaluations import Evaluation
from attunet_jax.evaluate.scoring import scored_apart

# What a row must share with the others' of its case and organ: the size of the truth.
_TRUTH = "truth_vox"


def comparable(
    evaluations: Sequence[Evaluation],
    *,
    common: bool = False,
    organs: Collection[str] | None = None,
) -> list[Evaluation]:
    """Returns the evaluations with the rows that can be compared.

    Args:
      evaluations: two or more, with different names.
      common: whether cases and organs that not all have are left out; otherwise they
        are refused.
      organs: only these.

    Raises:
      BadArguments: the evaluations have no common case or organ, or others than
        `common` allows; another grid, definition, spacing or truth.
    """
    organs = _organs(evaluations, common, organs)
    kept = [
        replace(e, rows=[row for row in e.rows if row["organ"] in organs])
        for e in evaluations
    ]
    cases = _cases(kept, common)
    kept = [
        replace(e, rows=[row for row in e.rows if row["case_id"] in cases])
        for e in kept
    ]
    first, *others = kept
    for other in others:
        pair = f"{first.name} and {other.name}"
        if reason := scored_apart(first.rows, other.rows):
            raise BadArguments(
                f"{pair}: were scored with {reason}: evaluate both alike, say with "
                "launch.evaluate --grid=scan"
            )
        if reason := _other_truth(first, other):
            raise BadArguments(
                f"{pair}: were scored against other label maps: {reason}"
            )
    return kept


def _organs(
    evaluations: Sequence[Evaluation], common: bool, wanted: Collection[str] | None
) -> Collection[str]:
    of_each = {e.name: _values(e, "organ") for e in evaluations}
    if wanted is not None:
        for name, found in of_each.items():
            if lacking := [organ for organ in wanted if organ not in found]:
                raise BadArguments(
                    f"--organs={','.join(lacking)}: {name} has {', '.join(found)}"
                )
        return wanted
    shared = _shared(of_each)
    if not shared:
        raise BadArguments(
            "no common organ: "
            + "; ".join(f"{name} has {', '.join(f)}" for name, f in of_each.items())
        )
    if (only := _only(of_each, shared)) and not common:
        raise BadArguments(
            f"other organs: {_listed(only)}: --common compares the organs that all "
            f"have ({', '.join(shared)})"
        )
    return shared


def _cases(evaluations: Sequence[Evaluation], common: bool) -> Collection[str]:
    of_each = {e.name: _values(e, "case_id") for e in evaluations}
    shared = _shared(of_each)
    if not shared:
        raise BadArguments(
            "no common case: "
            + "; ".join(
                f"{name} has {len(found)} ({', '.join(list(found)[:2])}, ...)"
                for name, found in of_each.items()
            )
        )
    if (only := _only(of_each, shared)) and not common:
        counts = ", ".join(f"{name} {len(found)}" for name, found in of_each.items())
        raise BadArguments(
            f"evaluated on different cases ({counts}; {len(shared)} common): "
            f"{_listed(only)}: --common compares those {len(shared)}"
        )
    return shared


def _values(evaluation: Evaluation, key: str) -> dict[str, None]:
    """Returns the organs or cases of an evaluation, in their order."""
    return dict.fromkeys(row[key] for row in evaluation.rows)


def _shared(of_each: Mapping[str, Mapping[str, None]]) -> dict[str, None]:
    first, *others = of_each.values()
    return {value: None for value in first if all(value in found for found in others)}


def _only(
    of_each: Mapping[str, Mapping[str, None]], shared: Collection[str]
) -> dict[str, list[str]]:
    """Returns what is not in all, by the evaluation that has it."""
    only = {n: [v for v in found if v not in shared] for n, found in of_each.items()}
    return {name: values for name, values in only.items() if values}


def _listed(only: Mapping[str, Sequence[str]]) -> str:
    """`A has spleen; B has case_4, case_5, case_6 and 2 more`: what not all have."""
    texts = []
    for name, values in only.items():
        more = f" and {len(values) - 3} more" if len(values) > 3 else ""
        texts.append(f"{name} has {', '.join(values[:3])}{more}")
    return f"{'; '.join(texts)}, which not all have"


def _other_truth(first: Evaluation, other: Evaluation) -> str | None:
    """Says in which case the truth has another size; rows of before may not know."""
    sizes = {(r["case_id"], r["organ"]): r.get(_TRUTH) for r in first.rows}
    for row in other.rows:
        here, there = sizes.get((row["case_id"], row["organ"])), row.get(_TRUTH)
        if here is not None and there is not None and here != there:
            return (
                f"the true {row['organ']} of {row['case_id']} has {here} and {there} "
                "voxels"
            )
    return None
