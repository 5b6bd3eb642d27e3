r"""Draws Figures 3a, 3b and 4 of the paper for a case of a trained run.

    python -m launch.figures --workdir=RUN
    python -m launch.figures --workdir=RUN --against=UNET_RUN --case=case_7 \
        --organ=pancreas --output=FIGURES

3a: scan, attention coefficients, and skip features before and after gating, axial and
sagittal, of the finest and the coarsest gate. 3b: truth, the network of --against,
that of --workdir, and what the first one missed. 4: coefficients as training went, at
the steps whose checkpoints --config.train.keep_steps=100,500 of launch.train kept.
OUTPUT (default RUN/figures) receives figure_3a.png and .pdf and so on, each with a
caption in it. Without --figures all are drawn that RUN has what it takes for, and the
others are named. OUTPUT may be in a bucket, gs:// or s3://.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attunet_jax.errors import BadArguments
from attunet_jax.files import is_url, make_folder
from attunet_jax.storage import run_folder
from attunet_jax.storage.names import with_urls
from attunet_jax.storage.outputs import staged_files
from launch import cli
from launch.devices import check_devices

FIGURES = ("3a", "3b", "4")
FLAGS = cli.Flags(__doc__, config="base", group="predict.")
FLAGS.add(
    "workdir", cli.workdir, None, "Folder of a run with gates, or gs://.", required=True
)
FLAGS.add("data", cli.readable, None, "Prepared data set (default: the run's own).")
FLAGS.add("against", cli.workdir, None, "Folder of a U-Net's run, for Figure 3b.")
FLAGS.add_cache_dir()
FLAGS.add("case", str, None, "Case to draw (default: the first test case).")
FLAGS.add("organ", str, None, "Organ to show (default: pancreas, or the first).")
FLAGS.add("figures", cli.names, (), "Some of 3a,3b,4 (default: all that can be).")
FLAGS.add("steps", cli.names, (), "Steps of Figure 4 (default: six of those kept).")
FLAGS.add("output", cli.writable, None, "Folder for the figures.")


def main(values: cli.Values) -> None:
    for name in values.figures:
        if name not in FIGURES:
            raise BadArguments(f"--figures={name}: is none of {', '.join(FIGURES)}")
    for step in values.steps:
        if not step.isdecimal():
            raise BadArguments(f"--steps={step}: must be numbers of steps")
    check_devices()
    with ExitStack() as folders:
        if values.output:
            run = run_folder.read(values.workdir, values.cache_dir)
            workdir = folders.enter_context(run)
            staged = staged_files(
                values.output, values.cache_dir, user="figures", files=("figure_*",)
            )
            output = folders.enter_context(staged)
        else:
            staged = run_folder.written(
                values.workdir, values.cache_dir, user="figures", files=("figures",)
            )
            workdir = folders.enter_context(staged).folder
            output = workdir / "figures"
        if values.against:
            run = run_folder.read(values.against, values.cache_dir)
            values.against = folders.enter_context(run)
        _draw_figures(values, workdir, output)


def _draw_figures(values: cli.Values, workdir: Path, output: Path) -> None:
    asked = values.figures

    from attunet_jax.predict.attention import sub_gates_of  # late: imports jax
    from attunet_jax.predict.predictor import load_predictor

    fields = values.predict_fields()
    predictor = load_predictor(workdir, fields)
    if not sub_gates_of(predictor.network):
        raise BadArguments(
            f"{workdir}: its network has no attention gates; name a run of "
            "configs/attention_unet.py, and this one as --against"
        )
    steps, why_not = _steps(values, workdir, predictor.step)
    missing = {}
    if not values.against:
        missing["3b"] = "needs --against=RUN of a U-Net"
    if why_not:
        missing["4"] = why_not
    for name in asked:
        if name in missing:
            raise BadArguments(f"--figures={name}: {missing[name]}")
    names = [n for n in FIGURES if n not in missing and n in (asked or FIGURES)]
    dataset, case = _case(values, predictor)
    against = None
    if "3b" in names:
        fields_against = {k: v for k, v in fields.items() if k != "checkpoint"}
        against = load_predictor(values.against, fields_against)
        _check_against(values.against, against, dataset, case.organ)
    make_folder(output)
    for name in names:
        figure = _draw(
            *(name, predictor, against, dataset, case, steps, workdir, fields)
        )
        _save(figure, output, name)
    for name, reason in missing.items():
        if not asked:
            print(f"figure {name} is left out: {reason}")


def _steps(
    values: cli.Values, workdir: Path, step: int
) -> tuple[list[int], str | None]:
    """The steps of Figure 4, or why there is none."""
    from attunet_jax.checkpoint import open_existing  # late: imports jax
    from attunet_jax.evaluate.attention_figures import spread

    with open_existing(workdir) as checkpoints:
        kept = checkpoints.steps()
    chosen = [int(step) for step in values.steps]
    for step in chosen:
        if step not in kept:
            there = ", ".join(map(str, kept))
            raise BadArguments(f"--steps={step}: {workdir} has the steps {there}")
    if len(chosen or kept) > 1:
        return chosen or spread(kept), None
    return [], (
        f"{workdir} has a checkpoint of one step only ({kept[-1]}); train with "
        "--config.train.keep_steps=... to keep others"
    )


def _case(values: cli.Values, predictor: Any) -> tuple[Any, Any]:
    """The data set and the case to draw."""
    from attunet_jax.data.dataset import open_dataset  # late: imports jax
    from attunet_jax.evaluate.cases import organs_of
    from attunet_jax.evaluate.panels import FigureCase

    stored = predictor.run["config"]["data"]
    own = stored["directory"]
    if not (values.data or is_url(own) or Path(own).is_dir()):
        raise BadArguments(f"--data=... is needed: the run's own, {own}, is not here")
    dataset = open_dataset(values.data or own, values.cache_dir)
    organs = organs_of(predictor, dataset)
    organ = values.organ or ("pancreas" if "pancreas" in organs else next(iter(organs)))
    if organ not in organs:
        raise BadArguments(f"--organ={organ}: is none of {', '.join(organs)}")
    if values.case:
        candidates = [values.case]
    else:
        parts = dataset.splits.get(stored["split"], {})
        candidates = parts.get("test") or dataset.case_ids
    for case_id in candidates:
        case = dataset.case(case_id)
        truth = dataset.labels.relabel(case.label, predictor.classes) == organs[organ]
        if truth.any():
            found = FigureCase(
                case_id, organ, case.image_hu, truth, case.spacing_mm, case.affine
            )
            return dataset, found
    raise BadArguments(
        f"{dataset.place}: {'--case=' if values.case else ''}"
        f"{', '.join(candidates[:3])}: no {organ} in it; name another --case or --organ"
    )


def _check_against(workdir: Path, against: Any, dataset: Any, organ: str) -> None:
    from attunet_jax.evaluate.cases import organs_of  # late: imports jax

    if organ not in organs_of(against, dataset):
        raise BadArguments(f"--against={workdir}: was not trained on {organ}")


def _draw(
    name: str,
    predictor: Any,
    against: Any,
    dataset: Any,
    case: Any,
    steps: list[int],
    workdir: Path,
    fields: dict[str, Any],
) -> Any:
    from attunet_jax.evaluate import attention_figures  # late: imports Matplotlib
    from attunet_jax.evaluate.comparison_figure import comparison_figure
    from attunet_jax.predict.predictor import load_predictor

    run_name = predictor.run["config"]["name"]
    title = f"{run_name} at step {predictor.step:,}"
    if name == "3a":
        return attention_figures.attention_figure(case, _maps(predictor, case), title)
    if name == "3b":
        masks = {}
        for one in (against, predictor):
            label = one.labels.values[case.organ]
            found = one.probabilities(case.image_hu).argmax(0) == label
            masks[_kind(one, masks)] = found
        title = f"{against.run['config']['name']} at step {against.step:,} and {title}"
        return comparison_figure(case, masks, title)
    maps, names = {}, {}
    for step in steps:
        at_step = predictor
        if step != predictor.step:
            at_step = load_predictor(workdir, fields | {"checkpoint": str(step)})
        maps[step] = _maps(at_step, case)
        names[step] = _name(step, predictor.run["config"], dataset)
    return attention_figures.training_figure(case, maps, names, run_name)


def _maps(predictor: Any, case: Any) -> Any:
    """The maps of a case; with features for every figure, so that one is compiled."""
    from attunet_jax.predict.attention import attention_maps  # late: imports jax
    from attunet_jax.volume import Grid

    grid = Grid(case.image_hu.shape, case.affine)
    return attention_maps(predictor, case.image_hu, case.affine, grid, features=True)


def _kind(predictor: Any, taken: Any) -> str:
    """What a network is called in Figure 3b."""
    from attunet_jax.predict.attention import sub_gates_of  # late: imports jax

    name = "Attention U-Net" if sub_gates_of(predictor.network) else "U-Net"
    return name if name not in taken else f"{name} of --workdir"


def _name(step: int, config: Any, dataset: Any) -> str:
    """A step, with its epoch where the data has the run's split."""
    train = dataset.splits.get(config["data"]["split"], {}).get("train", ())
    if not train:
        return f"step {step:,}"
    epochs = step * config["data"]["batch_size"] / len(train)
    return f"step {step:,}\n(epoch {epochs:.3g})"


def _save(figure: Any, output: Path, name: str) -> None:
    from attunet_jax.evaluate import slices  # late: imports Matplotlib

    for ending in ("png", "pdf"):
        path = output / f"figure_{name}.{ending}"
        slices.save(figure, path, dpi=200)
        figure.set_layout_engine("none")  # laid out once, the same for both
        print(with_urls(f"wrote {path}"), flush=True)


if __name__ == "__main__":
    cli.run(FLAGS, main)
