"""What a run compiles, by JAX's own log, and how it continues in another form."""

import json
import re
from collections import Counter

import jax

from attunet_jax.train.loop import train
from configs import attention_unet


def test_nothing_is_compiled_twice_in_a_run_and_another_convolution_is_reported(
    prepared, tmp_path, caplog, capsys
):
    config = attention_unet.get_config()
    config.data.directory = str(prepared)
    config.model.widths = (2, 3)
    config.model.gating_channels = 2
    config.model.sub_gates = 0
    config.model.deep_supervision = "none"
    config.model.convolution = "compiler"
    config.data.crop_shape = config.data.read_shape = (16, 16, 16)
    config.mesh.data = 1
    config.train.steps = 6
    config.train.log_every_steps = 1
    config.train.evaluate_every_steps = 2
    config.train.checkpoint_every_steps = 1
    with jax.log_compiles():
        train(config, tmp_path / "run")
    said = [record.getMessage() for record in caplog.records]
    compiled = Counter(
        found[1]
        for line in said
        if (found := re.match(r"Finished XLA compilation of jit\((\w+)\)", line))
    )
    assert {"train_step", "eval_step", "create_state", "copy_of"} <= compiled.keys()
    assert set(compiled.values()) == {1}, compiled

    config.model.convolution = "matrix"
    config.train.steps = 7
    train(config, tmp_path / "run")
    assert "step 6 was trained with 'compiler', this run continues with 'matrix'" in (
        capsys.readouterr().out
    )
    stored = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert stored["convolution"] == "matrix"
