"""What all stages of a job share: mesh, programs, tokenizer, and the input pipelines that use them."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np

from chestx_jax import lexicon, multihost, sharding
from chestx_jax.config import to_dict
from chestx_jax.data import pipeline
from chestx_jax.data.mixture import SourceConfig, read_source
from chestx_jax.data.prompt_stream import PromptStream
from chestx_jax.data.schema import Sample
from chestx_jax.errors import UserError
from chestx_jax.findings import RewardTargets
from chestx_jax.inference.loaded_model import LoadedModel, completion_vocabulary
from chestx_jax.inference.places import find_checkpoint, load_params
from chestx_jax.lexicon.token_tables import Tables
from chestx_jax.programs.generation import sampler
from chestx_jax.programs.job import programs
from chestx_jax.programs.program import Program
from chestx_jax.programs.state import all_finite, init_params
from chestx_jax.recipes import GrpoConfig, JobConfig, SftConfig, supervised_stages
from chestx_jax.rewards import priors
from chestx_jax.rollout.loop import Sampler
from chestx_jax.rollout.sampling import SamplingConfig, Vocabulary
from chestx_jax.sharding import make_mesh
from chestx_jax.tokens.chat import chat_form
from chestx_jax.tokens.reading import film_cache
from chestx_jax.tokens.tokenizer import SpecialIds, decode_text, load_tokenizer, special_ids, token_bytes
from chestx_jax.training.reward_data import count_priors, targets_with_stakes
from chestx_jax.training.speed import peak_flops
from chestx_jax.types import Batch


@dataclass(frozen=True)
class RunContext:
    """A job bound to the devices, tokenizer and data at hand."""

    job: JobConfig
    workdir: Path
    data_root: Path
    mesh: Any
    programs: dict[str, Program]
    functions: dict[str, Any]  # the programs, jitted
    tokenizer: Any
    special: SpecialIds
    vocabulary: Vocabulary  # on the devices
    lexicon: Any
    profile: int = 0  # the step of each stage that is traced; 0: none

    @property
    def writer_options(self) -> dict[str, Any]:
        """Keyword arguments of `metrics.writer`."""
        options = {"wandb_mode": self.job.wandb, "config": to_dict(self.job), "primary": multihost.is_primary()}
        return options | {"peak_flops": peak_flops()}

    def training_batches(self, stage: SftConfig, blind: bool) -> grain.DatasetIterator:
        """The stage's endless packed batches: this process's rows of them."""
        return self._packed_batches(
            stage, stage.sources, stage.seed, self._encoder(blind)._replace(augment=stage.augment)
        )

    def validation_batches(self, stage: SftConfig, blind: bool) -> list[Batch]:
        """The first batches of the validation source, read once: this process's rows of them, in the host's memory."""
        if stage.validation is None:
            return []
        batches = self._packed_batches(stage, (stage.validation,), 0, self._encoder(blind))
        return list(itertools.islice(batches, stage.validation_batches))

    def validation_loss(self, stage: SftConfig, params, batches: Sequence[Batch]) -> float:
        """Loss in nats per target token over `batches`."""
        name = f"{stage.name}/validate"
        sums = []
        for batch in batches:
            on_devices = sharding.put(batch, self.programs[name].shardings["batch"])
            sums.append(self.functions[name](params, on_devices, self.vocabulary))
        loss, tokens = np.sum(jax.device_get(sums), axis=0)
        return float(loss / tokens)

    def _packed_batches(
        self, stage: SftConfig, sources: Sequence[SourceConfig], seed: int, encoder: pipeline.Encoder
    ) -> grain.DatasetIterator:
        return pipeline.supervised_batches(
            [read_source(source, self.data_root, self.job.max_bad) for source in sources],
            encoder,
            stage.batch,
            stage.rows,
            stage.lengths,
            seed,
            self.job.max_bad,
            self.own_rows(stage.batch),
            self.job.reading.threads,
        )

    def prompt_batches(self, stage: GrpoConfig) -> PromptStream:
        """The stage's endless batches of prompts with their reward targets: this process's rows of them, or all where
        any row may need another prompt."""
        source = read_source(stage.source, self.data_root, self.job.max_bad)
        whole = stage.sampling_rounds > 1
        batches = pipeline.prompt_batches(
            source,
            self._encoder(False)._replace(augment=stage.augment),
            stage.prompts,
            stage.rows,
            stage.lengths,
            stage.seed,
            self.job.max_bad,
            self._reward_targets(stage, source.samples),
            None if whole else self.own_rows(stage.prompts),
            self.job.reading.threads,
        )
        return PromptStream(batches, cut=whole or jax.process_count() == 1)

    def _reward_targets(
        self, stage: GrpoConfig, samples: Sequence[Sample]
    ) -> Callable[[Sequence[Sample]], RewardTargets]:
        """What makes the reward targets of samples: priors come from the configured table, or are counted on the
        stage's own records and left in its folder, from where a run that goes on takes them."""
        config, folder = stage.rewards, self.workdir / stage.name
        file = self.data_root / config.priors if config.priors else folder / "priors.json"
        if not config.priors:
            if multihost.is_primary() and not file.exists():
                priors.save(file, count_priors(config.value, self.lexicon, samples), self.lexicon)
            multihost.barrier("priors")
        return partial(targets_with_stakes, self.lexicon, priors.load(file, self.lexicon), config)

    def loaded_model(self, params: Any, blind: bool = False) -> LoadedModel:
        """Parameters for decoding of the job's model, ready to answer."""
        return LoadedModel(self.job.model, params, self.mesh, self._encoder(blind), self.vocabulary)

    def load_params(self, place: str) -> Any:
        """Parameters from "random" (by the seed of the stage trained first), "orbax:DIR" or "hf:DIR", on the mesh.
        Raises UserError for weights that are not finite, from which nothing is learnt."""
        if place == "random":
            first = supervised_stages(self.job)[-1:]
            seed = first[0].seed if first else 0
            return init_params(self.job, seed, self.mesh).jit()()
        advice = f"config.init is {place!r}: give random, orbax:DIR, hf:DIR, or the configuration of a first stage"
        params = load_params(find_checkpoint(place, advice), self.job.model, self.mesh)
        if not jax.device_get(all_finite(self.job, self.mesh).jit()(params)):
            raise UserError(f"{place} holds weights that are not finite numbers: start from another checkpoint.")
        return params

    def sampler(self, stage: str, sampling: SamplingConfig, slots: int, tensor: int = 0) -> Sampler:
        """The sampler of a stage's programs; `slots` completions at a time."""
        functions = {name: self.functions[f"{stage}/{name}"] for name in ("weights", "prefill", "decode")}
        return sampler(self.job.model, sampling, self.mesh, functions, slots, tensor)

    def reward_tables(self) -> Tables:
        """The lexicon's automaton over the tokens of this vocabulary, on every device."""
        known = token_bytes(self.tokenizer)
        padded = known + [b""] * (self.job.model.vocab_size - len(known))
        tables = lexicon.compile_tables(self.lexicon, padded, chat_form(self.tokenizer).opening)
        return sharding.put(tables, sharding.replicated(self.mesh))

    def decode(self, ids_BxL: np.ndarray, length_B: np.ndarray) -> list[str]:
        """Completions as text, without special tokens, with what the prompt has opened of them."""
        opening, rows = chat_form(self.tokenizer).opening, zip(ids_BxL.tolist(), length_B.tolist(), strict=True)
        return [opening + decode_text(self.tokenizer, ids[:length]) for ids, length in rows]

    def samples(self, source: SourceConfig) -> tuple[Sample, ...]:
        """The records of a source that can be used."""
        return read_source(source, self.data_root, self.job.max_bad).samples

    def _encoder(self, blind: bool) -> pipeline.Encoder:
        cache = film_cache(self.job.reading)
        return pipeline.Encoder(self.tokenizer, self.special, self.job.image, blind, cache=cache)

    def own_rows(self, count: int) -> list[int]:
        """The rows of a batch of `count` that this process puts on its devices."""
        per_row = sharding.batch_shardings(self.mesh, jax.ShapeDtypeStruct((count,), jnp.int32))
        return multihost.local_row_indices(per_row, count)


def make_context(job: JobConfig, workdir: Path, profile: int = 0) -> RunContext:
    """Binds a job to the devices and the tokenizer at hand.

    Raises UserError where the tokenizer has more tokens than the model's vocabulary, or the mesh does not fit.
    """
    data_root = Path(job.data_root) if job.data_root else workdir / "data"
    mesh = make_mesh(job.mesh)
    tokenizer = load_tokenizer(data_root / job.tokenizer)
    special, size = special_ids(tokenizer), len(tokenizer)
    if size > job.model.vocab_size:
        raise UserError(
            f"the tokenizer in {data_root / job.tokenizer} has {size} tokens and the model {job.model.vocab_size}: "
            "set config.model.vocab_size to at least that"
        )
    by_name = programs(job, mesh)
    return RunContext(
        job=job,
        workdir=workdir,
        data_root=data_root,
        mesh=mesh,
        programs=by_name,
        functions={name: program.jit() for name, program in by_name.items()},
        tokenizer=tokenizer,
        special=special,
        vocabulary=completion_vocabulary(tokenizer, special, job.model.vocab_size, mesh),
        lexicon=lexicon.load(),
        profile=profile,
    )
