"""A tiny network trained once by the real program, for the programs that need one."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(compiled_once):
    """Many tests load the same network."""


@pytest.fixture(scope="session")
def finish():
    """Waits for a program; returns (status, stdout, stderr)."""

    def wait(process):
        output, errors = process.communicate(timeout=600)
        return process.returncode, output, errors

    return wait


@pytest.fixture(scope="session")
def trained(run_program, finish, prepared, tiny_flags, tmp_path_factory):
    """(workdir, what training printed) of 12 steps on the prepared balls."""
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    status, output, errors = finish(
        run_program(
            "launch.train",
            "--config=configs/attention_unet.py",
            f"--data={prepared}",
            f"--workdir={workdir}",
            *tiny_flags,
            "--config.train.steps=12",
            "--config.train.log_every_steps=4",
            "--config.train.evaluate_every_steps=6",
            "--config.train.keep_steps=3",
        )
    )
    assert status == 0, errors
    return workdir, output


@pytest.fixture(scope="session")
def gated(trained, tmp_path_factory):
    """Folder of a run with two gates of two sub-gates, random, at the steps 2 and 12.

    The trained one has two scales and so no gate; this one was never trained.
    """
    import jax
    import jax.numpy as jnp

    from attunet_jax.checkpoint import Checkpoints, open_existing
    from attunet_jax.model import build_network
    from attunet_jax.train.trained import state_of_weights

    with open_existing(trained[0]) as checkpoints:
        run = checkpoints.run(checkpoints.steps()[-1])
    run["config"]["model"]["widths"] = [4, 6, 8, 8]
    run["config"]["name"] = "gated"
    network = build_network(
        run["config"]["model"],
        num_classes=len(run["outputs"]),
        backend="cpu",
        device_count=1,
    )
    shapes = jax.eval_shape(
        lambda key: network.init(key, jnp.zeros((1, 8, 8, 8, 1)), train=True),
        jax.random.key(0),
    )
    workdir = tmp_path_factory.mktemp("runs") / "gated"
    with Checkpoints(
        workdir / "checkpoints", keep_latest=9, keep_best=1, clean_up=True
    ) as checkpoints:
        for step in (2, 12):
            rng = np.random.default_rng(step)
            variables = jax.tree.map(
                lambda x, rng=rng: rng.normal(0, 0.2, x.shape).astype(x.dtype),
                {kind: shapes[kind] for kind in ("params", "batch_stats")},
            )
            variables["batch_stats"] = jax.tree.map(
                lambda x: abs(x) + 0.5, variables["batch_stats"]
            )
            checkpoints.save(
                step,
                state_of_weights(variables, run),
                position={"step": step},
                run=run,
                metrics=None,
            )
    return workdir


@pytest.fixture(scope="module")
def loaded_once():
    """A run's predictor is loaded, and its network compiled, for one test only."""
    from attunet_jax.predict import predictor

    load_predictor = predictor.load_predictor
    with pytest.MonkeyPatch.context() as patch:
        known = {}

        def load(workdir, fields):
            made = (Path(workdir) / "checkpoints").glob("*/_CHECKPOINT_METADATA")
            sizes = sorted((path.name, path.stat().st_size) for path in made)
            key = (str(workdir), *fields.items(), *sizes)
            if key not in known:
                known[key] = load_predictor(workdir, fields)
            return known[key]

        patch.setattr(predictor, "load_predictor", load)
        yield


@pytest.fixture(scope="session")
def refused(run_program, finish):
    """Runs a program that must end with one line of error; returns (status, line)."""

    def run(module, *words):
        status, _, errors = finish(run_program(module, *words))
        lines = [line for line in errors.splitlines() if line.strip()]
        assert len(lines) == 1, errors
        assert lines[0].startswith("error: "), errors
        return status, lines[0]

    return run


@pytest.fixture
def predict_here(capsys):
    """Predicts in this process; returns (status, what was printed)."""
    from attunet_jax.errors import BadArguments, BadData
    from launch import predict

    def run(workdir, *words):
        flags = [f"--workdir={workdir}", *map(str, words)]
        try:
            status = predict.main(predict.FLAGS.parse(flags))
        except (BadArguments, BadData) as error:
            return error.status, f"{''.join(capsys.readouterr())}{error}"
        return status, "".join(capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def refused_here():
    """As `refused`, without starting a program: its main function, in this process."""
    import importlib

    from attunet_jax.errors import BadArguments, BadData

    def run(module, *words):
        program = importlib.import_module(module)
        # This process has eight devices, a program of the tests one.
        mesh = ["--config.mesh.data=1"] if module == "launch.train" else []
        with pytest.raises((BadArguments, BadData)) as error:
            program.main(program.FLAGS.parse([*mesh, *map(str, words)]))
        line = str(error.value)
        assert "\n" not in line
        return error.value.status, line

    return run


@pytest.fixture(scope="session")
def demo_flags():
    """The demo's network and training in small; the last two say how long it trains."""
    return (
        "--config.model.widths=(4,6,8)",  # the finest of three scales has no gate
        "--config.model.gating_channels=6",
        "--config.train.keep_steps=1,2",
        "--config.data.crop_shape=(8,12,16)",
        "--config.data.read_shape=(8,12,16)",
        # What one start compiles the next has.
        "--config.model.convolution=compiler",
        "--config.train.steps=3",
        "--config.train.evaluate_every_steps=3",
    )


@pytest.fixture(scope="session")
def demo(run_program, finish, demo_flags, tmp_path_factory):
    """(folder, the command's words, what it printed) of a whole small demo."""
    output = tmp_path_factory.mktemp("demo")
    words = (f"--output={output}", "--cases=10", *demo_flags)
    status, printed, errors = finish(run_program("launch.demo", *words))
    assert status == 0, errors
    return output, words, printed


@pytest.fixture(scope="session")
def published_file(tmp_path_factory):
    """Random weights of a tiny published network, as an .npz of its state dict.

    Three scales instead of five: it compiles sooner.
    """
    rng = np.random.default_rng(0)
    tensors = {}

    def conv(name, out, into, kernel=1, bias=True):
        shape = (out, into, kernel, kernel, kernel)
        tensors[f"{name}.weight"] = rng.normal(0, 0.3, shape).astype(np.float32)
        if bias:
            tensors[f"{name}.bias"] = rng.normal(0, 0.1, out).astype(np.float32)

    def norm(name, width):
        for leaf in ("weight", "bias", "running_mean"):
            tensors[f"{name}.{leaf}"] = rng.normal(0.5, 0.1, width).astype(np.float32)
        tensors[f"{name}.running_var"] = rng.uniform(0.5, 2, width).astype(np.float32)

    def block(name, out, into):
        for i, width in ((1, into), (2, out)):
            conv(f"{name}conv{i}.0", out, width, 3)
            norm(f"{name}conv{i}.1", out)

    widths = (2, 3, 4)
    for i in range(2):
        block(f"conv{i + 1}.", widths[i], (1, *widths)[i])
        block(f"up_concat{i + 1}.conv.", widths[i], widths[i] + widths[i + 1])
        conv(f"dsv{i + 1}.dsv.0" if i else "dsv1", 4, widths[i])
    block("center.", 4, 3)
    conv("final", 4, 8)
    path = tmp_path_factory.mktemp("published") / "net.npz"
    np.savez(path, **tensors)
    return path
