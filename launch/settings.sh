# What every script here reads. Set the upper case names in the environment, or edit a copy and name it in SETTINGS.
# shellcheck shell=bash disable=SC2034
set -euo pipefail
# shellcheck disable=SC1090
[ -z "${SETTINGS:-}" ] || source "$SETTINGS"

: "${NAME:=chestx}"                      # of the queued resource and of its TPU node
: "${ZONE:?set ZONE, for example us-east5-a}"
: "${ACCELERATOR:=v5litepod-32}"         # v5litepod-32, v5p-64, v6e-16, ...
: "${RUNTIME:=v2-alpha-tpuv5-lite}"      # v2-alpha-tpuv5 for v5p, v2-alpha-tpuv6e for v6e
: "${CAPACITY:=spot}"                    # spot (cheap, may be taken away), on-demand or reserved
: "${BUCKET:=}"                          # a Cloud Storage bucket mounted at RUNS on every host; empty: RUNS is mounted already
: "${RUNS:=/mnt/runs}"                   # the folder that all hosts share: workdirs and checkpoints live here
: "${CHECKOUT:=chestx_jax}"              # where the code goes in each host's home folder
: "${POLL_SECONDS:=60}"

case "$CAPACITY" in
  spot | reserved) capacity_flag=("--$CAPACITY") ;;
  on-demand) capacity_flag=() ;;
  *) echo "CAPACITY is '$CAPACITY': choose spot, on-demand or reserved" >&2 && exit 2 ;;
esac

queued() { gcloud compute tpus queued-resources "$@" --zone="$ZONE"; }

# One word: ACTIVE, WAITING_FOR_RESOURCES, PROVISIONING, SUSPENDED, FAILED, ...; NONE where there is no such resource.
state() { queued describe "$NAME" --format='value(state.state)' 2>/dev/null || echo NONE; }

on_all_hosts() { gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"; }
on_first_host() { gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=0 --command="$1"; }
