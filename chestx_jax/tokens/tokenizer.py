"""Tokenizers: load a Hugging Face folder, train a small one, and see the bytes behind every id."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from chestx_jax import files
from chestx_jax.errors import UserError

# Qwen2-VL's special tokens in its order; a trained tokenizer appends them after the learned vocabulary.
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

TAGS = ("<think>", "</think>", "<answer>", "</answer>")  # of the answer form

# Qwen2's split: contractions, letter runs with one leading mark, single digits, punctuation, line ends, spaces.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Renders text and image turns as Qwen2-VL's own template does.
_CHAT_TEMPLATE = (
    "{%- if messages and messages[0]['role'] != 'system' -%}"
    "{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}"
    "{%- endif -%}"
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- elif part['type'] == 'text' -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the special tokens the program itself writes or looks for."""

    image_pad: int
    vision_start: int
    vision_end: int
    im_start: int
    im_end: int
    pad: int  # <|endoftext|>


def load_tokenizer(folder: str | Path) -> Any:
    """The transformers tokenizer of a folder with `tokenizer.json` or with `vocab.json` and `merges.txt`.

    Raises UserError for a folder without tokenizer files, with unreadable ones, or without Qwen's special tokens.
    """
    folder = Path(folder)
    has_files = (folder / "tokenizer.json").is_file() or all(
        (folder / name).is_file() for name in ("vocab.json", "merges.txt")
    )
    if not has_files:
        raise UserError(f"{folder} holds no tokenizer: put tokenizer.json, or vocab.json and merges.txt, into it.")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it would advise torch, which nothing here uses
    from transformers import AutoTokenizer  # seconds to import

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        tokenizer("A film.", add_special_tokens=False, split_special_tokens=True)  # some settings fail at first use
    except Exception as error:  # the readers below raise bare Exception on malformed files
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"The tokenizer files in {folder} cannot be read ({reason}): fetch them again.") from error
    separate = folder / "chat_template.json"  # transformers reads it with a model's processor alone
    if not tokenizer.chat_template and separate.is_file():
        template = files.read_json_object(separate, "fetch the model's chat_template.json").get("chat_template")
        tokenizer.chat_template = template if isinstance(template, str) else None
    special_ids(tokenizer)
    return tokenizer


def special_ids(tokenizer: Any) -> SpecialIds:
    """Ids of the special tokens; raises UserError listing those the tokenizer lacks."""
    names = {
        "image_pad": "<|image_pad|>",
        "vision_start": "<|vision_start|>",
        "vision_end": "<|vision_end|>",
        "im_start": "<|im_start|>",
        "im_end": "<|im_end|>",
        "pad": "<|endoftext|>",
    }
    vocabulary = tokenizer.get_vocab()
    missing = [name for name in names.values() if name not in vocabulary]
    if missing:
        raise UserError(
            f"The tokenizer {tokenizer.name_or_path or ''} lacks {', '.join(missing)}: use a Qwen2-VL tokenizer."
        )
    return SpecialIds(**{field: vocabulary[name] for field, name in names.items()})


def check_fits(tokenizer: Any, vocabulary_size: int) -> None:
    """Raise UserError where the tokenizer has ids the model's embedding does not."""
    largest = max(tokenizer.get_vocab().values())
    if largest >= vocabulary_size:
        raise UserError(
            f"The tokenizer {tokenizer.name_or_path or ''} has ids up to {largest}, the model only {vocabulary_size}: "
            "use the tokenizer the model came with."
        )


@lru_cache(maxsize=8)
def special_tags(tokenizer: Any) -> dict[str, tuple[int, Any]]:
    """Id and token of each tag of the answer form that the tokenizer has as a special token, by the token's text."""
    special = _all_special(tokenizer)
    added = ((str(token), (id, token)) for id, token in tokenizer.added_tokens_decoder.items() if id in special)
    return {text: tag for text, tag in added if text.strip().lower() in TAGS}


@lru_cache(maxsize=8)
def special_token_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of special tokens that are no text: all but `special_tags`."""
    return _all_special(tokenizer) - {id for id, _ in special_tags(tokenizer).values()}


def _all_special(tokenizer: Any) -> frozenset[int]:
    marked = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(marked | set(tokenizer.all_special_ids))


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Ids of plain text; special tokens in it are read as the characters they are, but for `special_tags`."""
    tags = special_tags(tokenizer)
    parts = re.split(f"({'|'.join(map(re.escape, tags))})", text) if tags else [text]
    ids: list[int] = []
    for i, part in enumerate(parts):
        if i % 2:
            ids.append(tags[part][0])
            continue
        if i > 0 and tags[parts[i - 1]][1].rstrip:
            part = part.lstrip()
        if i + 1 < len(parts) and tags[parts[i + 1]][1].lstrip:
            part = part.rstrip()
        ids += tokenizer(part, add_special_tokens=False, split_special_tokens=True)["input_ids"] if part else []
    return ids


def decode_text(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of ids, without the special tokens that are no text."""
    special = special_token_ids(tokenizer)
    return tokenizer.decode([id for id in ids if id not in special], skip_special_tokens=False)


def token_bytes(tokenizer: Any) -> list[bytes]:
    """The bytes each id stands for, by id; b"" for special tokens (tags are text) and for ids no token has.

    Works for any Hugging Face byte-level BPE: its vocabulary spells bytes as printable characters (GPT-2's map).
    Raises UserError where a token is spelled otherwise.
    """
    byte_of = _byte_of_character()
    added = {id: str(token) for id, token in tokenizer.added_tokens_decoder.items()}
    special = special_token_ids(tokenizer)
    vocabulary = tokenizer.get_vocab()
    table = [b""] * (max(vocabulary.values()) + 1)
    for token, id in vocabulary.items():
        if id in special:
            continue
        if id in added:
            table[id] = added[id].encode()
        else:
            try:
                table[id] = bytes(byte_of[character] for character in token)
            except KeyError as error:
                raise UserError(
                    f"Token {id} ({token!r}) of the tokenizer {tokenizer.name_or_path or ''} is not spelled in bytes: "
                    "use a byte-level BPE such as Qwen2's."
                ) from error
    return table


def train_tokenizer(texts: Iterable[str], folder: str | Path, vocabulary_size: int) -> None:
    """Train a byte-level BPE with Qwen2's split and special tokens, and save it as a Hugging Face tokenizer folder.

    `vocabulary_size` counts the 256 bytes and the special tokens (the last ids); texts too few to learn that many
    merges give a smaller vocabulary. The same texts give the same bytes on disk.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    smallest = 256 + len(SPECIAL_TOKENS)
    if vocabulary_size < smallest:
        raise UserError(f"vocabulary_size is {vocabulary_size}: a byte-level vocabulary needs at least {smallest}.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS])
    files.write_text(Path(folder, "tokenizer.json"), tokenizer.to_str(pretty=True))
    settings = {
        "add_prefix_space": False,
        "additional_special_tokens": [name for name in SPECIAL_TOKENS if name != "<|endoftext|>"],
        "bos_token": None,
        "chat_template": _CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    files.write_json(Path(folder, "tokenizer_config.json"), settings)


def _byte_of_character() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable Latin-1 bytes stand for themselves, the others follow from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
