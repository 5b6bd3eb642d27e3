#!/usr/bin/env bash
# shellcheck disable=SC2329  # the steps are called in shells of their own
# On the GPU machine, in the project's root:  bash launch/gpu_check/check.sh [STEP ...]
# Every step has its own time limit and files; a further call continues with the steps
# that are left. DRY=1: tiny sizes on a CPU, nothing installed.
set -u
if [ ! -d attunet_jax ] || [ ! -d launch/gpu_check ]; then
  echo "run it in the project's root" >&2; exit 2
fi
work=${WORK:-/tmp/attunet_gpu_check}
out=${OUT:-$work/out}
budget_s=${BUDGET_S:-545}
results=$work/results
python=${PYTHON:-python3}
peer=${PEER_PYTHON:-$python}
dry=${DRY:-0}
site=$work/site
mkdir -p "$results" "$work/done" "$out"

if [ "$dry" = 1 ]; then
  export JAX_PLATFORMS=cpu DRY=1
  size=tiny cases=10 phantoms=small spacing=8
else
  export JAX_PLATFORMS=cuda,cpu
  size=paper cases=16 phantoms=full spacing=2
fi
export PYTHONPATH=$site:$PWD PYTHONUNBUFFERED=1 GLIBC_TUNABLES=
export XLA_PYTHON_CLIENT_PREALLOCATE=false TF_CPP_MIN_LOG_LEVEL=1
export JAX_COMPILATION_CACHE_DIR=$work/compiled
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=1
EXACT=--xla_gpu_deterministic_ops=true

imports() {
  "$python" -c "
import attunet_jax.train.loop, data_prep.prepare, launch.benchmark.speed, launch.train
import attunet_jax.volume, launch.benchmark.measurements"
}

install() {  # the wheels that the machine lacks
  [ "$dry" = 1 ] && return
  [ -e "$work/done/install" ] && return
  if compgen -G ".device/whl/*.whl" > /dev/null; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
      --upgrade --target "$site" .device/whl/*.whl || return 1
  elif ! imports; then
    echo "something is missing here: bash launch/gpu_check/prepare.sh collects it"
    return 1
  fi
  touch "$work/done/install"
}

about() {
  date -u +%FT%TZ
  command -v nvidia-smi > /dev/null && nvidia-smi --format=csv \
    --query-gpu=name,memory.total,driver_version,clocks.max.sm,power.limit 2>&1
  nproc
  "$python" - <<'PY' || return 1
import importlib.metadata
import sys

print("python", sys.version.split()[0])
for name in (
    "jax jaxlib jax-cuda13-plugin jax-cuda13-pjrt nvidia-cudnn-cu13 nvidia-cublas flax "
    "optax orbax-checkpoint tensorstore etils grain numpy scipy torch triton pytest"
).split():
    try:
        print(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        print(name, "MISSING")
PY
  imports && echo "the project's programs can be imported"
}

data() {  # synthetic scans of a hospital's size, prepared at 2 mm on all cores
  export JAX_PLATFORMS=cpu
  [ -e "$work/done/data" ] && return
  "$python" -m data_prep.phantom --output="$work/scans" --cases=$cases \
    --size=$phantoms --seed=1 &&
  "$python" -m data_prep.prepare --source=nifti --input="$work/scans" \
    --output="$work/data" --labels=spleen=1,pancreas=2,kidney=3 \
    --spacing_mm=$spacing && touch "$work/done/data"
}

data_ready() {
  for _ in $(seq 240); do [ -e "$work/done/data" ] && return; sleep 0.5; done
  echo "the data are not ready: $(tail -c 400 "$results/data.log")"; return 1
}

benchmark() {  # NAME NETWORK MEASUREMENTS TYPES [more]
  local name=$1 network=$2 measurements=$3 types=$4; shift 4
  "$python" -m launch.benchmark speed --size="$size" --networks="$network" \
    --measure="$measurements" --compute_dtype="$types" --rounds=5 --peer_python="$peer" \
    --longest_call_s=20 --output="$results/$name" "$@"
}

against_torch() {  # as benchmark
  if ! "$peer" -c "import torch" 2> /dev/null; then
    echo "left out: $peer has no torch; PEER_PYTHON=... names another"; return
  fi
  benchmark "$@" --against=torch
}

tests() {  # products in float32, for which the tests' tolerances are made
  local paths=() parallel=() path
  for path in tests/model tests/ops tests/augment \
      tests/train/test_{step,loss,optimizer,gradient_averaging}.py; do
    [ -e "$path" ] && paths+=("$path")
  done
  "$python" -c "import xdist" 2> /dev/null &&
    parallel=(-n "${WORKERS:-8}" --dist=loadfile)
  JAX_DEFAULT_MATMUL_PRECISION=highest "$python" -m pytest -p no:cacheprovider -q \
    -o addopts= -o filterwarnings=default "${parallel[@]}" --durations=5 \
    -k "not onednn" -m "not cluster" --ignore-glob="*/test_model_doc.py" \
    --ignore-glob="*/test_build.py" --ignore-glob="*/test_published_weights.py" \
    "${paths[@]}"
}

parity() {  # TF32 may miss the tolerances, float32 must not
  if ! compgen -G ".device/golden/*.npz" > /dev/null; then
    echo "left out: no golden arrays in .device/golden"; return
  fi
  echo "== products in float32"
  JAX_DEFAULT_MATMUL_PRECISION=highest \
    "$python" -m launch.parity --golden=.device/golden
  local status=$?
  echo "== as a user runs it"
  "$python" -m launch.parity --golden=.device/golden
  return "$status"
}

check() { "$python" -m "launch.gpu_check.$1" "${@:2}"; }
measure() {  # NAME NETWORK TYPE WHAT
  check step "$results/$1" "${@:2}"
}

one() {  # the step named
  local net=attention_unet
  case $1 in
    about) about ;;
    smoke) check smoke "$results/smoke.json" ;;
    # A second process without the cache: does it choose the same algorithms?
    smoke_again) export JAX_ENABLE_COMPILATION_CACHE=false
      check smoke "$results/smoke_again.json" bits ;;
    smoke_exact) export XLA_FLAGS=$EXACT JAX_ENABLE_COMPILATION_CACHE=false
      check smoke "$results/smoke_exact.json" bits ;;
    att_bf16) measure "$1" "$net" bfloat16 train,forward,profile,peaks ;;
    # XLA's own choice of layout for the convolutions, to compare with.
    att_bf16_layout) measure "$1" "$net" bfloat16 train,forward,profile,peaks \
      'convolution="compiler"' ;;
    att_bf16_exact) export XLA_FLAGS=$EXACT
      measure "$1" "$net" bfloat16 train,peaks ;;
    att_f32) measure "$1" "$net" float32 train,profile,peaks ;;
    att_f32_layout) measure "$1" "$net" float32 train,peaks \
      'convolution="compiler"' ;;
    unet_bf16) measure "$1" unet bfloat16 train,forward,peaks ;;
    torch) against_torch "$1" "$net" train_step,forward bfloat16 ;;
    torch_f32) against_torch "$1" "$net" train_step float32 ;;
    torch_compile) against_torch "$1" "$net" train_step bfloat16 --torch_compile ;;
    torch_unet) against_torch "$1" unet train_step,forward bfloat16 ;;
    rest) benchmark "$1" "$net" input_pipeline,prediction,metrics bfloat16 ;;
    parity) parity ;;
    tests) tests ;;
    endtoend) data_ready &&
      check endtoend "$results/endtoend.json" "$work/data" "$work/runs" ;;
    fits_large) check fits "$results/$1.json" "$net" bfloat16 256,512,512 1 ;;
    fits_medium) check fits "$results/$1.json" "$net" bfloat16 192,448,448 1 ;;
    *) echo "no step $1"; return 2 ;;
  esac
}

# The most important first; time limits in seconds.
steps="about:30 smoke:100 att_bf16:150 att_bf16_layout:140 torch:110 parity:90 endtoend:150
  tests:100 torch_compile:150 smoke_again:60 att_f32:110 torch_f32:90 unet_bf16:90
  torch_unet:90 smoke_exact:60 fits_large:100 att_bf16_exact:90 att_f32_layout:90
  fits_medium:90 rest:60"
if [ $# -gt 0 ]; then
  chosen=
  for name in "$@"; do
    found=
    for step in $steps; do [ "${step%:*}" = "$name" ] && found=$step; done
    [ -n "$found" ] || { echo "no step $name" >&2; exit 2; }
    chosen="$chosen $found"
    rm -f "$work/done/$name"
  done
  steps=$chosen
fi

pack() {  # after every step, so that a time-out loses nothing
  cp "$work/report.txt" "$out/report.txt"
  tar -C "$work" -czf "$out/results.tar.gz" results
}

install || exit 1
# Each step runs in a process group of its own, which ends with it.
export -f about against_torch benchmark check data_ready imports measure one parity tests
export work results python peer size EXACT
preparing='' running=''
stop() { kill "$running" "$preparing" 2> /dev/null; pack; exit 130; }
trap stop INT TERM
case $steps in *endtoend:*)
  if [ ! -e "$work/done/endtoend" ]; then
    ( data > "$results/data.log" 2>&1 ) & preparing=$!
  fi ;;
esac
failed=0
for step in $steps; do
  name=${step%:*} limit=${step#*:}
  [ -e "$work/done/$name" ] && continue
  left=$((budget_s - SECONDS))
  if [ $left -lt 25 ]; then
    echo "== $name: no time left in this call" | tee -a "$work/report.txt"; continue
  fi
  [ "$limit" -gt $left ] && limit=$left
  [ "$dry" = 1 ] && limit=600
  start=$SECONDS
  timeout -k 5 "$limit" bash -c "one $name" > "$results/$name.log" 2>&1 & running=$!
  wait "$running"; status=$?
  message="== $name: status $status, $((SECONDS - start)) s of $limit"
  [ $status -eq 124 ] && message="$message: TIME-OUT"
  [ $status -ne 0 ] && failed=1
  {
    echo "$message"
    grep -v -E '^W0|^I0|warn' "$results/$name.log" | tail -n 40 | cut -c1-220
  } >> "$work/report.txt"
  echo "$message"; tail -n 3 "$results/$name.log" | cut -c1-200
  [ $status -ne 124 ] && touch "$work/done/$name"
  pack
done
[ -n "$preparing" ] && wait "$preparing"
"$python" -m launch.gpu_check.summary "$results" | tee "$out/summary.txt"
touch "$work/report.txt"
pack
exit $failed
