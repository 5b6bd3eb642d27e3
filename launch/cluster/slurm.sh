#!/usr/bin/env bash
# One run over the nodes of a SLURM allocation; queued again whenever it was stopped.
#
#     sbatch --nodes=4 --gpus-per-node=8 launch/cluster/slurm.sh --data=DIR --workdir=RUN
#     sbatch --nodes=4 --gpus-per-node=8 --ntasks-per-node=8 launch/cluster/slurm.sh --data=DIR ...
#
# A task a node uses all its GPUs; with --ntasks-per-node=8 each of 8 tasks takes one.
# The words go to launch.train as they are. Submit it from the project's folder, on a disk
# that all nodes see (PYTHON=... names another interpreter). Processes find each other
# through SLURM, no addresses are given. Stop it and have it go on later with
# `scancel --signal=TERM JOB`; end it for good with `scancel JOB`.
#SBATCH --job-name=attunet
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300
#SBATCH --output=%x-%j.log
set -uo pipefail
cd "${SLURM_SUBMIT_DIR:?submit this with sbatch}" || exit 2
python=python3
if [ -x .venv/bin/python ]; then python=.venv/bin/python; fi
# Huge pages of memory: a step on a CPU is faster.
export GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.hugetlb=1}

# SLURM may send SIGTERM here too when it needs the nodes. The processes answer it: they
# save and leave with 75, which is to be waited for.
trap : TERM
# None is killed for another's exit: the processes end each other, all with one status.
srun --kill-on-bad-exit=0 --wait=0 "${PYTHON:-$python}" -m launch.train "$@"
status=$?
if [ "$status" -eq 75 ]; then
    echo "stopped with everything saved: queued again (start $((${SLURM_RESTART_COUNT:-0} + 2)))"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
