#!/usr/bin/env bash
# The ViT on one GPU, in under nine minutes, from this repository and a folder of wheels alone.
#
#   benchmarks/h200.sh --fetch .whl     on a machine with a package index: the wheels the other one lacks
#   benchmarks/h200.sh --dry-run        print what would be run
#   benchmarks/h200.sh [OUT]            measure; runs, logs and the ceiling go to OUT (default: reports/h200)
#
# Needs Python 3.12 with the packages in THERE; WHEELS names the folder (default: .whl). Every stage ends at the
# time that is left, and keeps what it measured.
set -uo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
WHEELS=${WHEELS:-.whl}
BUDGET_S=${BUDGET_S:-500}
LEAST_S=30 # a stage with less than this is left out
PACKAGES="nvidia-pytriton tritonclient python-rapidjson locust gevent greenlet zope-event zope-interface
  geventhttpclient brotli flask flask-cors flask-login blinker itsdangerous configargparse bidict
  python-engineio python-socketio simple-websocket wsproto websocket-client pyzmq hpack cattrs
  grpcio protobuf plotly narwhals"

THERE="torch numpy pandas transformers safetensors pillow rich nvidia-ml-py psutil pyyaml requests
  click jinja2 werkzeug msgpack attrs ml-dtypes setuptools"
# All that will be imported: better missed now than in the middle.
IMPORTS="import torch, transformers, plotly.graph_objects, bench.cli.main, bench.cli.verbs.sweep, bench.cli.verbs.ceiling, bench.cli.verbs.doctor, bench.cli.verbs.report"
WORKER="import bench.loadgen.locust.worker_process"

is_dry=0
case "${1:-}" in
--dry-run)
  is_dry=1
  shift
  ;;
--fetch)
  folder=${2:?name a folder}
  for package in $PACKAGES; do
    locked=$(grep -E "^${package}==" requirements.lock | cut -d' ' -f1) || continue
    "$PYTHON" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
      --implementation cp --platform manylinux_2_35_x86_64 --platform manylinux_2_28_x86_64 \
      --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux1_x86_64 \
      --dest "$folder" "$locked" || exit 4
  done
  # More than a quarter of it is stubs for other Pythons, and the libpython of one; the stub for 3.12 takes the system's.
  "$PYTHON" - "$folder" <<'STRIP' || exit 4
import sys, zipfile
from pathlib import Path

for wheel in Path(sys.argv[1]).glob("nvidia_pytriton-*.whl"):
    part = wheel.with_suffix(".part")
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as kept:
        for entry in whole.infolist():
            is_stub = "/python_backend_stubs/" in entry.filename
            if "/python_backend_stubs/3.12/" in entry.filename or not (is_stub or "/libpython" in entry.filename):
                kept.writestr(entry, whole.read(entry), zipfile.ZIP_DEFLATED, 9)
    part.replace(wheel)
STRIP
  exit 0
  ;;
esac

OUT=${1:-reports/h200}
began=$SECONDS

left() { echo $((BUDGET_S - (SECONDS - began))); }

# stage NAME COMMAND...: within the time that is left; interrupted, a sweep reports what it has.
stage() {
  local name=$1
  shift
  if ((is_dry)); then
    echo "$name: $*"
    return
  fi
  local most
  most=$(left)
  if ((most < LEAST_S)); then
    echo "== $name: left out, $most s are left" | tee -a "$OUT/stages.txt"
    return
  fi
  echo "== $name: $* (at most $most s)" | tee -a "$OUT/stages.txt"
  local from=$SECONDS
  timeout --signal=INT --kill-after=20 "$most" "$@" 2>&1 | tee "$OUT/$name.log"
  echo "== $name: exit ${PIPESTATUS[0]}, $((SECONDS - from)) s" | tee -a "$OUT/stages.txt"
}

BENCH=("$PYTHON" -m bench)
SWEEP=("${BENCH[@]}" sweep --vit base --quick --warmup 300ms --duration 1s --concurrency 8)

if ((!is_dry)); then
  mkdir -p "$OUT"
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  if compgen -G "$WHEELS/*.whl" >/dev/null; then
    "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl || exit 4
  fi
  export PYTHONPATH="$site:$PWD${PYTHONPATH:+:$PYTHONPATH}"
  export PYTHONUNBUFFERED=1
fi

if ((!is_dry)); then
  "$PYTHON" -c "$WORKER" && "$PYTHON" -c "$IMPORTS" || exit 4
fi
stage machine nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit --format=csv
stage doctor "${BENCH[@]}" doctor
# KIND_AUTO goes to the CPU without a word where Triton finds no GPU. tf32 has one.
stage gpu "${SWEEP[@]}" --precision tf32 --instances 1 --batch 1 --protocol http --out "$OUT/gpu" --force
said() { cat "$OUT/gpu.log" "$OUT/gpu/run.json" 2>/dev/null || true; } # the terminal breaks lines
if ((!is_dry)) && said | tr -s '[:space:]' ' ' | grep -E "needs a GPU|this machine has none" >/dev/null; then
  echo "== Triton, or this machine, finds no GPU: see gpu.log, and tritonserver.log in $OUT/gpu" | tee -a "$OUT/stages.txt"
  exit 4
fi

# 1. The goals: bf16 as CUDA graphs, bytes in and the pooled vector out; every transport.
stage goals "${SWEEP[@]}" --precision bf16 --compile default --wire uint8 --output pooler_output \
  --instances 1,2,4 --batch 1,8,32,64 --protocol http,grpc --shared-memory none,system \
  --out "$OUT/goals" --force
stage ceiling "${BENCH[@]}" ceiling --run "$OUT/goals" --seconds 500ms

# 2. The contract as it is, fp32 in and 605 KB an image out, in every precision.
stage precision "${SWEEP[@]}" --precision fp32,tf32,bf16,fp16 --compile none --instances 1,4 \
  --batch 1,8,32,64 --protocol http,grpc --out "$OUT/precision" --force
stage ceiling-precision "${BENCH[@]}" ceiling --run "$OUT/precision" --seconds 500ms

# 3. What travels, in time that is left.
stage wire "${SWEEP[@]}" --precision bf16 --compile default --wire fp32,uint8,jpeg \
  --output last_hidden_state,pooler_output --instances 2 --batch 1,32 --protocol grpc \
  --shared-memory none,system --out "$OUT/wire" --force
stage autotune "${SWEEP[@]}" --precision bf16 --compile max-autotune --max-batch 32 --wire uint8 \
  --output pooler_output --instances 1 --batch 32 --protocol grpc --out "$OUT/autotune" --force

if ((!is_dry)); then
  "${BENCH[@]}" report "$OUT" 2>&1 | tail -n 1
  echo "== all: $((SECONDS - began)) s" | tee -a "$OUT/stages.txt"
fi
