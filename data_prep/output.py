"""The output folder of a preparation that is in a bucket, and what is sent when."""

from contextlib import AbstractContextManager
from pathlib import Path

from attunet_jax.storage.staging import Staging, staged
from data_prep.shard import DESCRIPTIONS, ShardSpec

_FILES = {"manifest.json", "splits.json", "rejected.json"}


def open_output(
    place: Path | str, cache_dir: Path | None, shard: tuple[int, int] | None = None
) -> AbstractContextManager[Staging]:
    """Opens --output: the folder itself, or what stands for a URL on this machine.

    With `shard`, an index and how many there are, as one of several processes that
    write there at once. Of shards in the bucket only name and size are here, and
    nothing of what is not prepared data.
    """
    number = "cases-{:05}-of-{:05}.".format(*shard) if shard else "cases-"

    def is_mine(name: str) -> bool:
        file = name.removeprefix(f"{DESCRIPTIONS}/")
        return name in _FILES or ("/" not in file and file.startswith(number))

    return staged(
        place,
        cache_dir,
        bring=lambda name: not name.endswith(".array_record"),
        wanted=is_mine,
        part=f"shard-{shard[0]:05}" if shard else "",
    )


def send_shard(stage: Staging, spec: ShardSpec) -> None:
    """Uploads a shard, then its description; the shard takes no more room here."""
    stage.send(spec.path)
    stage.send(spec.description)
    stage.drop(spec.path)
