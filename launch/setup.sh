#!/usr/bin/env bash
# Put the committed code, its environment and the shared folder on every host of the slice. Safe to repeat.
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git -C "$(dirname "${BASH_SOURCE[0]}")/.." archive --format=tar.gz --output="$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "$NAME:code.tar.gz" --zone="$ZONE" --worker=all

on_all_hosts "set -e
  rm -rf $CHECKOUT && mkdir $CHECKOUT && tar -xzf code.tar.gz -C $CHECKOUT
  [ -x venv/bin/python ] || python3 -m venv venv
  venv/bin/pip install --quiet --upgrade pip
  venv/bin/pip install --quiet -e '$CHECKOUT[tpu]'"

if [ -n "$BUCKET" ]; then
  # Every host sees the same checkpoints, whichever slice it belongs to.
  on_all_hosts "set -e
    mountpoint -q $RUNS && exit 0
    if ! command -v gcsfuse >/dev/null; then
      echo \"deb [signed-by=/usr/share/keyrings/cloud.google.asc] https://packages.cloud.google.com/apt gcsfuse-\$(lsb_release -cs) main\" |
        sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
      curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee /usr/share/keyrings/cloud.google.asc >/dev/null
      sudo apt-get update -qq && sudo apt-get install -y -qq gcsfuse >/dev/null
    fi
    sudo mkdir -p $RUNS && sudo chown \$USER $RUNS
    # No metadata cache, for the hosts write beside each other; a checkpoint is finished by renaming its folder.
    gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 --rename-dir-limit=100000 $BUCKET $RUNS"
fi

on_all_hosts "venv/bin/python -c 'import jax; jax.distributed.initialize(); print(jax.process_index(), jax.device_count())'"
