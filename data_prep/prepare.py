r"""Turns a folder of CT scans with label maps into shards that training streams.

    python -m data_prep.prepare --source=nifti --input=SCANS --output=DATA \
        --labels=spleen=1,pancreas=2,kidney=3
    python -m data_prep.prepare --source=nnunet --input=Dataset007 --output=DATA

DATA gets cases-*.array_record, manifest.json and splits.json. Interrupted, the same
command goes on. A case that cannot be used is left out, listed at the end and in
rejected.json, and the exit status is 3; after mending the file the same command
prepares what changed. --strict stops at the first such case.

On many machines that see the same folders, as tasks of a job array and a last command:

    python -m data_prep.prepare ... --num_shards=40 --shard_index=7
    python -m data_prep.prepare ... --num_shards=40 --join

or as an Apache Beam pipeline (pip install -e '.[beam]'):

    python -m data_prep.prepare ... --num_shards=40 --runner=flink --beam_options="..."

The folder is the same, byte for byte, whichever way it was made.
"""

import shlex
import sys

from tqdm import tqdm

from attunet_jax.errors import BadArguments, BadData, exit_status
from data_prep import resources
from data_prep.manifest import (
    claim,
    collect,
    join,
    refuse_rejected,
    remove_leavings,
    remove_others,
)
from data_prep.plan import Plan, make_plan, parse
from data_prep.runners.processes import peak_bytes, run_in_processes, stoppable
from data_prep.shard import ShardSpec, finished, prepare_shard


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    arguments = parse(words, __doc__)
    plan = make_plan(arguments)
    if arguments.shard_index is not None:
        return _write_one(plan, plan.specs[arguments.shard_index])
    if plan.unlabelled:
        images = {str(pair.image.parent) for pair in plan.unlabelled if pair.image}
        print(
            f"{len(plan.unlabelled)} scans without labels are not prepared, they are "
            f"for launch.predict --input={', '.join(sorted(images))}"
        )
    claim(plan)
    if arguments.join:
        parts = collect(plan)
        remove_others(plan.output, plan.specs)
    else:
        remove_others(plan.output, plan.specs)
        parts, todo = _sort(plan)
        if arguments.strict:
            refuse_rejected(parts.values())
        if arguments.runner:
            _write_by_beam(plan, words, todo)
            parts = {part["file"]: part for part in collect(plan)}
        else:
            _write_here(plan, parts, todo)
        parts = [parts[spec.path.name] for spec in plan.specs]
    if arguments.strict:
        refuse_rejected(parts)
    join(plan, parts)
    return 0


def _sort(plan: Plan) -> tuple[dict[str, dict], list[ShardSpec]]:
    """Descriptions by file of the shards that are there, and those to be written."""
    parts, todo = {}, []
    for spec in plan.specs:
        part = finished(spec)
        if part is None:
            todo.append(spec)
        else:
            parts[spec.path.name] = part
    return parts, todo


def _write_here(plan: Plan, parts: dict[str, dict], todo: list[ShardSpec]) -> None:
    """Prepares what is not there yet, in processes, with time left on a bar."""
    if not todo:
        return
    workers = _state_memory(todo, plan.arguments.workers)
    left = sum(len(spec.pairs) for spec in todo)
    begun = plan.case_count - left
    try:
        with tqdm(
            total=plan.case_count, initial=begun, unit="case", desc="prepare"
        ) as bar:
            if workers == 1 or len(todo) == 1:
                for spec in todo:
                    parts[spec.path.name] = prepare_shard(spec, bar.update)
            else:

                def done(number: int, part: dict) -> None:
                    parts[part["file"]] = part
                    bar.update(len(todo[number].pairs))

                calls = [(spec,) for spec in todo]
                run_in_processes(prepare_shard, calls, workers, plan.output, done)
    except BaseException:
        remove_leavings(plan.output)
        raise
    used = peak_bytes(of_children=workers > 1 and len(todo) > 1)
    _say(f"memory: at most {used / 1e9:.2f} GB were used by a process")


def _state_memory(todo: list[ShardSpec], wanted: int | None) -> int:
    """Says the most that will be used; returns the number of processes."""
    each = resources.process_bytes(todo)
    return resources.choose_workers("prepare", each, len(todo), wanted)


def _write_one(plan: Plan, spec: ShardSpec) -> int:
    """One task of a job array. What is left out is said by the command that joins."""
    claim(plan)
    part = finished(spec)
    if part is None:
        _state_memory([spec], 1)
        with tqdm(total=len(spec.pairs), unit="case", desc="prepare") as bar:
            part = prepare_shard(spec, bar.update)
    if spec.strict:
        refuse_rejected([part])
    for row in part["rejected"]:
        print(f"left out {row['case_id']}: {row['reason']}", file=sys.stderr)
    print(f"{spec.path}: {part['records']} cases; join when all tasks are done")
    return 0


def _write_by_beam(plan: Plan, words: list[str], todo: list[ShardSpec]) -> None:
    try:
        from data_prep.runners import beam  # late: an extra
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
    _state_memory(todo, None)
    try:
        beam.write_shards(
            words, [s.index for s in todo], plan.arguments.runner, options
        )
    except Exception as error:  # of a runner, with a traceback of many machines in it
        lines = [line for line in str(error).splitlines() if line.strip()]
        said = lines[-1] if lines else type(error).__name__
        raise BadData(
            f"{plan.output}: the pipeline failed: {said}; the same command goes on"
        ) from error


def _say(line: str) -> None:
    print(f"prepare: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: stoppable(main)))
