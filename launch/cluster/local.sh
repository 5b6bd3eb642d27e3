#!/usr/bin/env bash
# Runs N processes on this machine: launch/cluster/local.sh N [flags] -- [module] arguments
# For example: launch/cluster/local.sh 2 --cpu_devices=4 -- --data=DIR --workdir=RUN
# launch/cluster/local.sh --help says more.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=python3
if [ -x .venv/bin/python ]; then python=.venv/bin/python; fi
# Huge pages of memory: a step on a CPU is faster.
export GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.hugetlb=1}
exec "${PYTHON:-$python}" -m launch.cluster.local "$@"
