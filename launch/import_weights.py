"""Makes a workdir of weights that the authors' PyTorch code trained.

    python -m launch.import_weights --input=620_net_S.pth --workdir=RUN
    python -m launch.import_weights --input=net.npz --workdir=RUN --spacing_mm=1.5 \\
        --config.classes=background,pancreas

--input is what `torch.save(net.state_dict())` wrote (.pth; needs PyTorch:
pip install torch), or an .npz of arrays under the same names, of unet_CT_dsv_3D,
unet_CT_single_att_dsv_3D or unet_CT_multi_att_dsv_3D. RUN is then used like the workdir
of a finished run: by launch.evaluate, launch.predict and --config.init_from=RUN. Widths
and gates follow from the weights; what they do not tell is taken from --config (default
configs/published.py): the classes in the order of the outputs, align_corners, and from
--spacing_mm and --blur_mm, as the scans were prepared.
"""

import json
from pathlib import Path
from typing import Any

from absl import flags

from attunet_jax.errors import BadArguments, BadData
from attunet_jax.files import make_folder, write_text
from launch import cli

cli.define_config("published")
flags.DEFINE_string("input", None, "State dict: .pth or .npz.")
flags.DEFINE_string("workdir", None, "Folder to make; must hold no run yet.")
flags.DEFINE_list("spacing_mm", "2,2,2", "D,H,W of the scans it was trained on.")
flags.DEFINE_float("blur_mm", 0.75, "Gaussian before resampling, as in training.")


def main(values: Any) -> None:
    source = Path(cli.required("input"))
    workdir = Path(cli.required("workdir"))
    spacing_mm = _spacing(values.spacing_mm)
    if (workdir / "checkpoints").exists():
        raise BadArguments(f"{workdir} holds a run already: use another --workdir")

    # Late: these import jax.
    from attunet_jax.checkpoint import Checkpoints
    from attunet_jax.model.torch_weights import from_published, read_state_dict
    from attunet_jax.train.state import parameter_count
    from attunet_jax.train.trained import finished_state

    variables, fields, class_count = from_published(
        read_state_dict(source), str(source)
    )
    config = values.config
    if len(config.classes) != class_count:
        raise BadData(
            f"{source}: has {class_count} outputs, config.classes="
            f"{tuple(config.classes)} names {len(config.classes)}"
        )
    config.model.update(fields)
    config.name = source.name.removesuffix(source.suffix)
    run = {
        "format": 1,
        "config": json.loads(config.to_json()),
        "outputs": list(config.classes),
        "spacing_mm": spacing_mm,
        "blur_mm": values.blur_mm,
        "manifest_sha256": "",
    }
    make_folder(workdir)
    state = finished_state(variables, run)
    with Checkpoints(
        workdir / "checkpoints", keep_latest=1, keep_best=1, clean_up=True
    ) as checkpoints:
        position = {"step": 0, "manifest_sha256": ""}
        checkpoints.save(0, state, position=position, run=run, metrics=None)
    write_text(workdir / "config.json", json.dumps(run, indent=2) + "\n")
    print(
        f"{workdir}: {parameter_count(state.params):,} parameters, widths "
        f"{fields['widths']}, {fields['sub_gates']} sub-gates, classes "
        f"{', '.join(config.classes)}, at {spacing_mm} mm"
    )


def _spacing(words: list[str]) -> list[float]:
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or not all(0.1 <= n <= 50 for n in numbers):
        raise BadArguments(
            f"--spacing_mm={','.join(words)}: one or three numbers from 0.1 to 50"
        )
    return numbers


if __name__ == "__main__":
    cli.run(main, __doc__ or "")
