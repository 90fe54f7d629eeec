"""`python -m chestx_jax.evaluate`: runs a model on records, or scores predictions and judgements that exist already.

--config=configs/eval.py --model=orbax:DIR|hf:DIR|openai:MODEL@URL --out=DIR   (run again, it resumes; --distributed)
--predictions FILE… --family ours|qwen|chexagent|auto --rule official|strict --json OUT
--predictions FILE --judge rules|openai:MODEL@URL --json OUT --per_item ITEMS.jsonl
--judgements FILE… --aggregation official|clean --json OUT
--audit FILE… --json OUT      --validate FILE… --json OUT      --compare DIR|FILE… --out=DIR
"""

import signal
from dataclasses import replace
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from chestx_jax import cli
from chestx_jax.config import to_dataclass
from chestx_jax.endpoint.client import parse_model
from chestx_jax.errors import UserError
from chestx_jax.eval import commands, judge
from chestx_jax.eval.answers.official import FAMILIES
from chestx_jax.eval.compare import compare_runs
from chestx_jax.eval.config import EvalConfig
from chestx_jax.eval.judges.judgements import AGGREGATIONS
from chestx_jax.eval.score_files import RULES
from chestx_jax.files import write_json

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "what to evaluate on: configs/eval.py or configs/eval.py:PRESET"
)
MODEL = flags.DEFINE_string("model", None, "orbax:DIR, hf:DIR or openai:MODEL@URL")
OUT = flags.DEFINE_string("out", None, "folder of predictions.jsonl, scores.json and report.html")
flags.DEFINE_string("predictions", None, "file(s) of predictions to score")
flags.DEFINE_string("judgements", None, "file(s) of judged records to aggregate")
flags.DEFINE_string("audit", None, "file(s) of records to answer without the film")
flags.DEFINE_string("validate", None, "file(s) of records to check")
flags.DEFINE_string("compare", None, "folders that --out wrote, or prediction files, for one page")
FAMILY = flags.DEFINE_enum("family", "auto", FAMILIES, "whose official rule; auto reads it off the path")
RULE = flags.DEFINE_enum("rule", "strict", RULES, "how an answer is read")
STRIP_ECHO = flags.DEFINE_bool("strip-echo", False, "strip the chat echo before the official rule, too")
AGGREGATION = flags.DEFINE_enum("aggregation", "clean", AGGREGATIONS, "how judgements are averaged")
JUDGE = flags.DEFINE_string("judge", None, "score reasoning: rules (offline) or openai:MODEL@URL")
CACHE = flags.DEFINE_string("cache", None, "folder of an endpoint's replies; default: beside the output")
WORKERS = flags.DEFINE_integer("workers", 8, "calls to a judging endpoint at a time", lower_bound=1)
PRICES = flags.DEFINE_list("prices", None, "dollars per million tokens read and written, for the judge's cost")
PER_ITEM = flags.DEFINE_string("per_item", None, "JSON lines with each item's findings and verdicts")
JSON = flags.DEFINE_string("json", None, "where the scores go")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "join the other hosts, as in training, to run a checkpoint")
IMAGE_ROOT = flags.DEFINE_string("image_root", None, "folder of the images, or rules FROM=TO,… for their paths")


def main(arguments: list[str]) -> int:
    logging.set_verbosity(logging.WARNING)  # Orbax narrates every step
    offline = {
        "predictions": score,
        "judgements": lambda files: commands.score_judgements(files, AGGREGATION.value, print),
        "audit": lambda files: commands.score_audit(files, print),
        "validate": lambda files: commands.validate(files, IMAGE_ROOT.value, print),
        "compare": lambda places: compare_runs(places, Path(OUT.value or "."), print),
    }
    given = [name for name in ("config", *offline) if flags.FLAGS[name].value]
    if len(given) != 1:
        raise UserError(f"Give one of --config, {', '.join('--' + name for name in offline)}.")
    if given == ["config"]:
        return run_model(arguments)
    document = offline[given[0]]([flags.FLAGS[given[0]].value, *arguments[1:]])
    if JSON.value:
        write_json(JSON.value, document)
    return 0


def score(files: list[str]) -> dict:
    """Scores predictions by a rule, or by a judge where one is named."""
    if JUDGE.value is None:
        return commands.score_predictions(files, RULE.value, FAMILY.value, STRIP_ECHO.value, print)
    if JUDGE.value == "rules":
        return judge.judge_by_rules(files, PER_ITEM.value, print)
    cache = CACHE.value or f"{PER_ITEM.value or JSON.value or files[0]}.cache"
    endpoint = parse_model(JUDGE.value, Path(cache), workers=WORKERS.value)
    return judge.judge_by_endpoint(files, endpoint, PER_ITEM.value, AGGREGATION.value, PRICES.value, print)


def run_model(arguments: list[str]) -> int:
    """Predicts with a model what `--out` lacks, and writes predictions, scores and page."""
    if len(arguments) > 1 or not MODEL.value or not OUT.value:
        raise UserError("--config needs --model and --out, and nothing else beside config overrides.")
    import jax

    from chestx_jax.inference.evaluate import evaluate_model

    if DISTRIBUTED.value:
        jax.distributed.initialize()
    config = to_dataclass(EvalConfig, CONFIG.value)
    return evaluate_model(replace(config, image_root=IMAGE_ROOT.value or config.image_root), MODEL.value, OUT.value)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as ctrl-C: paid replies are kept and the table printed
    cli.run(main, positional=True)
