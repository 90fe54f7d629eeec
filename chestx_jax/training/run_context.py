"""What all stages of a job share: mesh, programs, tokenizer, the pipelines bound to them."""

from dataclasses import dataclass
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
from chestx_jax.data.schema import Sample
from chestx_jax.errors import UserError
from chestx_jax.inference.loaded_model import LoadedModel, completion_vocabulary
from chestx_jax.programs.job import Program, programs
from chestx_jax.recipes import GrpoConfig, JobConfig, SftConfig
from chestx_jax.rollout.sampling import Vocabulary
from chestx_jax.sharding import make_mesh
from chestx_jax.tokens.tokenizer import SpecialIds, load_tokenizer, special_ids, token_bytes


@dataclass(frozen=True)
class RunContext:
    """A job bound to this machine. `functions` are the jitted programs by name."""

    job: JobConfig
    workdir: Path
    root: Path  # of the data
    mesh: Any
    programs: dict[str, Program]
    functions: dict[str, Any]
    tokenizer: Any
    special: SpecialIds
    vocabulary: Vocabulary  # on the devices
    lexicon: Any

    @property
    def reporting(self) -> dict[str, Any]:
        """Arguments of the metrics writer."""
        return {
            "wandb_mode": self.job.wandb,
            "config": to_dict(self.job),
            "primary": multihost.is_primary(),
        }

    def training_batches(self, stage: SftConfig, blind: bool) -> grain.DatasetIterator:
        """The stage's packed batches: this process's rows."""
        sources = [read_source(source, self.root) for source in stage.sources]
        count, part = self._share(stage.batch)
        return pipeline.supervised_batches(
            sources,
            self._encoder(blind),
            count,
            stage.rows,
            stage.seed,
            pipeline.BadRecords(self.job.max_bad),
            part,
        )

    def validation_loss(self, stage: SftConfig, params, blind: bool) -> float:
        """Nats per target token over a fixed set of batches of the validation source."""
        assert stage.validation is not None
        name = f"{stage.name}/validate"
        count, part = self._share(stage.batch)
        batches = pipeline.supervised_batches(
            [read_source(stage.validation, self.root)],
            self._encoder(blind),
            count,
            stage.rows,
            0,
            pipeline.BadRecords(self.job.max_bad),
            part,
        )
        measured = []
        for _ in range(stage.validation_batches):
            batch = sharding.put(next(batches), self.programs[name].in_shardings[1])
            measured.append(self.functions[name](params, batch, self.vocabulary))
        loss, tokens = np.sum(jax.device_get(measured), axis=0)
        return float(loss / tokens)

    def prompt_batches(self, stage: GrpoConfig) -> grain.DatasetIterator:
        """The stage's prompts with their reward targets: this process's rows."""
        count, part = self._share(stage.prompts)
        return pipeline.prompt_batches(
            read_source(stage.source, self.root).samples,
            self._encoder(False),
            count,
            stage.rows,
            stage.seed,
            pipeline.BadRecords(self.job.max_bad),
            self.lexicon,
            stage.rewards.slots,
            part,
        )

    def loaded_model(self, params: Any, blind: bool = False) -> LoadedModel:
        """Parameters of the job's model, ready to answer."""
        return LoadedModel(self.job.model, params, self.mesh, self._encoder(blind), self.vocabulary)

    def tables(self):
        """The lexicon's automaton over this vocabulary, on every device."""
        known = token_bytes(self.tokenizer)
        padded = known + [b""] * (self.job.model.vocab_size - len(known))
        tables = lexicon.compile_tables(self.lexicon, padded)
        return sharding.put(tables, sharding.replicated(self.mesh))

    def texts(self, ids_BxL: np.ndarray, length_B: np.ndarray) -> list[str]:
        """Completions as text, without the end token."""
        rows = [ids[:length] for ids, length in zip(ids_BxL.tolist(), length_B.tolist(), strict=True)]
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True)

    def samples(self, source: SourceConfig) -> tuple[Sample, ...]:
        """The records of a source."""
        return read_source(source, self.root).samples

    def _encoder(self, blind: bool) -> pipeline.Encoder:
        return pipeline.Encoder(self.tokenizer, self.special, self.job.image, blind)

    def _share(self, count: int) -> tuple[int, tuple[int, int]]:
        """How many rows of a batch of `count` this process makes, and from which part of the data."""
        at = sharding.batch_shardings(self.mesh, jax.ShapeDtypeStruct((count,), jnp.int32))
        part = multihost.data_shard(at, count)
        if jax.process_count() > 1 and part[1] * len(multihost.local_row_indices(at, count)) != count:
            raise UserError(
                f"a batch of {count} rows does not divide among {jax.process_count()} processes on a mesh of "
                f"{dict(self.mesh.shape)}: change one of them"
            )
        return len(multihost.local_row_indices(at, count)), part


def make_context(job: JobConfig, workdir: Path) -> RunContext:
    """Binds a job to the devices and the tokenizer at hand.

    Raises UserError where the tokenizer has more tokens than the model's vocabulary, or the mesh does not fit.
    """
    root = Path(job.data_root) if job.data_root else workdir / "data"
    mesh = make_mesh(job.mesh)
    tokenizer = load_tokenizer(root / job.tokenizer)
    special, size = special_ids(tokenizer), len(tokenizer)
    if size > job.model.vocab_size:
        raise UserError(
            f"the tokenizer in {root / job.tokenizer} has {size} tokens and the model {job.model.vocab_size}: "
            "set config.model.vocab_size to at least that"
        )
    found = programs(job, mesh)
    return RunContext(
        job=job,
        workdir=workdir,
        root=root,
        mesh=mesh,
        programs=found,
        functions={name: program.jit() for name, program in found.items()},
        tokenizer=tokenizer,
        special=special,
        vocabulary=completion_vocabulary(tokenizer, special, job.model.vocab_size, mesh),
        lexicon=lexicon.load(),
    )
