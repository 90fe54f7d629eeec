"""A GRPO iteration against TRL's in torch: same decoder, machine, shapes and lengths, in one run.

`python -m tests.benchmarks.against_trl [ROUNDS]`, with the `parity` extra. 8 prompts of 64 tokens × 8
completions of text alone, a reference model with a KL term, a decoder of 6 × 256 with 8 query and 4 key/value heads and
4,096 ids, fp32, one update a batch. First every completion has 64 tokens; then they have lengths that are spread as
those of the released model's answers are (8 to 62 tokens), forced on both sides. The two take turns, an iteration
each; times are medians, ratios those of neighbours. TRL's reward costs nothing; ours reads every completion for
findings. Ours also runs its vision tower, on an empty film.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np

from chestx_jax import lexicon, sharding
from chestx_jax.findings import reward_targets
from chestx_jax.model.config import ModelConfig, VisionConfig
from chestx_jax.programs.generation import sampler
from chestx_jax.programs.job import programs
from chestx_jax.programs.state import init_params, init_state
from chestx_jax.recipes import GrpoConfig, JobConfig, ReferenceConfig
from chestx_jax.rollout.loop import sample_rollout
from chestx_jax.rollout.sampling import SamplingConfig, Vocabulary
from chestx_jax.sharding import MeshConfig, make_mesh
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.rows import RowsConfig, prompts
from chestx_jax.training.policy_update import PolicyUpdate
from chestx_jax.update.micro_batches import Experience
from chestx_jax.update.optimizer import OptimizerConfig
from tests.benchmarks.lengths import completion_lengths
from tests.benchmarks.machine import instruction_sets
from tests.helpers.forced_lengths import forced_lengths
from tests.helpers.tiny_models import EOS, FP32, PAD, example

MODEL = ModelConfig(
    vocab_size=4096, layers=6, width=256, heads=8, kv_heads=4, hidden=768, mrope_section=(4, 6, 6), tied=True,
    vision=VisionConfig(layers=4, width=128, heads=4, hidden=512), compute=replace(FP32, unroll=0),
)  # fmt: skip
PROMPTS, GROUP, LENGTH = 8, 8, 64
LENGTHS = {
    "one length": np.full(PROMPTS * GROUP, LENGTH, np.int32),
    "mixed lengths": completion_lengths(PROMPTS * GROUP) // 2,
}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    print(f"{os.cpu_count()} cores ({instruction_sets()}), load average {os.getloadavg()[0]:.1f}, {rounds} rounds")
    print("| completions | tokens | TRL, s | ours, s | ours ÷ TRL: median (least to most) |\n|---|---|---|---|---|")
    for name, lengths_B in LENGTHS.items():
        iterate = ours(lengths_B)
        times = np.array(turns_with_trl(lengths_B, iterate, rounds))
        theirs, own, ratio = times[:, 0], times[:, 1], times[:, 1] / times[:, 0]
        print(
            f"| {name} | {lengths_B.sum()} | {statistics.median(theirs):.2f} | {statistics.median(own):.2f} | "
            f"{statistics.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f}) |",
            flush=True,
        )


def ours(lengths_B: np.ndarray) -> Callable[[], None]:
    """One iteration of the stage's own programs: sampling, rewards, log-probs of the reference, update."""
    stage = GrpoConfig(
        prompts=PROMPTS,
        rows=RowsConfig(LENGTH, 1, 4),
        sampling=SamplingConfig(length=LENGTH, group=GROUP),
        reference=ReferenceConfig("float32", offload=False),
        optimizer=OptimizerConfig(rate=1e-6, schedule="constant", warmup=0.0),
    )
    image, mesh = ImageSpec(min_pixels=784, max_pixels=784), make_mesh(MeshConfig())
    job = JobConfig(init="random", grpo=stage, model=MODEL, image=image)
    by_name = programs(job, mesh)
    functions = {name: program.jit() for name, program in by_name.items()}
    everywhere = sharding.replicated(mesh)
    allowed = np.ones(MODEL.vocab_size, bool)
    allowed[[PAD, EOS]] = False
    vocabulary = sharding.put(Vocabulary(allowed=allowed, stop_ids=np.array([PAD, EOS], np.int32)), everywhere)
    policy = PolicyUpdate(job, stage, mesh, by_name, functions, vocabulary)
    known, token_bytes = lexicon.load(), [bytes([i]) for i in range(256)] + [b""] * (MODEL.vocab_size - 256)
    tables = sharding.put(lexicon.compile_tables(known, token_bytes), everywhere)
    targets = reward_targets(
        known, [("No edema.",)] * PROMPTS, [()] * PROMPTS, ["A"] * PROMPTS, ["binary"] * PROMPTS, stage.rewards.slots
    )
    targets = sharding.put(targets, by_name["grpo/score"].shardings["targets"])
    sampling = {name: functions[f"grpo/{name}"] for name in ("weights", "prefill", "decode")}
    draw = sampler(MODEL, stage.sampling, mesh, sampling)
    batch = prompts([example([], [LENGTH], n) for n in range(PROMPTS)], stage.rows, range(PROMPTS), ImageSpec())
    reference = init_params(job, 0, mesh).jit()()
    state = init_state(job, stage, mesh).jit()(jax.tree.map(lambda x: x + 0, reference))

    def iterate() -> None:
        nonlocal state
        placed, slots = policy.put_prompts(batch)
        with forced_lengths(lengths_B):
            split = by_name["grpo/score"].shardings["rollout"]
            rollout, _ = sample_rollout(draw, state.params, placed, vocabulary, 0, split)
        scored = functions["grpo/score"](tables, targets, rollout)
        experience = Experience(placed, rollout, scored.advantages, scored.loss_mask)
        parts = policy.split(experience, policy.lengths(experience, slots))
        state, metrics = policy.update(state, parts, policy.logprobs(reference, None, parts))
        jax.block_until_ready((state, metrics))

    iterate()
    return iterate


def turns_with_trl(lengths_B: np.ndarray, iterate: Callable[[], None], rounds: int) -> list[tuple[float, float]]:
    """Seconds of TRL's iteration and of `iterate`, in turn, after one of each that is not counted."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = {f"w{i}": i for i in range(MODEL.vocab_size) if i not in (PAD, EOS)} | {"<pad>": PAD, "<end>": EOS}
    words = Tokenizer(models.WordLevel(names, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<end>", pad_token="<pad>", padding_side="left"
    )
    config = transformers.Qwen2Config(
        vocab_size=MODEL.vocab_size, hidden_size=MODEL.width, intermediate_size=MODEL.hidden,
        num_hidden_layers=MODEL.layers, num_attention_heads=MODEL.heads, num_key_value_heads=MODEL.kv_heads,
        tie_word_embeddings=True, eos_token_id=EOS, pad_token_id=PAD,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        transformers.Qwen2ForCausalLM(config).save_pretrained(folder)
        return _turns(folder, tokenizer, lengths_B, iterate, rounds)


def _turns(folder, tokenizer, lengths_B, iterate, rounds):
    import torch
    import transformers
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    model = transformers.Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)  # TRL reads its reference there
    lengths = torch.from_numpy(lengths_B)

    def end_at_lengths(ids, scores):
        ends = (ids.shape[1] - LENGTH + 1 >= lengths)[:, None]
        only_end = torch.full_like(scores, -torch.inf)
        only_end[:, EOS] = 0.0
        scores = scores.clone()
        scores[:, EOS] = -torch.inf
        return torch.where(ends, only_end, scores)

    generate = model.generate
    model.generate = lambda *args, **options: generate(*args, **options, logits_processor=[end_at_lengths])
    times: list[tuple[float, float]] = []

    class InTurn(transformers.TrainerCallback):
        def on_step_begin(self, *_, **__):
            self.start = time.perf_counter()

        def on_step_end(self, *_, **__):
            middle = time.perf_counter()
            iterate()
            times.append((middle - self.start, time.perf_counter() - middle))
            print(f"TRL {times[-1][0]:.2f} s, ours {times[-1][1]:.2f} s", file=sys.stderr, flush=True)

    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{i}" for i in rng.integers(10, MODEL.vocab_size, LENGTH)) for _ in range(PROMPTS)]
    settings = GRPOConfig(
        output_dir=folder, per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP,
        max_completion_length=LENGTH, max_steps=rounds + 1, beta=0.001, learning_rate=1e-6, bf16=False,
        gradient_checkpointing=False, use_cpu=True, report_to=[], save_strategy="no", logging_strategy="no",
        disable_tqdm=True, temperature=1.0, seed=0,
    )  # fmt: skip
    seen: list[int] = []

    def reward(completion_ids, **_):
        seen.extend(map(len, completion_ids))
        return rng.normal(size=len(completion_ids)).tolist()

    data = Dataset.from_dict({"prompt": texts})
    trainer = GRPOTrainer(model, reward, settings, data, processing_class=tokenizer, callbacks=[InTurn()])
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    assert sum(seen) == (rounds + 1) * lengths_B.sum(), (sum(seen), lengths_B.sum())
    return times[1:]


if __name__ == "__main__":
    main()
