"""The chat form of a question and of its target, as token ids.

Qwen's template puts the images first in the user turn and ends at the assistant's; the two released target forms
(reasoning and answer-only) are the paper's. Ids equal `apply_chat_template` of the Hugging Face processor, save that
a special token spelled out inside a question stays plain text: user text cannot forge placeholders or turns.
"""

from collections.abc import Sequence
from typing import Any

from chestx_jax.tokens.tokenizer import SpecialIds, encode_text

SYSTEM = "You are a helpful assistant."
INSTRUCTION = (
    "Let's think step by step. Enclose the reasoning within <think></think> and the answer within <answer></answer>."
)


def prompt_ids(
    tokenizer: Any, special: SpecialIds, question: str, visual_counts: Sequence[int], reasoning: bool
) -> list[int]:
    """Ids of system turn, user turn and the opening of the assistant's, ready for the target or for sampling.

    `visual_counts[i]` image pads stand for image i (its patches / merge²); `reasoning` appends the instruction.
    """
    text = f"{question}\n{INSTRUCTION}" if reasoning else question
    ids = [special.im_start, *encode_text(tokenizer, f"system\n{SYSTEM}"), special.im_end]
    ids += [*encode_text(tokenizer, "\n"), special.im_start]
    if visual_counts:
        ids += encode_text(tokenizer, "user\n")
        for count in visual_counts:
            ids += [special.vision_start, *[special.image_pad] * count, special.vision_end]
        ids += encode_text(tokenizer, text)
    else:  # without an image between them, header and question are one stretch of text to the tokenizer
        ids += encode_text(tokenizer, f"user\n{text}")
    ids += [special.im_end, *encode_text(tokenizer, "\n")]
    return [*ids, special.im_start, *encode_text(tokenizer, "assistant\n")]


def target_ids(tokenizer: Any, special: SpecialIds, text: str) -> list[int]:
    """Ids the model learns to emit for `text`: the text and the end token."""
    return [*encode_text(tokenizer, text), special.im_end]


def target_text(steps: Sequence[str], answer: str, reasoning: bool) -> str:
    """`<think> step step … </think><answer> A </answer>` for a reasoning sample, the bare answer otherwise."""
    if not reasoning:
        return answer
    return f"<think> {' '.join(step.strip() for step in steps)} </think><answer> {answer} </answer>"
