#!/bin/bash
# Prepares data as a SLURM job array: one task for each shard, then a job that joins them.
#
#     bash data_prep/runners/slurm_array.sh 40 --source=nnunet --input=RAW --output=DATA
#
# 40 is the number of shards; the rest are flags of data_prep.prepare. Run it where
# `python -m data_prep.prepare` works (PYTHON=... names another interpreter), with folders
# that all nodes see. SBATCH_FLAGS holds flags of sbatch, such as partition or memory.
#SBATCH --job-name=prepare
#SBATCH --cpus-per-task=1
#SBATCH --mem=2G
#SBATCH --time=01:00:00
set -euo pipefail
PYTHON=${PYTHON:-python}

if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then # a task
    exec "$PYTHON" -m data_prep.prepare "$@" --shard_index="$SLURM_ARRAY_TASK_ID"
elif [[ -n ${SLURM_JOB_ID:-} ]]; then # the last job
    exec "$PYTHON" -m data_prep.prepare "$@" --join
fi

shards=${1:?the number of shards comes first}
shift
# shellcheck disable=SC2086
submit() { sbatch --parsable ${SBATCH_FLAGS:-} "$@"; }
tasks=$(submit --array="0-$((shards - 1))" "$0" "$@" --num_shards="$shards")
submit --dependency="afterok:$tasks" "$0" "$@" --num_shards="$shards"
