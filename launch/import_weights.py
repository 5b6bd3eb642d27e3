r"""Makes a workdir from weights that the authors' PyTorch code trained.

    python -m launch.import_weights --input=620_net_S.pth --workdir=RUN
    python -m launch.import_weights --input=net.npz --workdir=RUN --spacing_mm=1.5 \
        --config.classes=background,pancreas

--input is what `torch.save(net.state_dict())` wrote (.pth; needs PyTorch:
pip install torch), or an .npz of arrays under the same names, of unet_CT_dsv_3D,
unet_CT_single_att_dsv_3D or unet_CT_multi_att_dsv_3D. RUN is then used like the workdir
of a finished run: by launch.evaluate, launch.predict and --config.init_from=RUN. Widths
and gates are read from the shapes of the weights. The classes, in the order of the
outputs, and align_corners come from --config (default configs/published.py), the
preparation of the scans from --spacing_mm and --blur_mm.
"""

import json
from pathlib import Path

from attunet_jax import interrupts
from attunet_jax.config_fields import as_typed
from attunet_jax.errors import BadArguments, BadData
from attunet_jax.files import make_folder, write_text
from attunet_jax.storage import run_folder
from attunet_jax.storage.names import shown
from configs.base import PAPER_CLASSES
from launch import cli
from launch.devices import check_devices

FLAGS = cli.Flags(__doc__, config="published")
FLAGS.add("input", Path, None, "State dict: .pth or .npz.", required=True)
FLAGS.add(
    "workdir",
    cli.workdir,
    None,
    "Folder to make, here or gs://; must hold no run.",
    required=True,
)
FLAGS.add_cache_dir()
FLAGS.add("spacing_mm", cli.spacing_mm, (2.0, 2.0, 2.0), "D,H,W of the training scans.")
FLAGS.add("blur_mm", float, 0.75, "Gaussian before resampling, as in training.")


def main(values: cli.Values) -> None:
    with run_folder.written(
        values.workdir, values.cache_dir, user="import", files=("config.json",)
    ) as run:
        _import(values, run.folder)


def _import(values: cli.Values, workdir: Path) -> None:
    source = values.input
    if run_folder.whole_steps(workdir):
        raise BadArguments(f"{workdir} holds a run already: use another --workdir")

    check_devices()
    # Late: these import jax.
    from attunet_jax.checkpoint import Checkpoints, is_finite
    from attunet_jax.model.torch_weights import from_published, read_state_dict
    from attunet_jax.train.state import parameter_count
    from attunet_jax.train.stored_run import stamp
    from attunet_jax.train.trained import state_of_weights

    variables, fields, class_count = from_published(
        read_state_dict(source), str(source)
    )
    config = values.config
    if not config.classes and class_count == len(PAPER_CLASSES):
        config.classes = PAPER_CLASSES
    if len(config.classes) != class_count:
        raise BadData(
            f"{source}: has {class_count} outputs, --config.classes="
            f"{as_typed(config.classes)} names {len(config.classes)}"
        )
    config.model.update(fields)
    config.data.normalisation = "scan"  # the only one the authors' code has
    config.name = source.name.removesuffix(source.suffix)
    run = {
        **stamp(),
        "config": json.loads(config.to_json()),
        "outputs": list(config.classes),
        "spacing_mm": list(values.spacing_mm),
        "blur_mm": values.blur_mm,
        "manifest_sha256": "",
    }
    state = state_of_weights(variables, run)
    if not is_finite(state):
        raise BadData(f"{source}: not all numbers are finite and below 1.8e19")
    make_folder(workdir)
    with (
        interrupts.deferred("the weights to be written"),
        Checkpoints(
            workdir / "checkpoints", keep_latest=1, keep_best=1, clean_up=True
        ) as checkpoints,
    ):
        position = {"step": 0, "manifest_sha256": ""}
        checkpoints.save(0, state, position=position, run=run, metrics=None)
        checkpoints.wait()
        write_text(workdir / "config.json", json.dumps(run, indent=2) + "\n")
        interrupts.ignore()  # a run that is whole is not made again
    print(
        f"{shown(workdir)}: {parameter_count(state.params):,} parameters, widths "
        f"{fields['widths']}, {fields['sub_gates']} sub-gates, classes "
        f"{', '.join(config.classes)}, at {list(values.spacing_mm)} mm"
    )


if __name__ == "__main__":
    cli.run(FLAGS, main)
