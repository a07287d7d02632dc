#!/bin/sh
# Locks what the images install: NAME.in -> NAME.txt, every file of a release by its hash, at the versions of runtime.txt.
#   UV=uv TORCH_INDEX=<index of torch's CPU builds> requirements/images/lock.sh
# Without TORCH_INDEX the CPU builds are looked for in PIP_FIND_LINKS. The CPU lock is for x86-64; the others are for all.
set -eu
cd "$(dirname "$0")"
compile() {
  name=$1
  shift
  "${UV:-uv}" pip compile --quiet --generate-hashes --no-annotate --no-header --upgrade "$name.in" -o "$name.txt" "$@"
}
for name in trainer operator torch-cuda; do compile "$name" -c ../runtime.txt --universal --python-version 3.11; done
# TorchX holds urllib3 below 2, with which MLflow's webhooks fail; its image has no TorchX.
grep -v '^urllib3==' ../runtime.txt > mlflow.constraints
compile mlflow -c mlflow.constraints --universal --python-version 3.11
rm mlflow.constraints
compile torch-cpu -c ../runtime.txt --python-platform x86_64-manylinux_2_28 --python-version 3.11 \
  ${TORCH_INDEX:+--index "$TORCH_INDEX"} ${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"}
grep -q '^torch==[^ ]*+cpu' torch-cpu.txt || { echo "no CPU build of torch found: set TORCH_INDEX to the index of torch's CPU builds" >&2; exit 2; }
