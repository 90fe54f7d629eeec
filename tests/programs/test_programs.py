"""Every jitted program compiles from its abstract arguments alone, once, donates what it says, and fits full size."""

import functools
import inspect
import re
from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax import findings, lexicon, sharding
from chestx_jax.buckets import LengthsConfig
from chestx_jax.cli import load_config
from chestx_jax.config import to_dataclass
from chestx_jax.errors import UserError
from chestx_jax.model.config import ModelConfig, VisionConfig
from chestx_jax.planning.hlo import parse
from chestx_jax.planning.hlo.schedule import schedule
from chestx_jax.programs.generation import generation, sampler
from chestx_jax.programs.job import programs
from chestx_jax.programs.program import Program
from chestx_jax.programs.shapes import target_shapes
from chestx_jax.programs.state import init_params, init_reference, init_state
from chestx_jax.recipes import EvaluationConfig, JobConfig
from chestx_jax.rollout.loop import sample_rollout
from chestx_jax.rollout.schedule import STEPS
from chestx_jax.sharding import MeshConfig, make_mesh
from chestx_jax.tokens.rows import RowsConfig
from chestx_jax.training.policy_update import PolicyUpdate
from chestx_jax.update.micro_batches import Experience
from tests.helpers import mesh_run, tiny_rows
from tests.helpers.paths import CONFIGS
from tests.helpers.tiny_models import VOCABULARY

JOB = replace(
    mesh_run.JOB,
    grpo=replace(mesh_run.JOB.grpo, lengths=LengthsConfig(rows=(16,), completions=(4,))),
    evaluation=EvaluationConfig(rows=RowsConfig(32, 2, 24), batch=8, length=8),
)
NAMES = {
    "sft/step", "sft/validate", "grpo/weights", "grpo/prefill", "grpo/decode", "grpo/score", "grpo/select",
    "grpo/fetch", "grpo/logprobs", "grpo/reference", "grpo/gradients", "grpo/step", "test/weights", "test/prefill",
    "test/decode",
}  # fmt: skip
KINDS = ("weights", "prefill", "decode")  # of the programs that sample


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(2, 2, 2))


@pytest.fixture(scope="module")
def job_programs(mesh):
    return programs(JOB, mesh)


@pytest.fixture(scope="module")
def functions(job_programs):
    return {name: program.jit() for name, program in job_programs.items()}


@pytest.fixture(scope="module")
def executables(job_programs, functions):
    """Compiled before any data, parameters or tokenizer exist."""
    return {name: functions[name].lower(*program.shapes.values()).compile() for name, program in job_programs.items()}


def state_of(stage, mesh):
    return init_state(JOB, stage, mesh).jit()(init_params(JOB, 0, mesh).jit()())


def test_every_program_of_a_job_compiles_without_data(executables):
    assert executables.keys() == NAMES


def test_arguments_are_named_as_the_functions_parameters(job_programs):
    for program in job_programs.values():
        assert list(inspect.signature(program.function).parameters) == list(program.arguments)


@pytest.mark.parametrize("name", ["sft/step", "grpo/step"])
def test_a_step_updates_its_state_in_place(job_programs, executables, name):
    """The bytes of the state that a device holds are all reused."""
    size = lambda leaf, sharding: np.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize  # noqa: E731
    sizes = jax.tree.map(size, *job_programs[name].arguments["state"])
    assert executables[name].memory_analysis().alias_size_in_bytes >= sum(jax.tree.leaves(sizes))


def test_decoding_copies_neither_cache_nor_weights():
    """From token to token no keys or values and no weight matrix are copied or cut out of a stack."""
    decode = programs(JOB, make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]))["grpo/decode"]
    text = decode.lower().compile().as_text()
    large = {leaf.shape for leaf in jax.tree.leaves((decode.shapes["params"], decode.shapes["ring"])) if leaf.ndim > 1}
    names = (",".join(map(str, shape)) for shape in large)
    shapes = {start + name for name in names for start in ("f32[", "f32[1,")}
    trips = {op.name for op in schedule(parse.parse(text)) if op.trips > 1}
    copies = re.findall(r"%(\S+) = (f32\[[\d,]+)\S* (?:copy|dynamic-slice|concatenate)\(", text)
    assert [name for name, shape in copies if name in trips and shape in shapes] == []


def test_the_weights_that_sample_may_be_split_another_way():
    """Parameters split over eight devices, sampled from by four pairs that hold the weights between them, four
    completions at a time: the same completions, and no device ever holds a whole matrix."""
    mesh, rollouts = make_mesh(MeshConfig(1, 8, 1)), {}
    whole = f"[{JOB.model.width},{JOB.model.hidden}]"
    params = mesh_run.with_biases(init_params(JOB, 0, mesh).jit()())
    prompts = tiny_rows.prompt_rows([*tiny_rows.prompt_examples()] * 2)
    prompts = sharding.put(prompts, sharding.batch_shardings(mesh, prompts))
    vocabulary = sharding.put(tiny_rows.vocabulary(), sharding.replicated(mesh))
    for tensor, slots in ((0, 0), (2, 4)):
        sampling = replace(JOB.grpo.sampling, temperature=0.0)
        sample = generation(JOB.model, JOB.image, JOB.grpo.rows, JOB.grpo.prompts, sampling, 0, mesh, slots, tensor)
        functions = {name: program.jit() for name, program in sample.items()}
        chosen = sampler(JOB.model, sampling, mesh, functions, slots, tensor)
        rollout, _ = sample_rollout(chosen, params, prompts, vocabulary, 0, sharding.replicated(mesh))
        rollouts[tensor] = jax.device_get(rollout)
        assert (whole in sample["decode"].lower().compile().as_text()) == (tensor == 0)
    np.testing.assert_array_equal(rollouts[0].ids, rollouts[2].ids)
    np.testing.assert_allclose(rollouts[0].logprobs, rollouts[2].logprobs, atol=1e-5)
    with pytest.raises(UserError, match=r"rollout_tensor=3 does not group fsdp=8 .* choose \[1, 2, 4, 8\]"):
        sharding.rollout_mesh(mesh, 3)


@settings(max_examples=20)
@given(groups=st.integers(1, 4), parts=st.integers(1, 4), group=st.integers(1, 3))
def test_interleaved_parts_merge_back_in_order(groups, parts, group):
    rows = np.arange(groups * parts * group * 2).reshape(-1, 2)
    split = sharding.split_interleaved(rows, parts, group)
    assert split.shape == (parts, groups * group, 2)
    np.testing.assert_array_equal(sharding.merge_interleaved(split, group), rows)
    np.testing.assert_array_equal(split[-1, :group], rows[(parts - 1) * group : parts * group])


def deleted(tree):
    return {leaf.is_deleted() for leaf in jax.tree.leaves(tree)}


def test_a_supervised_run_compiles_once_and_moves_nothing_unasked(job_programs, functions, mesh):
    """Three batches of different content; within a step nothing goes between host and devices."""
    vocabulary = sharding.put(tiny_rows.vocabulary(), job_programs["sft/step"].shardings["vocabulary"])
    state = state_of(JOB.init, mesh)
    with jax.transfer_guard("disallow"):
        for turn in range(3):
            rolled = jax.tree.map(functools.partial(np.roll, shift=turn, axis=0), mesh_run.supervised_batch())
            batch = sharding.put(rolled, job_programs["sft/step"].shardings["batch"])
            before = state
            state, metrics = functions["sft/step"](state, batch, vocabulary)
            assert deleted(before) == {True}
            loss, tokens = functions["sft/validate"](state.params, batch, vocabulary)
            assert deleted((state.params, batch, vocabulary)) == {False}
            assert np.isfinite(jax.device_get(metrics["loss"]))
            assert jax.device_get(loss) > 0 < jax.device_get(tokens)
    assert functions["sft/step"]._cache_size() == 1
    assert functions["sft/validate"]._cache_size() == 1


def letters():
    """A vocabulary of single bytes, as the abstract tables assume."""
    return [bytes([i]) for i in range(256)] + [b""] * (VOCABULARY - 256)


def reward_targets(known, turn):
    """What the rewards compare eight prompts with: other reports each turn."""
    reports = [("No edema.",), (), ("Small left effusion.",), ("The lungs are clear.",)] * 2
    reports = reports[turn:] + reports[:turn]
    tasks, gold = ["binary", "anomaly"] * 4, ["A", "Edema"] * 4
    return findings.reward_targets(known, reports, [("No edema.",)] * 8, gold, tasks, JOB.grpo.rewards.slots)


def test_a_policy_run_compiles_once_a_bucket_and_moves_nothing_unasked(job_programs, functions, mesh):
    """Rollout, score, log-probs and update over batches of different content and lengths, as the loop calls them."""
    known = lexicon.load()
    vocabulary = sharding.put(tiny_rows.vocabulary(), job_programs["grpo/decode"].shardings["vocabulary"])
    tables = sharding.put(lexicon.compile_tables(known, letters()), job_programs["grpo/score"].shardings["tables"])
    state = state_of(JOB.grpo, mesh)
    reference = init_reference(JOB, JOB.grpo, mesh).jit()(jax.tree.map(lambda x: x + 0, state.params))
    assert {leaf.sharding.memory_kind for leaf in jax.tree.leaves(reference)} == {"pinned_host"}
    short, long = tiny_rows.prompt_examples()[2:], tiny_rows.prompt_examples()[:2]
    policy = PolicyUpdate(JOB, JOB.grpo, mesh, job_programs, functions, vocabulary)
    greedy = replace(JOB.grpo.sampling, temperature=0.0, group=1)
    sampling = {
        stage: sampler(JOB.model, rule, mesh, {kind: functions[f"{stage}/{kind}"] for kind in KINDS})
        for stage, rule in (("grpo", JOB.grpo.sampling), ("test", greedy))
    }
    rollout_shardings = job_programs["grpo/score"].shardings["rollout"]
    with jax.transfer_guard("disallow"):
        for turn, examples in enumerate((4 * short, 2 * (long + short), 4 * short[::-1], 2 * (short + long))):
            length = 16 if turn % 2 == 0 else tiny_rows.LONG
            prompts, slots = policy.put_prompts(tiny_rows.prompt_rows(examples, length))
            targets = sharding.put(reward_targets(known, turn), job_programs["grpo/score"].shardings["targets"])
            rollout, _ = sample_rollout(sampling["grpo"], state.params, prompts, vocabulary, turn, rollout_shardings)
            scored = functions["grpo/score"](tables, targets, rollout)
            experience = Experience(prompts, rollout, scored.advantages, scored.loss_mask)
            parts = policy.split(experience, policy.lengths(experience, slots))
            logprobs = policy.logprobs(reference, state.params, parts)
            for given in logprobs if not turn else ():  # nothing is learned yet, so the policy is the reference
                np.testing.assert_array_equal(*jax.device_get((given.reference, given.old)))
            for update in range(JOB.grpo.updates):
                before = state
                state, metrics = policy.step(state, parts, logprobs)
                assert deleted(before) == {True}
                measured = jax.device_get(metrics)
                assert np.isfinite(measured["loss"])
                if not update:  # the policy that sampled is the one that learns
                    assert measured["sampler_drift"] < 1e-5
                    assert measured["clipped"] == 0
            assert deleted((parts, logprobs, vocabulary, tables, reference)) == {False}
        few = tiny_rows.prompt_rows(tiny_rows.prompt_examples())
        few = sharding.put(few, job_programs["test/prefill"].shardings["prompts"])
        answers, _ = sample_rollout(sampling["test"], state.params, few, vocabulary, 0, sharding.replicated(mesh))
    assert answers.ids.shape == (4, 8)
    buckets = {
        name: {bucket for program, bucket in policy.use.runs if program == name}
        for name in ("grpo/prefill", "grpo/gradients")
    }
    assert all(len(used) >= 2 for used in buckets.values())
    compiled = {name: functions[name]._cache_size() for name in NAMES if not name.startswith("sft")}
    of_parts = dict.fromkeys(("grpo/reference", "grpo/logprobs", "grpo/gradients"), len(buckets["grpo/gradients"]))
    once = {f"grpo/{name}": 1 for name in ("weights", "fetch", "score", "step")} | {f"test/{name}": 1 for name in KINDS}
    of_prompts = {
        "grpo/prefill": len(buckets["grpo/prefill"]),
        "grpo/decode": len({length for length, _ in buckets["grpo/prefill"]}),  # films are read by prefill alone
    }
    assert compiled == once | of_parts | of_prompts | {"grpo/select": 0}  # one of its own for each bucket


def test_abstract_references_are_what_the_host_makes():
    shapes = target_shapes(JOB.grpo.prompts, JOB.grpo.rewards.slots)
    targets = reward_targets(lexicon.load(), 0)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), targets) == jax.tree.map(lambda x: (x.shape, x.dtype), shapes)


# Full size: nothing is allocated or compiled


def shape_of(program: Program):
    return jax.eval_shape(program.function, *program.shapes.values())


def assert_same_shapes(one, other):
    """Two trees agree in structure, shapes and dtypes."""
    jax.tree.map(lambda x, y: np.testing.assert_equal((x.shape, x.dtype), (y.shape, y.dtype)), one, other)


def billions(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree)) / 1e9


def recipe(name):
    return to_dataclass(JobConfig, load_config(str(CONFIGS / name)))


def largest(job):
    """The same job with the 72B shapes."""
    vision = VisionConfig()
    model = ModelConfig(layers=80, width=8192, heads=64, kv_heads=8, hidden=29568, vision=vision)
    return replace(job, model=replace(model, compute=job.model.compute))


@pytest.mark.parametrize(
    ("name", "size", "count"),
    [("rl.py", None, 8.29), ("sft.py", None, 8.29), ("rl.py", "72B", 73.4), ("sft.py", "72B", 73.4)],
)
def test_the_full_recipes_trace(name, size, count):
    job = recipe(name) if size is None else largest(recipe(name))
    job_programs = programs(job, make_mesh(MeshConfig(1, 4, 2)))
    assert job_programs
    for program_name, program in job_programs.items():
        if program_name == "grpo/score":
            continue  # has no parameters: the tiny job's is the same program
        shapes = shape_of(program)
        if program_name.endswith("/step"):
            assert_same_shapes(shapes[0], program.shapes["state"])
            assert billions(shapes[0].params) == pytest.approx(count, rel=0.01)
        if program_name == "grpo/decode":
            ring, *tokens = shapes
            assert_same_shapes(ring, program.shapes["ring"])
            assert {leaf.shape for leaf in tokens} == {(job.grpo.prompts * job.grpo.sampling.group, STEPS)}
