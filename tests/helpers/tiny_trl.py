"""A text model for TRL that needs no download: a tiny random Qwen2 and a tokenizer of the 256 bytes."""

from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers


def tiny_model(transformers: Any) -> tuple[Any, Any]:
    """(model, tokenizer): one layer of width 16, a token a byte, `<|end|>` for padding and the end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_alone = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(alphabet)}, merges=[]))
    bytes_alone.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_alone.decoder = decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bytes_alone, eos_token="<|end|>", pad_token="<|end|>"
    )
    config = transformers.Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return transformers.Qwen2ForCausalLM(config), tokenizer
