"""A job's whole configuration as frozen dataclasses. The defaults are the paper's 7B recipe (the public release of
arXiv 2504.20930); configs/ adds the data files and what a machine needs, and writes what other presets change."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from chestx_jax.buckets import LengthsConfig, token_buckets
from chestx_jax.config import SEED_LIMIT, bounded, to_dataclass
from chestx_jax.data.augment import AugmentConfig
from chestx_jax.data.mixture import SourceConfig
from chestx_jax.errors import UserError
from chestx_jax.model.config import ModelConfig, VisionConfig
from chestx_jax.phantom.dataset import PhantomSpec
from chestx_jax.rewards.overlong import OverlongConfig
from chestx_jax.rewards.reward import RewardConfig
from chestx_jax.rollout.sampling import SamplingConfig
from chestx_jax.sharding import MeshConfig
from chestx_jax.tokens.patches import ImageSpec, check_patches, with_aspect
from chestx_jax.tokens.reading import ReadingConfig
from chestx_jax.tokens.rows import RowsConfig, row_buckets
from chestx_jax.update.advantages import AdvantageConfig
from chestx_jax.update.losses import PolicyConfig
from chestx_jax.update.optimizer import OptimizerConfig

_TAKEN = ("data", "test", "hf")  # what else is in a workdir


@dataclass(frozen=True)
class CadenceConfig:
    """How often, in steps."""

    log: int = bounded(10, min=1)
    save: int = bounded(100, min=1)
    samples: int = bounded(50, min=1)  # GRPO: sample tables
    validate: int = bounded(100, min=1)  # SFT: also saves where the loss is the lowest so far
    keep: int = bounded(2, min=1)  # newest checkpoints kept, beside the best


@dataclass(frozen=True)
class SftConfig:
    """Supervised fine-tuning. `init` says where the weights come from: "random", "orbax:DIR", "hf:DIR", or another
    SftConfig that is run first."""

    name: str = "sft"
    init: "str | SftConfig" = "hf:Qwen/Qwen2-VL-7B-Instruct"
    sources: tuple[SourceConfig, ...] = ()
    validation: SourceConfig | None = None
    validation_batches: int = bounded(8, min=1)
    augment: AugmentConfig = field(default_factory=AugmentConfig)  # of the films trained on
    rows: RowsConfig = field(default_factory=lambda: RowsConfig(image_slots=4))
    lengths: LengthsConfig = field(default_factory=LengthsConfig)
    batch: int = bounded(32, min=1)  # packed rows a step: about the paper's 128 samples of some 500 tokens
    micro_batches: int = bounded(1, min=1)
    steps: int = bounded(5000, min=1)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    z_weight: float = bounded(0.0, min=0.0)
    seed: int = bounded(0, min=0, max=SEED_LIMIT)
    cadence: CadenceConfig = field(default_factory=lambda: CadenceConfig(save=200, validate=200))
    result: Literal["last", "best"] = "last"  # what the job goes on with: the last step, or the best validation loss

    def __post_init__(self) -> None:
        if self.result == "best" and self.validation is None:
            raise UserError('result="best" needs a validation source: set validation, or result="last"')
        row_buckets(self.rows, self.lengths)
        _check_divides("batch", self.batch, "micro_batches", self.micro_batches)


@dataclass(frozen=True)
class EvaluationConfig:
    """The test after a stage: greedy completions of a file of records."""

    source: SourceConfig = field(default_factory=SourceConfig)
    rows: RowsConfig = field(default_factory=RowsConfig)
    lengths: LengthsConfig = field(default_factory=LengthsConfig)  # of prompts; the sampler's caches grow by doubling
    batch: int = bounded(64, min=1)
    length: int = bounded(2048, min=1)
    limit: int = bounded(0, min=0)  # records per task; 0: all
    rollout_tensor: int = bounded(0, min=0)  # chips that share a copy of the weights while answering; 0: as mesh.tensor
    blind: bool = False  # also train and test the first stage with films of one tone

    def __post_init__(self) -> None:
        row_buckets(self.rows, self.lengths), token_buckets(self.length, self.lengths.completions)


@dataclass(frozen=True)
class ReferenceConfig:
    """How the reference model of the KL term is kept; it is needed once a step and never learns."""

    dtype: Literal["float32", "bfloat16"] = "bfloat16"  # of the kept weights
    offload: bool = True  # its weights lie in the host's memory and come to the devices for their log-probs


@dataclass(frozen=True)
class GrpoConfig:
    """Group-relative policy optimisation from the weights that `init` gives."""

    former_fields: ClassVar[frozenset[str]] = frozenset({"rollout_parts"})

    name: str = "grpo"
    source: SourceConfig = field(default_factory=SourceConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)  # of the films trained on
    prompts: int = bounded(256, min=1)  # prompts a step, over all processes
    rows: RowsConfig = field(default_factory=RowsConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    rewards: RewardConfig = field(default_factory=RewardConfig)
    advantages: AdvantageConfig = field(default_factory=AdvantageConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    overlong: OverlongConfig = field(default_factory=OverlongConfig)
    # Most rounds of sampling a step: groups whose rewards are all equal give their places to the next prompts, until
    # there are none. 1: every group stays.
    sampling_rounds: int = bounded(1, min=1)
    mini_batches: int = bounded(1, min=1)  # parts of a batch's prompts, with an optimizer step each
    updates: int = bounded(1, min=1)  # how often a batch of completions is gone through
    micro_batches: int = bounded(1, min=1)  # parts of a mini-batch, computed one after the other, sorted by length
    lengths: LengthsConfig = field(default_factory=LengthsConfig)
    rollout_tensor: int = bounded(0, min=0)  # chips that share a copy of the weights while sampling; 0: as mesh.tensor
    rollout_slots: int = bounded(0, min=0)  # completions sampled at a time, over all devices: less memory; 0: all
    steps: int = bounded(150, min=1)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(rate=5e-7, schedule="constant", warmup=0.0, weight_decay=0.01)
    )
    seed: int = bounded(0, min=0, max=SEED_LIMIT)
    cadence: CadenceConfig = field(default_factory=lambda: CadenceConfig(log=1, save=10, samples=10))

    def __post_init__(self) -> None:
        parts = "mini_batches × micro_batches" if self.mini_batches > 1 else "micro_batches"
        _check_divides("prompts", self.prompts, parts, self.parts)
        row_buckets(self.rows, self.lengths), token_buckets(self.sampling.length, self.lengths.completions)
        if self.sampling.temperature == 0:
            raise UserError("sampling.temperature is 0, with which all completions of a prompt are alike: raise it.")
        if self.sampling.group < 2:
            raise UserError(
                f"sampling.group is {self.sampling.group}, and a completion is compared with the others of its group: "
                "set it to 2 or more."
            )
        if self.overlong.buffer > self.sampling.length:
            raise UserError(
                f"overlong.buffer is {self.overlong.buffer} tokens and sampling.length {self.sampling.length}: set the "
                "buffer to a part of the length."
            )
        if self.rewards.credit == "step" and not self.advantages.step_weight:
            raise UserError(
                "rewards.credit=step pays nothing while advantages.step_weight is 0: raise it, or set credit=sequence."
            )
        if self.rewards.credit != "step" and self.advantages.step_weight:
            raise UserError(
                f"advantages.step_weight is {self.advantages.step_weight} and no step has credit: set "
                "rewards.credit=step, or the weight to 0."
            )

    @property
    def parts(self) -> int:
        """The micro-batches of a batch."""
        return self.mini_batches * self.micro_batches

    @property
    def optimizer_steps(self) -> int:
        """Of one batch."""
        return self.mini_batches * self.updates

    @property
    def needs_old_logprobs(self) -> bool:
        """Whether the trainer computes the log-probs of the policy that sampled. With one optimizer step they are those
        of the policy that learns."""
        return self.optimizer_steps > 1 and self.policy.old_logprobs == "trainer"

    @property
    def buckets(self) -> tuple[tuple[int, ...], ...]:
        """Lengths that prompts, their image slots and completions are padded to."""
        return (*row_buckets(self.rows, self.lengths), token_buckets(self.sampling.length, self.lengths.completions))


@dataclass(frozen=True)
class JobConfig:
    """The main job: the first stage (by way of `init`), GRPO, a test after each, an export at the end."""

    # Taken from the checkpoint that the job starts from, where a configuration leaves them open.
    open_fields: ClassVar[tuple[str, ...]] = (
        *(f"model.{name}" for name in ModelConfig.of_checkpoint),
        *(f"model.vision.{item.name}" for item in fields(VisionConfig)),
        *(f"image.{name}" for name in ImageSpec.of_checkpoint),
    )

    init: str | SftConfig = field(default_factory=SftConfig)
    grpo: GrpoConfig | None = None
    evaluation: EvaluationConfig | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    image: ImageSpec = field(default_factory=lambda: ImageSpec(max_pixels=448 * 448))
    mesh: MeshConfig = field(default_factory=MeshConfig)
    tokenizer: str = "tokenizer"  # folder, relative to the data root
    data_root: str = ""  # empty: WORKDIR/data
    phantom: PhantomSpec | None = None  # drawn into the data root if it is not there yet
    vocabulary: int = bounded(0, min=0)  # size of the tokenizer trained on the text to train on, where there is none
    reading: ReadingConfig = field(default_factory=ReadingConfig)  # of films
    max_bad: float = bounded(0.01, min=0.0, max=1.0)  # share of a source's records that may be bad and are left out
    wandb: Literal["disabled", "offline", "online"] = "disabled"

    def __post_init__(self) -> None:
        check_patches(self.image, self.model.vision, "image", "model.vision")
        self._check_films_fit()
        names = [*_TAKEN, self.grpo.name if self.grpo else "grpo"]
        names += [stage.name for stage in supervised_stages(self)]
        for i, name in enumerate(names):
            if not re.fullmatch(r"[\w-]+", name) or name in names[:i]:
                raise UserError(
                    f"A stage is called {name!r}: give each stage a name of letters, digits, _ and -, other than "
                    f"{', '.join(names[:i])}."
                )

    def _check_films_fit(self) -> None:
        patches, visual = self.image.max_patches, self.image.max_patches // self.image.merge_size**2
        stages = [*supervised_stages(self), *(stage for stage in (self.grpo, self.evaluation) if stage)]
        for rows in (stage.rows for stage in stages):
            if patches > rows.patches or visual >= rows.length or rows.patches % self.image.merge_size**2:
                raise UserError(
                    f"A film has up to {patches} patches, {visual} tokens, and rows hold {rows.patches} and "
                    f"{rows.length}: lower image.max_pixels (or height and width), or raise patches (by "
                    f"{self.image.merge_size**2}) and length of the rows."
                )


def saved_job(raw: Any, where: str) -> JobConfig:
    """The job that a workdir's config.json holds. Raises UserError as `to_dataclass` does."""
    if isinstance(raw, Mapping) and "image" in raw:
        raw = {**raw, "image": with_aspect(raw["image"])}
    return to_dataclass(JobConfig, raw, where)


def supervised_stages(job: JobConfig) -> list[SftConfig]:
    """The job's supervised stages, the last first."""
    stages = []
    stage = job.init
    while isinstance(stage, SftConfig):
        stages.append(stage)
        stage = stage.init
    return stages


def _check_divides(whole: str, count: int, part: str, parts: int) -> None:
    if count % parts:
        raise UserError(f"{whole} is {count} and {part} {parts}: set {part} to a divisor of {whole}.")
