"""`python -m chestx_jax.generate --model=hf:DIR_OR_ID --image=a.png [--image=b.dcm] --question="…"`: ask about films.

Prints the reasoning and the answer as they are sampled. --questions=FILE.jsonl --out=FILE.jsonl answers a whole file;
the same command resumes it after a kill.
"""

import json
import sys
from functools import partial

from absl import flags, logging

from chestx_jax import cli
from chestx_jax.config import SEED_LIMIT, to_dataclass
from chestx_jax.errors import UserError
from chestx_jax.inference.generate import Question, answer_file, answer_question, read_questions
from chestx_jax.inference.loaded_model import load_model
from chestx_jax.rollout.sampling import SamplingConfig
from chestx_jax.sharding import MeshConfig, make_mesh

MODEL = flags.DEFINE_string("model", None, "hf:FOLDER, hf:OWNER/NAME[@REVISION] or orbax:FOLDER")
TOKENIZER = flags.DEFINE_string("tokenizer", None, "folder or hub name, where the model has no tokenizer of its own")
IMAGE = flags.DEFINE_multi_string("image", [], "a film (PNG, JPEG, TIFF, DICOM); may be repeated")
QUESTION = flags.DEFINE_string("question", None, "the question")
QUESTIONS = flags.DEFINE_string("questions", None, "file of questions: JSON lines with question and image_path")
IMAGE_ROOT = flags.DEFINE_string("image-root", None, "folder of the file's image paths; default: the file's own")
OUT = flags.DEFINE_string("out", None, "where answers to a file of questions go")
REASONING = flags.DEFINE_bool("reasoning", True, "ask for the reasoning before the answer")
LENGTH = flags.DEFINE_integer("length", 512, "most tokens of an answer")
TEMPERATURE = flags.DEFINE_float("temperature", 0.0, "0 is greedy")
TOP_P = flags.DEFINE_float("top-p", 1.0, "share of the probability sampled from")
TOP_K = flags.DEFINE_integer("top-k", 0, "most likely tokens sampled from; 0: all")
SEED = flags.DEFINE_integer("seed", 0, "of the sampling", lower_bound=0, upper_bound=SEED_LIMIT)
BATCH = flags.DEFINE_integer("batch", 8, "questions of a file answered at a time", lower_bound=1)
IMAGE_SIZE = flags.DEFINE_integer(
    "image-size", 0, "pixels a side to resize films to; 0: as the model's settings say", lower_bound=0
)
DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "default: bfloat16, on a CPU float32")
JSON = flags.DEFINE_bool("json", False, "print the answer as one JSON object")


def main(arguments: list[str]) -> int:
    del arguments
    logging.set_verbosity(logging.WARNING)  # Orbax narrates every step
    if (QUESTION.value is None) == (QUESTIONS.value is None):
        raise UserError("Give either --question (with --image) or --questions with --out.")
    if QUESTIONS.value and not OUT.value:
        raise UserError("--questions needs --out, the file the answers go to.")
    chosen = {"temperature": TEMPERATURE.value, "top_p": TOP_P.value, "top_k": TOP_K.value, "length": LENGTH.value}
    sampling = to_dataclass(SamplingConfig, {**chosen, "group": 1}, "sampling")
    questions = read_questions(QUESTIONS.value, IMAGE_ROOT.value) if QUESTIONS.value else []
    mesh = make_mesh(MeshConfig(data=1, fsdp=1, tensor=-1))
    model = load_model(MODEL.value or "", mesh, DTYPE.value, TOKENIZER.value, IMAGE_SIZE.value)
    if QUESTIONS.value:
        added, failed = answer_file(model, questions, OUT.value or "", sampling, SEED.value, BATCH.value)
        print(f"{OUT.value}: {added} answers added, {failed} of them errors")
        return 0
    question = Question(QUESTION.value or "", tuple(IMAGE.value), REASONING.value)
    write = None if JSON.value else partial(print, end="", flush=True)
    answer = answer_question(model, question, sampling, SEED.value, write)
    if JSON.value:
        print(json.dumps(answer, ensure_ascii=False))
        return 0
    print(flush=True)
    cut = "" if answer["finished"] else ", cut off by --length"
    print(f"{answer['tokens']} tokens, {answer['tokens_per_second']:.1f} tokens/s{cut}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    flags.mark_flag_as_required("model")
    cli.run(main)
