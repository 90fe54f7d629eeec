#!/usr/bin/env bash
# Give the slice back. The shared folder, with every checkpoint, stays.
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
queued delete "$NAME" --force --quiet
