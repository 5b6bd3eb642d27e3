#!/usr/bin/env bash
# N processes of one run on this machine: launch/local.sh N [flags] -- [module] arguments
# For example: launch/local.sh 2 --cpu_devices=4 -- --data=DIR --workdir=RUN
# launch/local.sh --help says more.
set -euo pipefail
cd "$(dirname "$0")/.."
python=python3
if [ -x .venv/bin/python ]; then python=.venv/bin/python; fi
exec "${PYTHON:-$python}" -m launch.local "$@"
