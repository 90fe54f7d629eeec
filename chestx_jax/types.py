"""Pytrees that packages pass to each other, and the legend of dimension suffixes.

Arrays carry their dimensions as a suffix, `q_BxLxHxE`:

    B batch rows or completions   N prompts            G samples per prompt (B = N·G in the RL loop)
    L tokens                      P patches            I image slots of a row
    V vocabulary                  D model width        F hidden width of an MLP
    H query heads                 K key/value heads    E head width
    S cache slots                 C concepts           T scan steps over a text's tokens
    M finding slots               U visual tokens of a row (merged patches)
    Z pixels of one patch (channels · patch²)
    Y layers                      R cache rows (R divides B)
    W features of DeepStack       X entries of the position table, each of width A

and in `rewards`: R findings of the evidence or of the targets, Q findings of the report, K selections of claims.

Every leaf may be a numpy array (on the host, in the input pipeline) or a jax array (inside `jit`).
"""

from typing import Any

from flax import struct
from jaxtyping import Bool, Float, Int, UInt8

Array = Any  # a numpy array on the host, a jax array inside `jit`


@struct.dataclass
class Images:
    """Image slots of each row, as flattened patches in the processor's order (merge blocks contiguous). Pixels travel
    as they are decoded, with what normalises them, and are normalised where they are used."""

    patches: UInt8[Array, "B I P Z"]
    positions: Int[Array, "B I P 2"]  # row and column of each patch in its image
    valid: Bool[Array, "B I P"]  # False where the slot or the rest of the bucket is empty
    mean: tuple[float, float, float] = struct.field(pytree_node=False)  # of a channel's pixels, on a scale of 0 to 1
    std: tuple[float, float, float] = struct.field(pytree_node=False)


@struct.dataclass
class Tokens:
    """Rows of token ids with their positions; a row may hold several packed samples."""

    ids: Int[Array, "B L"]
    segments: Int[Array, "B L"]  # 1, 2, … per packed sample; 0 is padding, which nothing attends to
    positions: Int[Array, "B L 3"]  # M-RoPE: temporal, height, width
    visual: Int[Array, "B L"]  # index into the row's merged visual tokens where the id is an image pad, else -1


@struct.dataclass
class Batch:
    """One supervised batch. `weights[b, l]` is the loss weight of predicting `ids[b, l]` from the ids before it."""

    tokens: Tokens
    images: Images
    weights: Float[Array, "B L"]


@struct.dataclass
class Completion:
    """Sampled tokens, padding after `length`; the stop token, where sampled, is counted in `length`."""

    ids: Int[Array, "B L"]
    length: Int[Array, " B"]
    prompt: Int[Array, " B"]  # row of the RewardTargets


@struct.dataclass
class StepCredit:
    """What the steps of B completions are worth, by token."""

    value: Float[Array, "B L"]  # the step's credit on each of its tokens; 0 elsewhere
    credited: Bool[Array, "B L"]  # the tokens of steps with credit
    ends: Bool[Array, "B L"]  # the last token of each such step


@struct.dataclass
class Scores:
    """What a reward returns: one number per completion, credit per step, and the terms it is a mean of."""

    sequence: Float[Array, " B"]
    steps: StepCredit
    terms: dict[str, Float[Array, " B"]]
    masks: dict[str, Bool[Array, " B"]]  # False where a term does not apply (no report, other task)


@struct.dataclass
class Prompts:
    """N prompts of a rollout or an evaluation batch: right-padded rows, one sample a row."""

    tokens: Tokens
    images: Images
    length: Int[Array, " N"]
    index: Int[Array, " N"]  # the prompt's position in its stream, to which draws belong; -1 for a filler row


@struct.dataclass
class Rollout:
    """Completions of a group-sampled batch; completion b belongs to prompt b // G."""

    ids: Int[Array, "B L"]
    length: Int[Array, " B"]
    logprobs: Float[Array, "B L"]  # with temperature, before top-k and top-p; 0 after the end
    finished: Bool[Array, " B"]  # False: cut off by the length limit
