"""Scores anybody's label maps against the truth: two folders, no run needed.

    python -m launch.score --truth=labelsTs --prediction=PREDICTIONS
    python -m launch.score --truth=LABELS --prediction=PREDICTIONS --output=SCORES \\
        --labels=spleen=1,pancreas=2,kidney=3+4 --images=SCANS --only_common

Each is a folder of label maps (NIfTI; NRRD and .mha with SimpleITK), at any depth, or
one file; also nnU-Net's output folder as it is, and TotalSegmentator's folders of
masks. Label maps of one name are a pair: NAME.nii.gz in both, or NAME_0000. Values are
named by --labels, or by labels.json or dataset.json in a folder or beside it, and
organs are matched by name; without names each value is one. A prediction on another
grid than its truth is refused, or with --resample put onto it. Scores are those on the
truth's own grid.

Writes what launch.evaluate writes (cases.jsonl, summary.json, summary.md), nnU-Net's
summary as nnunet_summary.json, report.html, a page with plots and tables, and
score.json, which says what was compared. The same
command continues after an interruption and scores what has changed. What has no other
half or cannot be scored is named, the others are scored, and the exit status is 3;
with --only_common label maps of one folder alone do not count. Voxels of a value
without a name are background; which values these are is said.
"""

import sys
from pathlib import Path

from attunet_jax.errors import BadArguments, BadData
from attunet_jax.evaluate.results_folder import open_results
from attunet_jax.files import is_url
from attunet_jax.storage.mirror import mirrored
from attunet_jax.storage.names import shown, with_urls
from attunet_jax.volume import split_ending
from launch import cli

FLAGS = cli.Flags(__doc__)
FLAGS.add(
    "truth", cli.readable, None, "Folder of true label maps, or one.", required=True
)
FLAGS.add(
    "prediction", cli.readable, None, "Folder of predictions, or one.", required=True
)
FLAGS.add_cache_dir()
FLAGS.add(
    "labels",
    str,
    None,
    "Values in the truth: spleen=1,kidney=2+3,ignore=255; in the "
    "predictions too, unless a file beside them names theirs.",
)
FLAGS.add("prediction_labels", str, None, "The same of the predictions.")
FLAGS.add(
    "output",
    cli.writable,
    None,
    "Folder for the results, also of gs:// or s3:// (default: PREDICTION_score).",
)
FLAGS.add("resample", bool, False, "Put predictions onto their truth's grid, nearest.")
FLAGS.add(
    "definition",
    str,
    "mesh",
    "Whose areas weigh the pieces of a surface.",
    choices=("mesh", "surface_distance"),
)
FLAGS.add("only_common", bool, False, "Score what both have; the rest is no mistake.")
FLAGS.add(
    "images", cli.readable, None, "Folder of the scans: draws a picture of each case."
)
FLAGS.add("pictures", int, None, "Only of the first so many cases.")
FLAGS.add("report", bool, True, "Also write report.html, a page to look at.")
FLAGS.add(
    "workers",
    int,
    None,
    "Processes, each with one case in memory (default: as many as cores, fewer if "
    "memory is short).",
)


def main(values: cli.Values) -> None:
    for name, least in (("workers", 1), ("pictures", 0)):
        given = getattr(values, name)
        if given is not None and given < least:
            raise BadArguments(f"--{name}={given} must be {least} or more")
    if values.pictures is not None and values.images is None:
        raise BadArguments(f"--pictures={values.pictures} needs --images=FOLDER")
    if is_url(values.prediction) and values.output is None:
        raise BadArguments(
            f"--prediction={values.prediction}: needs --output=FOLDER for the results"
        )
    beside = ("labels.json", "dataset.json")
    truth, prediction = (
        mirrored(place, values.cache_dir, beside=beside)
        for place in (values.truth, values.prediction)
    )
    place = values.output or default_output(prediction)
    with open_results(place, values.cache_dir) as output:
        _score(values, truth, prediction, output)


def _score(values: cli.Values, truth: Path, prediction: Path, output: Path) -> None:
    from attunet_jax.evaluate.score import score_folders  # late: imports SciPy

    images = values.images and mirrored(values.images, values.cache_dir)
    scores = score_folders(
        truth,
        prediction,
        output,
        labels=values.labels,
        prediction_labels=values.prediction_labels,
        resample=values.resample,
        definition=values.definition,
        images=images,
        pictures=values.pictures,
        workers=values.workers,
    )
    print(with_urls(scores.text))
    no_report = None
    if values.report:
        from attunet_jax.evaluate.page.beside import (  # late: a second
            NoReport,
            write_beside,
        )

        name, page = output.resolve().name, output / "report.html"
        try:
            line = write_beside(page, {name: scores.rows}, folders={name: [output]})
            print(with_urls(line))
        except NoReport as error:
            no_report = error
    print(f"written to {shown(output)}", flush=True)
    left_out = scores.left_out + ([] if values.only_common else scores.unmatched)
    if no_report and not left_out:
        raise no_report
    if left_out:
        for line in [*left_out[:-1], *([str(no_report)] if no_report else [])]:
            print(f"error: {with_urls(line)}", file=sys.stderr, flush=True)
        hint = (
            ""
            if values.only_common or not scores.unmatched
            else (" (--only_common scores what both have)")
        )
        raise BadData(f"not scored: {left_out[-1]}{hint}")


def default_output(prediction: Path) -> Path:
    """Returns PREDICTION_score, beside the folder or the file."""
    path = prediction.resolve()
    name = path.name if path.is_dir() else split_ending(path.name)[0]
    return path.with_name(f"{name}_score")


if __name__ == "__main__":
    cli.run(FLAGS, main)
