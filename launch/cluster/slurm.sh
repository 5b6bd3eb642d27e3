#!/usr/bin/env bash
# Trains over the nodes of a SLURM allocation; requeues itself when it was stopped or a process died or hung.
#
#     sbatch --nodes=4 --gpus-per-node=8 launch/cluster/slurm.sh --data=DIR --workdir=RUN
#     sbatch --nodes=4 --gpus-per-node=8 --ntasks-per-node=8 launch/cluster/slurm.sh --data=DIR ...
#     CONTAINER=IMAGE MOUNTS=/scratch:/scratch sbatch --nodes=4 --gpus-per-node=8 \
#         launch/cluster/slurm.sh --data=/scratch/DIR --workdir=/scratch/RUN
#
# One task a node uses all its GPUs; with --ntasks-per-node=8 each of 8 tasks uses one.
# The arguments are passed to launch.train unchanged. Submit it from the project's folder,
# on a disk that all nodes see (PYTHON=... names another interpreter). Processes find each
# other through SLURM; no addresses are needed. `scancel --signal=TERM JOB` stops it and
# queues it again to continue later; `scancel JOB` ends it for good. CONTAINER=IMAGE runs the
# tasks in a container by Pyxis (a registry's image, or a .sqsh file): the packages are the
# image's, the code is this folder's, and MOUNTS=SOURCE:TARGET,... mounts more than this
# folder. The script itself stays outside: there is no srun inside a container.
#SBATCH --job-name=attunet
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300
#SBATCH --output=%x-%j.log
set -uo pipefail
if [ -z "${SLURM_SUBMIT_DIR:-}" ]; then
    echo "error: $0 is no command of its own: sbatch $0 --data=DIR --workdir=RUN" >&2
    exit 2
fi
cd "$SLURM_SUBMIT_DIR" || exit 2
python=python3
if [ -x .venv/bin/python ]; then python=.venv/bin/python; fi
# Huge pages of memory: a step on a CPU is faster.
export GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.hugetlb=1}

container=()
if [ -n "${CONTAINER:-}" ]; then
    if ! srun --help 2>&1 | grep -q -e --container-image; then
        echo "error: CONTAINER=$CONTAINER needs Pyxis, and srun here has no" \
            "--container-image: ask for NVIDIA's plug-in, or install the project in .venv" \
            "and submit without CONTAINER" >&2
        exit 2
    fi
    python=python3 # the image's
    container=(
        --container-image="$CONTAINER"
        --container-mounts="$PWD:$PWD${MOUNTS:+,$MOUNTS}"
        --container-workdir="$PWD"
        --no-container-entrypoint
    )
fi

# SLURM may send SIGTERM to this script too when it needs the nodes. The processes handle
# it: they save and exit with 75, so only wait for them.
trap : TERM
# srun kills none when another exits: the processes end each other, all with one status;
# only one that is stopped cannot, and is killed when the others are gone for two minutes.
srun --kill-on-bad-exit=0 --wait=120 "${container[@]}" "${PYTHON:-$python}" -m launch.train "$@"
status=$?
if [ "$status" -eq 75 ]; then
    echo "stopped with everything saved: queued again (start $((${SLURM_RESTART_COUNT:-0} + 2)))"
    scontrol requeue "$SLURM_JOB_ID"
elif [ "$status" -eq 134 ] || [ "$status" -eq 137 ]; then
    # Not without end: a mistake may kill it again and again.
    if [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
        echo "a process died or hung (status $status): queued again from the last checkpoint"
        scontrol requeue "$SLURM_JOB_ID"
    fi
fi
exit "$status"
