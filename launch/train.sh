#!/usr/bin/env bash
# Create, set up and run; and after a preemption all of it again, until the command is done. The run goes on from its last
# checkpoint in the shared folder, with the data where they stood.
#
#   ZONE=us-east5-a ACCELERATOR=v5p-64 BUCKET=my-bucket launch/train.sh sft-7b \
#     python -m chestx_jax.train --config=configs/sft.py --workdir=/mnt/runs/sft-7b --distributed
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
here=$(dirname "${BASH_SOURCE[0]}")

[ $# -ge 2 ] || { echo "usage: launch/train.sh RUN COMMAND [ARGUMENT...]" >&2 && exit 2; }

while true; do
  result=0
  { "$here/create.sh" && "$here/setup.sh"; } || result=$?
  if [ "$result" = 0 ]; then
    "$here/run.sh" "$@" || result=$?
    # Only the loss of the slice is worth another try: a command that failed would fail again.
    [ "$result" = 75 ] || exit "$result"
  elif [ "$result" = 3 ] || [ "$(state)" = ACTIVE ]; then
    echo "the slice was refused, or could not be set up" >&2
    exit "$result"
  fi
  echo "$(date +%T) starting again"
  sleep "$POLL_SECONDS"
done
