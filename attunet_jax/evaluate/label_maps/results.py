"""The folder of scored label maps: what it holds, and whose scores it may take."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attunet_jax.errors import BadArguments
from attunet_jax.evaluate.definitions import METRICS, definitions_text
from attunet_jax.evaluate.journal import journal_of, lines, rows_in
from attunet_jax.evaluate.label_maps.measure import Settings
from attunet_jax.evaluate.label_maps.nnunet import nnunet_summary_text
from attunet_jax.evaluate.scoring import scoring_text
from attunet_jax.evaluate.summary import markdown_summary, short_summary, summary
from attunet_jax.files import read_json, write_text
from attunet_jax.storage.names import lies_within, shown

FORMAT, FORMAT_VERSION = "attunet_jax.score", 1
CASES, RECORD = "cases.jsonl", "score.json"


@dataclass
class Scores:
    """What was scored.

    `left_out` has a line for each kind of thing that was not, `unmatched` for label
    maps of one folder alone; `notes` say how names, grids and files were understood.
    """

    rows: list[dict] = field(default_factory=list)
    text: str = ""
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)

    @property
    def unscored(self) -> list[str]:
        """Lines of all that was not scored."""
        return [*self.unmatched, *self.left_out]


def check_output(output: Path, truth: Path, prediction: Path) -> None:
    """Raises `BadArguments` where results would lie among what they are of.

    Also where the folder holds the scores of something else.
    """
    for place in (truth, prediction):
        if place.is_dir() and lies_within(output, place):
            raise BadArguments(
                f"--output={output} lies within {place}, which is only read: name "
                "another folder"
            )
    try:
        there = read_json(output / RECORD)
    except FileNotFoundError:
        begun = rows_in(journal_of(output / CASES))
        ours = all("truth_sha256" in row for row in begun)
        if (output / CASES).exists() or not ours:
            raise BadArguments(
                f"{output}: holds an evaluation that launch.score did not make; use "
                "another --output"
            ) from None
        return
    for side, place in (("truth", truth), ("prediction", prediction)):
        known = there.get(side) if isinstance(there, dict) else None
        if known != shown(place.resolve()):
            raise BadArguments(
                f"{output}: holds the scores of another {side} ({known}); use another "
                "--output, or remove it"
            )


def record_of(truth: Path, prediction: Path, settings: Settings) -> dict[str, Any]:
    return json.loads(
        json.dumps(
            {
                "format": FORMAT,
                "version": FORMAT_VERSION,
                "truth": shown(truth.resolve()),
                "prediction": shown(prediction.resolve()),
                "organs": [asdict(organ) for organ in settings.meaning.organs],
                "ignored_values": settings.meaning.ignored,
                "resample": settings.resample,
                "definition": settings.definition,
                "software": version("attunet_jax"),
            }
        )
    )


def forget(output: Path) -> None:
    """Removes rows that were scored under wrong names, and a folder with no others."""
    journal_of(output / CASES).unlink(missing_ok=True)
    if output.is_dir() and not any(output.iterdir()):
        output.rmdir()


def write_results(output: Path, result: Scores, record: Mapping[str, Any]) -> None:
    """Writes all results at the end; `result.text` is a short summary."""
    path = output / CASES
    for name in ("summary.json", "summary.md", "nnunet_summary.json"):
        (output / name).unlink(missing_ok=True)
    write_text(path, lines(result.rows))
    journal_of(path).unlink(missing_ok=True)
    numbers = summary(result.rows)
    told = [*result.notes, *(f"not scored: {x}" for x in result.unscored)]
    scored = "".join(f"\n{x}\n" for x in (scoring_text(result.rows), *told))
    text = markdown_summary(numbers, result.rows) + scored
    write_text(output / "summary.md", f"{text}\n{definitions_text(METRICS)}")
    write_text(output / "summary.json", json.dumps(numbers, indent=2) + "\n")
    result.text = (
        f"{short_summary(numbers)}{scored}\n"
        f"all scores, with intervals and definitions: {output / 'summary.md'}"
    )
    write_text(output / "nnunet_summary.json", nnunet_summary_text(result.rows))
    write_text(output / RECORD, json.dumps(record, indent=2) + "\n")
