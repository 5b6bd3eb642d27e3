#!/usr/bin/env bash
# Trains on all hosts of a TPU VM or pod slice; starts again when it was stopped.
#
#     launch/cluster/tpu_vm.sh TPU_NAME ZONE --data=DIR --workdir=RUN
#
# The arguments after the zone are passed to launch.train unchanged. Every host needs the
# project in ~/attunet_jax with `pip install -e '.[tpu]'` in its .venv, and sees DIR and RUN under
# the same names (a mounted bucket or NFS). JAX finds the hosts through the TPU itself.
# Ctrl-C may leave the hosts running. To end them with everything saved:
#
#     gcloud compute tpus tpu-vm ssh TPU_NAME --zone=ZONE --worker=all \
#         --command='pkill -TERM -f "[l]aunch.train"'
set -euo pipefail
name=${1:?the name of the TPU comes first}
zone=${2:?the zone comes second}
shift 2
words=$(printf ' %q' "$@")
# On the hosts: 75 is "stopped, everything saved"; all of them come back together.
loop="cd attunet_jax || exit 2
while :; do
    .venv/bin/python -m launch.train$words
    status=\$?
    [ \$status -eq 75 ] || exit \$status
    sleep 5
done"
exec gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$loop"
