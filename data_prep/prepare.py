r"""Turns a folder of CT scans with label maps into shards that training streams.

    python -m data_prep.prepare --source=nifti --input=SCANS --output=DATA \
        --labels=spleen=1,pancreas=2,kidney=3
    python -m data_prep.prepare --source=nnunet --input=Dataset007 --output=DATA

Writes cases-*.array_record, manifest.json and splits.json into DATA. After an
interruption the same command continues. A case that cannot be used is left out, listed
at the end and in rejected.json, and the exit status is 3; once the file is corrected,
the same command prepares what changed. Doubts (values that may be no HU, a label map
that may be mirrored) are warnings. --strict stops at the first case of either.

On several machines that see the same folders, as tasks of a job array and a last one:

    python -m data_prep.prepare ... --num_shards=40 --shard_index=7
    python -m data_prep.prepare ... --num_shards=40 --join

or as an Apache Beam pipeline (pip install -e '.[beam]'):

    python -m data_prep.prepare ... --num_shards=40 --runner=flink --beam_options="..."

The folder has the same bytes, whichever way it was made. --input and --output may also
be in a bucket, gs://BUCKET/PATH or s3://BUCKET/PATH: scans are copied to this machine
first, and each shard is uploaded when it is written.
"""

import shlex
import sys

from tqdm import tqdm

from attunet_jax.errors import BadArguments, BadData, exit_status
from attunet_jax.interrupts import leave
from attunet_jax.storage.mirror import mirrored
from attunet_jax.storage.names import shown
from attunet_jax.storage.staging import Staging
from attunet_jax.workers import choose_workers, run_in_processes
from data_prep import resources
from data_prep.manifest import (
    acquire_output,
    raise_if_rejected,
    read_descriptions,
    remove_stale_files,
    remove_temporary_files,
    write_manifest,
)
from data_prep.output import open_output, send_shard
from data_prep.plan import Plan, make_plan, parse
from data_prep.shard import ShardSpec, prepare_shard, read_description
from data_prep.sources.layout import not_used


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    arguments = parse(words, __doc__)
    index, count = arguments.shard_index, arguments.num_shards
    shard = None if index is None else (index, count)
    with open_output(arguments.output, arguments.cache_dir, shard) as stage:
        arguments.input = mirrored(arguments.input, arguments.cache_dir)
        arguments.output = stage.folder
        plan = make_plan(arguments)
        if index is not None:
            return _write_one(plan, plan.specs[index], stage)
        return _write_all(plan, words, stage)


def _write_all(plan: Plan, words: list[str], stage: Staging) -> int:
    arguments = plan.arguments
    if unlabelled := plan.layout.unlabelled:
        images = {str(pair.image.parent) for pair in unlabelled if pair.image}
        print(
            f"{len(unlabelled)} scans without labels are not prepared, they are "
            f"for launch.predict --input={', '.join(map(shown, sorted(images)))}"
        )
    if unused := not_used(arguments.input, plan.layout, plan.output):
        print(f"of no case, not used: {unused}")
    acquire_output(plan)
    if arguments.join:
        descriptions = read_descriptions(plan, stage)
        remove_stale_files(plan.output, plan.specs)
    else:
        remove_stale_files(plan.output, plan.specs)
        found, todo = _find_finished(plan, stage)
        if arguments.strict:
            raise_if_rejected(found.values())
        if arguments.runner:
            _write_with_beam(plan, words, todo)
            stage.refresh()
            descriptions = read_descriptions(plan, stage)
        else:
            found |= _write_in_processes(plan, todo, stage)
            descriptions = [found[spec.path.name] for spec in plan.specs]
    if arguments.strict:
        raise_if_rejected(descriptions)
    write_manifest(plan, descriptions)
    return 0


def _find_finished(
    plan: Plan, stage: Staging
) -> tuple[dict[str, dict], list[ShardSpec]]:
    """Returns descriptions by file of the shards that exist, and those to write."""
    found, todo = {}, []
    for spec in plan.specs:
        description = read_description(spec, stage.is_stand_in)
        if description is None:
            stage.withdraw(spec.description)  # not to be another shard's there
            todo.append(spec)
        else:
            found[spec.path.name] = description
    return found, todo


def _write_in_processes(
    plan: Plan, todo: list[ShardSpec], stage: Staging
) -> dict[str, dict]:
    """Writes the shards on this machine, with a progress bar.

    Returns their descriptions by file.
    """
    written: dict[str, dict] = {}
    if not todo:
        return written
    workers = _choose_workers(todo, plan.arguments.workers)
    finished_cases = plan.case_count - sum(len(spec.pairs) for spec in todo)
    try:
        with tqdm(
            total=plan.case_count, initial=finished_cases, unit="case", desc="prepare"
        ) as bar:
            if workers == 1 or len(todo) == 1:
                for spec in todo:
                    written[spec.path.name] = prepare_shard(spec, bar.update)
                    send_shard(stage, spec)
            else:

                def on_result(number: int, description: dict) -> None:
                    written[description["file"]] = description
                    send_shard(stage, todo[number])
                    bar.update(len(todo[number].pairs))

                calls = [(spec,) for spec in todo]
                run_in_processes(prepare_shard, calls, workers, plan.output, on_result)
    except BaseException:
        remove_temporary_files(plan.output)
        raise
    return written


def _choose_workers(todo: list[ShardSpec], requested: int | None) -> int:
    """Returns the number of processes, and prints the memory they need at most."""
    process_bytes = resources.prepare_bytes(todo)
    return choose_workers("prepare", process_bytes, len(todo), requested)


def _write_one(plan: Plan, spec: ShardSpec, stage: Staging) -> int:
    """Runs one task of a job array. Rejected cases do not change its exit status: the
    command that joins the shards reports them."""
    acquire_output(plan)
    description = read_description(spec, stage.is_stand_in)
    if description is None:
        stage.withdraw(spec.description)
        _choose_workers([spec], 1)
        with tqdm(total=len(spec.pairs), unit="case", desc="prepare") as bar:
            description = prepare_shard(spec, bar.update)
        send_shard(stage, spec)
    if spec.strict:
        raise_if_rejected([description])
    for row in description["rejected"]:
        print(f"left out {row['case_id']}: {row['reason']}", file=sys.stderr)
    records = description["records"]
    print(f"{shown(spec.path)}: {records} cases; use --join when all tasks are done")
    return 0


def _write_with_beam(plan: Plan, words: list[str], todo: list[ShardSpec]) -> None:
    """Writes the shards with an Apache Beam pipeline."""
    try:
        from data_prep.runners import beam  # late: an optional dependency
    except ImportError as error:
        raise BadArguments(
            f"--runner={plan.arguments.runner}: Apache Beam cannot be imported "
            f"({error}); pip install -e '.[beam]'"
        ) from None
    try:
        options = shlex.split(plan.arguments.beam_options)
    except ValueError as error:
        raise BadArguments(f"--beam_options: {error}") from None
    if not todo:
        return
    _choose_workers(todo, None)
    try:
        beam.write_shards(
            words, [s.index for s in todo], plan.arguments.runner, options
        )
    except Exception as error:  # its text holds the tracebacks of many machines
        lines = [line for line in str(error).splitlines() if line.strip()]
        message = lines[-1] if lines else type(error).__name__
        raise BadData(
            f"{plan.output}: the pipeline failed: {message}; the same command continues"
        ) from error


if __name__ == "__main__":
    leave(exit_status(main))
