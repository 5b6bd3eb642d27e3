r"""Segments scans with a trained network; writes label maps on the scans' own grids.

    python -m launch.predict --workdir=RUN --input=scan.nii.gz --output=DIR
    python -m launch.predict --workdir=RUN --input=DICOM_SERIES --output=DIR
    python -m launch.predict --workdir=RUN --input=FOLDER --output=DIR --pictures \
        --config.predict.checkpoint=latest --config.predict.average_flips=True
    python -m launch.predict --workdir=RUN --input=scan.nii.gz --output=DIR --attention

--input is a NIfTI file, the folder of a DICOM series, or a folder with such files and
folders at any depth. DIR mirrors the folders: PATH/NAME.nii.gz for each scan
(NAME.nrrd or NAME.mha for scans of these formats, which need SimpleITK), with the
scan's geometry, header fields and all (for DICOM those that dcm2niix writes), and the
values of DIR/labels.json, and PATH/NAME.json, which says what made it: scan, run, step,
settings. For one scan --output may name the file itself. Label maps that are there are
kept; one of another scan, run, checkpoint or setting is refused, or predicted again
with --overwrite. A scan that cannot be read, or be a CT, is named, the others are
segmented, and the exit status is 3. Doubts (values that may be no HU) are warnings;
--strict refuses such scans too. What is no scan is passed over and counted. Any
--config.predict field can be changed.

--attention also writes what each attention gate lets through, from 0 to 1, as float32
on the scan's own grid: PATH/NAME_attention_gate2_sub1.nii.gz for the first sub-gate of
the gate of scale 2 (1 is the finest and has none; without _sub1 where a gate has one).

--input and --output may be in buckets, gs:// or s3://: scans are copied to this machine
first, and each label map is uploaded when it is written.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attunet_jax import volume as volumes
from attunet_jax.data.identity import counted, find_scans
from attunet_jax.errors import BadArguments, BadData, one_line
from attunet_jax.files import files_sha256, make_folder
from attunet_jax.predict.attention_files import (
    files_of,
    missing,
    remove_maps,
    write_maps,
)
from attunet_jax.predict.outputs import (
    LABELS,
    Output,
    check_labels,
    compare,
    open_output,
    outputs_of,
    stand,
    write_labels,
)
from attunet_jax.predict.record import (
    Maker,
    asked,
    read_record,
    write_label_map,
)
from attunet_jax.storage import run_folder
from attunet_jax.storage.mirror import mirrored
from attunet_jax.storage.names import shown, with_urls
from attunet_jax.storage.staging import Staging
from attunet_jax.volume import checks
from launch import cli
from launch.devices import check_devices

FLAGS = cli.Flags(__doc__, config="base", group="predict.")
FLAGS.add("workdir", cli.workdir, None, "A trained run, or gs://.", required=True)
FLAGS.add(
    "input",
    cli.readable,
    None,
    "A NIfTI file, a DICOM series, or a folder of them; also of gs:// or s3://.",
    required=True,
)
FLAGS.add_cache_dir()
FLAGS.add(
    "series",
    str,
    None,
    "Which scan of the DICOM folder --input to take, of several: UID, or its name.",
)
FLAGS.add(
    "output",
    cli.writable,
    None,
    "Folder for the label maps, or the file of one; also of gs:// or s3://.",
    required=True,
)
FLAGS.add("overwrite", bool, False, "Replace label maps that already exist.")
FLAGS.add("strict", bool, False, "Refuse scans that may be no CT in HU.")
FLAGS.add("pictures", bool, False, "Also write a PNG of each scan with outlines.")
FLAGS.add(
    "attention", bool, False, "Also write the attention coefficients of each gate."
)


def main(values: cli.Values) -> int:
    fields = values.predict_fields()
    with (
        run_folder.read(values.workdir, values.cache_dir) as workdir,
        open_output(values.output, values.cache_dir) as (stage, output),
    ):
        values.output = output
        return _segment(values, workdir, fields, stage)


def _segment(
    values: cli.Values, workdir: Path, fields: dict[str, Any], stage: Staging
) -> int:
    values.input = mirrored(values.input, values.cache_dir)
    skip = _in_input(values.output, values.input)
    found = find_scans(values.input, skip=skip, series=values.series)
    if not (found.scans or found.refused):
        seen = f" (only {counted(found.unused)})" if found.unused else ""
        raise BadData(
            f"{shown(values.input)}: no NIfTI, NRRD, .mha or DICOM files in it{seen}"
        )
    if values.series and len({scan.path for scan in found.scans}) > 1:
        raise BadArguments(
            "--series needs the one folder that holds this series as --input"
        )
    outputs = outputs_of(found, values.input, values.output)
    if found.unused:
        print(f"no scans, passed over: {counted(found.unused)}", flush=True)
    for note in found.notes:
        print(with_urls(note), flush=True)
    stage.bring(*(one.label_map for one in outputs))
    if values.attention:
        stage.bring(*(path for one in outputs for path in files_of(one.label_map)))
    standing = stand(
        outputs,
        asked(workdir, fields),
        overwrite=values.overwrite,
        strict=values.strict,
    )
    predictor, maker = None, {}
    if standing.todo or standing.compare:
        check_devices()
        predictor, maker = _load(workdir, fields)
        compare(standing, maker)
    attend, strange = [], {}
    if values.attention:
        attend, strange = missing([*standing.todo, *standing.kept], values.overwrite)
        if attend and predictor is None:
            check_devices()
            predictor, maker = _load(workdir, fields)
        if predictor:
            _check_gates(predictor, workdir)
    if predictor:
        check_labels(_folder(values.output), predictor.names, standing.todo)
        make_folder(_folder(values.output))
    for line in [*found.refused, *standing.lines(), *strange.values()]:
        words = with_urls(one_line(Exception(line)))
        print(f"error: {words}", file=sys.stderr, flush=True)
    failed = [*standing.refused_scans, *strange]
    doubts: dict[str, list[checks.Finding]] = {}
    for number, one in enumerate(outputs, start=1):
        start_s = time.perf_counter()
        place = f"[{number}/{len(outputs)}] {shown(one.label_map)}"
        volume = None
        try:
            if one in standing.kept:
                print(f"{place} is there already", flush=True)
                doubts[shown(one.scan.path)] = _doubts_of(one)
                if values.pictures and not one.picture.exists():
                    _draw_again(one)
            elif one in standing.todo:
                assert predictor is not None
                volume = volumes.read_scan(one.scan.path, one.scan.series)
                name = shown(one.scan.path)
                doubts[name] = checks.checked(volume, strict=values.strict)
                if unlike := predictor.unlike_training(volume):
                    print(
                        f"note: {name}: not the values of training: "
                        f"{unlike}; is the scan in HU?",
                        file=sys.stderr,
                        flush=True,
                    )
                labels = predictor.label_map(volume)
                write_labels(_folder(values.output), predictor.names, standing.todo)
                stage.send(_folder(values.output) / LABELS)
                checksum = files_sha256(one.scan.files)
                said = {doubt.kind: doubt.text for doubt in doubts[name]}
                for path in remove_maps(one.label_map):
                    stage.send(path)
                write_label_map(
                    one.label_map, labels, volume, maker, checksum, said, stage.send
                )
                if values.pictures:
                    _draw(one, volume, labels, predictor.labels.values)
                    stage.send(one.picture)
                amounts = _volumes_ml(volume, labels, predictor.labels.values)
                seconds = time.perf_counter() - start_s
                print(f"{place}  {amounts}  {seconds:.1f} s", flush=True)
            if one in attend:
                assert predictor is not None
                volume = volume or volumes.read_scan(one.scan.path, one.scan.series)
                maps = predictor.attention(volume)
                files = write_maps(one.label_map, maps, stage.send)
                seconds = time.perf_counter() - start_s
                print(
                    f"{place}  attention coefficients in {len(files)} files, "
                    f"{files[0].name} first  {seconds:.1f} s",
                    flush=True,
                )
        except BadData as error:
            failed.append(one.scan.path)
            words = with_urls(one_line(error))
            print(f"error: {words}", file=sys.stderr, flush=True)
    for line in checks.grouped(doubts):
        print(line, file=sys.stderr, flush=True)
    if predictor and any(one.label_map.exists() for one in standing.todo):
        write_labels(_folder(values.output), predictor.names, standing.todo)
    count = len(failed) + len(found.refused)
    if count:
        first = ", ".join(shown(path) for path in failed[:10])
        raise BadData(
            f"{count} of {len(outputs) + len(found.refused)} scans could not be "
            f"segmented, see above{': ' if first else ''}{first}"
            + (f" and {len(failed) - 10} more" if len(failed) > 10 else "")
        )
    return 0


def _in_input(output: Path, source: Path) -> list[Path]:
    """What of the input is no scan but of the output; also in a bucket's copy."""
    here, above = shown(output), f"{shown(source)}/"
    if here.startswith(above):
        return [source / here.removeprefix(above)]
    return [output] if output.resolve() != source.resolve() else []


def _load(workdir: Path, fields: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Returns the predictor, and what a label map's record says of it."""
    from attunet_jax.predict.predictor import load_predictor  # late: imports jax

    made_of = asked(workdir, fields)
    predictor = load_predictor(workdir, fields)
    names = predictor.names
    maker = Maker(workdir, predictor.step, predictor.settings, names, made_of)
    return predictor, maker.as_json()


def _check_gates(predictor: Any, workdir: Path) -> None:
    """Raises `BadArguments` for a network without gates."""
    from attunet_jax.predict.attention import sub_gates_of  # late: imports jax

    if not sub_gates_of(predictor.network):
        model = predictor.run["config"]["model"]
        raise BadArguments(
            f"--attention: the network of {workdir} has no attention gates "
            f"(config.model.sub_gates={model['sub_gates']}, "
            f"{len(model['widths'])} scales); name a run of configs/attention_unet.py"
        )


def _doubts_of(one: Output) -> list[checks.Finding]:
    """The doubts about a scan whose label map is there, as they were said then."""
    record = read_record(one.label_map) or {}
    return [checks.Finding(*item) for item in dict(record.get("doubts") or {}).items()]


def _folder(output: Path) -> Path:
    """The folder of labels.json: --output, or where the file that it names lies."""
    names_file = volumes.split_ending(output.name)[1] and not output.is_dir()
    return output.parent if names_file else output


def _draw_again(one: Output) -> None:
    """Draws the picture of a label map that is there."""
    record = read_record(one.label_map)
    assert record is not None
    labels = volumes.read_labels(one.label_map).voxels
    volume = volumes.read_scan(one.scan.path, one.scan.series)
    names = record["labels"].items()
    organs = {name: int(value) for value, name in names if value != "0"}
    _draw(one, volume, labels, organs)


def _draw(
    one: Output, volume: volumes.Volume, labels: np.ndarray, organs: Mapping[str, int]
) -> None:
    from attunet_jax.evaluate.pictures import overlay_png  # late: imports Matplotlib

    title = one.picture.stem
    overlay_png(
        one.picture, volume.voxels, None, labels, volume.spacing_mm, organs, title
    )


def _volumes_ml(
    volume: volumes.Volume, labels: np.ndarray, organs: Mapping[str, int]
) -> str:
    """The volume of each organ, as it is printed."""
    voxel_ml = float(np.prod(volume.spacing_mm)) / 1000
    counts = np.bincount(labels.ravel(), minlength=1 + max(organs.values()))
    return "  ".join(
        f"{name} {counts[value] * voxel_ml:.0f} ml" for name, value in organs.items()
    )


if __name__ == "__main__":
    cli.run(FLAGS, main)
