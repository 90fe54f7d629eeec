"""`python -m chestx_jax.mine --studies=DIR --out=DIR`: RadR records, questions with reasoning, of prepared studies.

[--families=binary,single,multiple,anomaly,temporal] [--miner=rules|openai:MODEL@URL] [--per-label=N] [--seed=0]
[--verdicts] [--allow-remote] [--workers=8] [--prices=IN,OUT]. The same command goes on after a kill.
"""

import signal
import sys
from pathlib import Path

from absl import flags

from chestx_jax import cli
from chestx_jax.config import to_dataclass
from chestx_jax.mining.data_card import as_markdown
from chestx_jax.mining.dataset import MineConfig, mine
from chestx_jax.mining.questions import FAMILIES

STUDIES = flags.DEFINE_string("studies", None, "folder that chestx_jax.prepare made", required=True)
OUT = flags.DEFINE_string("out", None, "folder to make, or to go on with", required=True)
ASKED = flags.DEFINE_list("families", list(FAMILIES), "families of questions")
MINER = flags.DEFINE_string("miner", "rules", "who writes the reasoning: rules (offline) or openai:MODEL@URL")
PER_LABEL = flags.DEFINE_integer("per-label", 0, "questions a label, family and split at most; 0: all", lower_bound=0)
SEED = flags.DEFINE_integer("seed", 0, "of the choice of studies, options and wordings", lower_bound=0)
VERDICTS = flags.DEFINE_bool("verdicts", False, "chains by rules say first what is present or absent of what is asked")
ALLOW_REMOTE = flags.DEFINE_bool("allow-remote", False, "send reports of closed sets beyond this machine")
WORKERS = flags.DEFINE_integer("workers", 8, "calls to an endpoint at a time", lower_bound=1)
PRICES = flags.DEFINE_list("prices", [], "dollars per million tokens read and written, for an endpoint's cost")


def main(_: list[str]) -> int:
    fields = {"families": ASKED.value, "miner": MINER.value, "per_label": PER_LABEL.value, "seed": SEED.value}
    fields |= {"verdicts": VERDICTS.value}
    fields |= {"allow_remote": ALLOW_REMOTE.value, "workers": WORKERS.value, "prices": PRICES.value}
    config = to_dataclass(MineConfig, fields, "mine")
    try:
        card = mine(config, Path(STUDIES.value or ""), Path(OUT.value or ""), sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; run the same command again, what was answered is not asked again", file=sys.stderr)
        return 130
    print(as_markdown(card), end="")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as ctrl-C: replies in flight are kept
    cli.run(main)
