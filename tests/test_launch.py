"""The launch scripts against a stand-in for gcloud whose hosts are folders: they start, stop, and start again."""

import os
import pathlib
import shutil
import subprocess

import pytest

LAUNCH = pathlib.Path(__file__).resolve().parent.parent / "launch"

# `ssh` runs the command in each host's home folder; after `preempt_after` questions an active slice is a lost one.
GCLOUD = r"""#!/usr/bin/env bash
set -euo pipefail
echo "$*" >> "$CLOUD/calls"
argument() { local wanted=$1; shift; for a in "$@"; do case "$a" in "$wanted"=*) echo "${a#*=}" ;; esac; done; }
stop_hosts() {
  for pid in "$CLOUD"/host*/*.pid; do [ -f "$pid" ] && kill -9 -- "-$(cat "$pid")" 2>/dev/null; done; true
}
case "$4" in
  create)
    [ "$(argument --accelerator-type "$@")" != v9-8 ] || { echo "no such accelerator" >&2; exit 1; }
    for host in 0 1; do
      mkdir -p "$CLOUD/host$host/venv/bin"
      printf '#!/bin/sh\n' | tee "$CLOUD/host$host/venv/bin/pip" > "$CLOUD/host$host/venv/bin/python"
      chmod +x "$CLOUD/host$host/venv/bin/"*
    done
    echo ACTIVE > "$CLOUD/state" ;;
  describe)
    [ -f "$CLOUD/state" ] || exit 1
    if [ -f "$CLOUD/preempt_after" ] && [ "$(cat "$CLOUD/state")" = ACTIVE ]; then
      left=$(( $(cat "$CLOUD/preempt_after") - 1 ))
      echo "$left" > "$CLOUD/preempt_after"
      if [ "$left" -le 0 ]; then
        rm "$CLOUD/preempt_after"
        echo SUSPENDED > "$CLOUD/state"
        stop_hosts
      fi
    fi
    cat "$CLOUD/state" ;;
  delete) stop_hosts; rm -rf "$CLOUD/state" "$CLOUD"/host* ;;
  scp) for host in "$CLOUD"/host*; do cp "$5" "$host/code.tar.gz"; done ;;
  ssh)
    worker=$(argument --worker "$@")
    command=$(argument --command "$@")
    for host in "$CLOUD"/host*; do
      [ "$worker" = all ] || [ "$host" = "$CLOUD/host$worker" ] || continue
      (cd "$host" && HOME="$host" bash -c "$command")
    done ;;
esac
"""


@pytest.fixture
def launch(tmp_path):
    """Run a launch script; the folder it returns beside the result is the cloud."""
    cloud = tmp_path / "cloud"
    tools = tmp_path / "tools"
    cloud.mkdir()
    tools.mkdir()
    (tools / "gcloud").write_text(GCLOUD)
    (tools / "gcloud").chmod(0o755)
    settings = {"ZONE": "here", "POLL_SECONDS": "0.1", "CLOUD": str(cloud), "PATH": f"{tools}:{os.environ['PATH']}"}

    def run(script, *arguments, **more):
        environment = {**os.environ, **settings, **more}
        command = [str(LAUNCH / script), *arguments]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        return result, cloud

    if not (shutil.which("bash") and shutil.which("git") and (LAUNCH.parent / ".git").exists()):
        pytest.skip("the scripts need bash, and git in a checkout")
    yield run
    run("delete.sh")


def calls(cloud, kind):
    return [line for line in (cloud / "calls").read_text().splitlines() if line.split()[3] == kind]


def test_runs_once_on_every_host_with_the_committed_code(launch):
    result, cloud = launch(
        "train.sh", "sft", "sh", "-c", 'test -f pyproject.toml && echo "$0 | done" >> "$CLOUD/ran"', "a 'b"
    )
    assert result.returncode == 0, result.stderr
    assert (cloud / "ran").read_text() == "a 'b | done\n" * 2
    assert len(calls(cloud, "create")) == 1
    assert "--spot" in calls(cloud, "create")[0]


def test_a_failing_command_is_not_repeated(launch):
    result, cloud = launch("train.sh", "sft", "sh", "-c", 'echo ran >> "$CLOUD/ran"; echo wrong field; exit 2')
    assert result.returncode == 2
    assert "wrong field" in result.stderr
    assert (cloud / "ran").read_text() == "ran\n" * 2
    assert len(calls(cloud, "create")) == 1


def test_a_preempted_run_starts_again(launch):
    # The first run of each host would never end; the second finds what the first left in the shared folder.
    command = 'saved="$CLOUD/saved.$(basename "$HOME")"; if [ -f "$saved" ]; then exit 0; fi; touch "$saved"; sleep 600'
    result, cloud = launch_with_preemption(launch, command)
    assert result.returncode == 0, result.stderr
    assert "was taken away: SUSPENDED" in result.stderr
    assert len(calls(cloud, "create")) == len(calls(cloud, "delete")) + 1 == 2


def test_a_command_that_saves_and_ends_before_the_slice_goes_is_not_done(launch):
    result, cloud = launch_with_preemption(launch, 'echo ran >> "$CLOUD/ran"', after=3)
    assert result.returncode == 0, result.stderr
    assert (cloud / "ran").read_text() == "ran\n" * 4
    assert len(calls(cloud, "create")) == 2


def launch_with_preemption(launch, command, after=8):
    _, cloud = launch("delete.sh")
    (cloud / "preempt_after").write_text(str(after))
    (cloud / "calls").unlink()
    return launch("train.sh", "sft", "bash", "-c", command)


def test_a_refused_request_ends(launch):
    result, cloud = launch("train.sh", "sft", "true", ACCELERATOR="v9-8")
    assert result.returncode == 3
    assert "no such accelerator" in result.stderr
    assert len(calls(cloud, "create")) == 1


@pytest.mark.parametrize(("name", "value"), [("CAPACITY", "cheap"), ("ZONE", "")])
def test_wrong_settings_are_named(launch, name, value):
    result, cloud = launch("create.sh", **{name: value})
    assert result.returncode != 0
    assert name in result.stderr
    assert not (cloud / "calls").exists()
