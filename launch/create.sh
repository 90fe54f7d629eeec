#!/usr/bin/env bash
# Ask for the TPU slice as a queued resource and wait until it is there. Does nothing where it is there already.
# Ends with 3 where the request is refused, with 1 where it was accepted and came to nothing.
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

case "$(state)" in
  NONE) ;;
  SUSPENDED | FAILED) # a preempted slice stays behind as an empty shell under its name
    queued delete "$NAME" --force --quiet
    ;;
  *) exists=yes ;;
esac

if [ -z "${exists:-}" ]; then
  queued create "$NAME" --node-id="$NAME" --accelerator-type="$ACCELERATOR" --runtime-version="$RUNTIME" \
    ${capacity_flag[@]+"${capacity_flag[@]}"} || exit 3 # refused (a wrong name, no quota): asking again would not help
fi

while true; do
  now=$(state)
  case "$now" in
    ACTIVE) exit 0 ;;
    FAILED | SUSPENDED | NONE) echo "the request for $ACCELERATOR in $ZONE ended as $now" >&2 && exit 1 ;;
  esac
  echo "$(date +%T) $NAME: $now"
  sleep "$POLL_SECONDS"
done
