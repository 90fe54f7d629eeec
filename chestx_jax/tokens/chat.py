"""The chat form of a question and of its target, as token ids.

Qwen's templates put the images first in the user turn and end at the assistant's; whether a system turn precedes them,
and whether the assistant's turn opens with a thought, is read from the tokenizer's own template. The two released
target forms (reasoning and answer-only) are the paper's. Ids equal `apply_chat_template` of the Hugging Face processor,
save that a special token spelled out inside a question stays plain text: user text cannot forge placeholders or turns.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from chestx_jax.errors import UserError
from chestx_jax.tokens.tokenizer import SpecialIds, encode_text

SYSTEM = "You are a helpful assistant."
INSTRUCTION = (
    "Let's think step by step. Enclose the reasoning within <think></think> and the answer within <answer></answer>."
)


_RENDERED = re.compile(
    r"(?:<\|im_start\|>system\n(?P<system>.*?)<\|im_end\|>\n)?"
    r"<\|im_start\|>user\n<question><\|im_end\|>\n"
    r"<\|im_start\|>assistant\n(?P<opening>(?:<think>\s*)?)",
    re.DOTALL,
)


@dataclass(frozen=True)
class ChatForm:
    """What a model's chat template puts around a question."""

    system: str | None = SYSTEM  # text of the system turn; None: there is none
    opening: str = ""  # beginning of the assistant's turn: "<think>\n" where the model always thinks


@lru_cache(maxsize=8)
def chat_form(tokenizer: Any) -> ChatForm:
    """The chat form of a tokenizer's template; Qwen2-VL's for a tokenizer without one.

    Raises UserError for a template that cannot be rendered or is of another form.
    """
    if not tokenizer.chat_template:
        return ChatForm()
    messages = [{"role": "user", "content": [{"type": "text", "text": "<question>"}]}]
    try:
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except ImportError:  # no fault of the template
        raise
    except Exception as error:  # whatever a template raises
        rendered = f"an error: {error}"
    match = _RENDERED.fullmatch(rendered)
    if match is None:
        raise UserError(
            f"The chat template of the tokenizer {tokenizer.name_or_path or ''} gives {rendered[:200]!r}, which is not "
            "the form of Qwen's models: use the tokenizer and the template the model came with."
        )
    return ChatForm(match["system"], match["opening"])


def prompt_ids(
    tokenizer: Any, special: SpecialIds, question: str, visual_counts: Sequence[int], reasoning: bool
) -> list[int]:
    """Ids of system turn, user turn and the opening of the assistant's, ready for the target or for sampling.

    `visual_counts[i]` image pads stand for image i (its patches / merge²). `reasoning` appends the instruction, and
    opens the thought where the chat form does; an answer without reasoning has none to open.
    """
    form, newline = chat_form(tokenizer), encode_text(tokenizer, "\n")
    text = f"{question}\n{INSTRUCTION}" if reasoning else question
    ids: list[int] = []
    if form.system is not None:
        ids += [special.im_start, *encode_text(tokenizer, f"system\n{form.system}"), special.im_end, *newline]
    ids += [special.im_start]
    if visual_counts:
        ids += encode_text(tokenizer, "user\n")
        for count in visual_counts:
            ids += [special.vision_start, *[special.image_pad] * count, special.vision_end]
        ids += encode_text(tokenizer, text)
    else:  # without an image between them, header and question are one stretch of text to the tokenizer
        ids += encode_text(tokenizer, f"user\n{text}")
    opening = form.opening if reasoning else ""
    return [*ids, special.im_end, *newline, special.im_start, *encode_text(tokenizer, f"assistant\n{opening}")]


def target_ids(tokenizer: Any, special: SpecialIds, text: str, reasoning: bool = True) -> list[int]:
    """Ids the model learns to emit for `text`: the text, less what a prompt with `reasoning` has opened of it, and the
    end token."""
    if reasoning and chat_form(tokenizer).opening:
        text = text.removeprefix("<think>").lstrip()
    return [*encode_text(tokenizer, text), special.im_end]


def opened_text(tokenizer: Any, prompt: Sequence[int]) -> str:
    """The beginning of the completion's text that stands at the end of a prompt already; empty in most chat forms."""
    opening = chat_form(tokenizer).opening
    end = encode_text(tokenizer, f"assistant\n{opening}")
    return opening if opening and list(prompt[-len(end) :]) == end else ""


def target_text(steps: Sequence[str], answer: str, reasoning: bool) -> str:
    """`<think> step step … </think><answer> A </answer>` for a reasoning sample, the bare answer otherwise."""
    if not reasoning:
        return answer
    return f"<think> {' '.join(step.strip() for step in steps)} </think><answer> {answer} </answer>"
