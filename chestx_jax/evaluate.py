"""`python -m chestx_jax.evaluate`: runs a model on records, or scores predictions and judgements that exist already.

--config=configs/eval.py --model=orbax:DIR|hf:DIR|openai:MODEL@URL --out=DIR
--predictions FILE… --family ours|qwen|chexagent|auto --rule official|strict --json OUT
--predictions FILE --judge rules --json OUT --per_item ITEMS.jsonl
--judgements FILE… --aggregation official|clean --json OUT
--audit FILE… --json OUT      --validate FILE… --json OUT
"""

from absl import flags

from chestx_jax import door
from chestx_jax.errors import UserError
from chestx_jax.eval import commands
from chestx_jax.eval.judgements import AGGREGATIONS
from chestx_jax.eval.official import FAMILIES
from chestx_jax.eval.predicted import RULES

PREDICTIONS = flags.DEFINE_string("predictions", None, "file(s) of predictions to score")
JUDGEMENTS = flags.DEFINE_string("judgements", None, "file(s) of judged records to aggregate")
AUDIT = flags.DEFINE_string("audit", None, "file(s) to try to answer without the film")
VALIDATE = flags.DEFINE_string("validate", None, "file(s) of records to check")
FAMILY = flags.DEFINE_enum("family", "auto", FAMILIES, "whose official rule; auto reads it off the path")
RULE = flags.DEFINE_enum("rule", "strict", RULES, "how an answer is read")
STRIP_ECHO = flags.DEFINE_bool("strip-echo", False, "strip the chat echo before the official rule, too")
AGGREGATION = flags.DEFINE_enum("aggregation", "clean", AGGREGATIONS, "how judgements are summed up")
JUDGE = flags.DEFINE_enum("judge", None, ["rules"], "score the reasoning of predictions, offline by the lexicon")
PER_ITEM = flags.DEFINE_string("per_item", None, "JSON lines with each item's findings and verdicts")
JSON = flags.DEFINE_string("json", None, "where the scores go")
IMAGE_ROOT = flags.DEFINE_string("image_root", None, "folder that image paths are resolved against")


def main(arguments: list[str]) -> int:
    given = [flag for flag in (PREDICTIONS, JUDGEMENTS, AUDIT, VALIDATE) if flag.value]
    if len(given) != 1:
        raise UserError(
            "give one of --predictions, --judgements, --audit, --validate, or --config with --model and --out"
        )
    files = [given[0].value, *arguments[1:]]
    if JUDGE.value:
        document = commands.judge_predictions(files, PER_ITEM.value, print)
    elif given[0] is PREDICTIONS:
        document = commands.score_predictions(files, RULE.value, FAMILY.value, STRIP_ECHO.value, print)
    elif given[0] is JUDGEMENTS:
        document = commands.score_judgements(files, AGGREGATION.value, print)
    elif given[0] is AUDIT:
        document = commands.score_audit(files, print)
    else:
        document = commands.validate(files, IMAGE_ROOT.value, print)
    if JSON.value:
        commands.write_json(JSON.value, document)
    return 0


if __name__ == "__main__":
    door.run(main, positional=True)
