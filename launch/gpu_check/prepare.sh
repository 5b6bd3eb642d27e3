#!/usr/bin/env bash
# On a machine with the internet, in the project's root:
#   bash launch/gpu_check/prepare.sh
# Makes .device/ (ignored by git): the wheels that a GPU machine with Python 3.12 and jax
# for CUDA lacks, in the versions of constraints.txt, and the golden arrays that
# GOLDEN=FILE names.
set -euo pipefail
if [ ! -f constraints.txt ] || [ ! -d attunet_jax ]; then
  echo "run it in the project's root" >&2; exit 2
fi
mkdir -p .device/whl .device/golden
rm -f .device/whl/*.whl .device/golden/*
golden=${GOLDEN:-}
if [ -f "$golden" ]; then
  cp "$golden" .device/golden/
else
  echo "no golden arrays (GOLDEN=FILE): the step parity will be left out"
fi

# No NVIDIA package, jax, jaxlib, numpy or torch: the machine has its own. The second
# line may be there too, in other versions; the project's own are small.
names="array-record grain isal lz4 ml-collections nibabel portpicker pydicom tensorboardx
  etils flax optax orbax-checkpoint tensorstore"
requirements=()
for name in $names; do
  # One line for each package; of two for different Pythons, the one for 3.12.
  line=$(grep -E "^$name==" constraints.txt | grep -v "python_full_version < '3.12'" |
    head -1)
  requirements+=("${line%% *}")
done
python=python3; [ -x .venv/bin/python ] && python=.venv/bin/python
platforms=()
for n in 2014 1 _2_17 _2_24 _2_27 _2_28 _2_31 _2_34 _2_35; do
  platforms+=(--platform "manylinux${n}_x86_64")
done
"$python" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
  --python-version 3.12 --implementation cp "${platforms[@]}" \
  -d .device/whl "${requirements[@]}" 2> >(grep -v '^WARNING: Location' >&2)
for wheel in .device/whl/*.whl; do
  name=${wheel##*/}; name=${name%%-cp312*}; echo "${name%%-py3*}"
done
echo "$(du -sm .device | cut -f1) MiB in .device"
