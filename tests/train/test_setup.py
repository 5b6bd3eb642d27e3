"""What a run says of its data before it begins."""

from dataclasses import replace

from attunet_jax.data.dataset import Dataset
from attunet_jax.train.setup import setup
from configs import base


def test_data_whose_records_do_not_count_organ_voxels_is_said_once(
    prepared, monkeypatch, capsys
):
    config = base.get_config()
    config.data.directory = str(prepared)
    config.data.batch_size = 8  # as many as simulated devices
    config.model.widths = (4, 6)
    config.data.crop_shape = config.data.read_shape = (16, 16, 16)
    config.data.foreground_fraction = 0.5
    setup(config)
    assert "organ voxels" not in capsys.readouterr().out

    as_stored = Dataset.open

    def as_before(*words):
        return replace(as_stored(*words), stored_organ_voxels=None)

    monkeypatch.setattr(Dataset, "open", as_before)
    setup(config)
    assert capsys.readouterr().out.count("without an index of organ voxels") == 1
    config.data.foreground_fraction = 0.0  # nobody asks for them
    setup(config)
    assert "organ voxels" not in capsys.readouterr().out
