"""Batched prediction: every sample once, in order; a job's test and the evaluation of its checkpoint agree."""

import json
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from chestx_jax.buckets import BucketUse, LengthsConfig
from chestx_jax.checkpoint import save_params
from chestx_jax.config import to_dict
from chestx_jax.data.bad_records import BadRecords
from chestx_jax.data.mixture import SourceConfig
from chestx_jax.errors import UserError
from chestx_jax.eval.config import EvalConfig
from chestx_jax.inference import answers
from chestx_jax.inference import predict as predict_module
from chestx_jax.inference.answers import answer_probability
from chestx_jax.inference.evaluate import checkpoint_predict
from chestx_jax.inference.predict import predict
from chestx_jax.model.qwen_vl import init
from chestx_jax.recipes import EvaluationConfig, JobConfig
from chestx_jax.sharding import MeshConfig
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.rows import RowsConfig
from chestx_jax.tokens.tokenizer import train_tokenizer
from chestx_jax.training.model_tests import TrainedModel, predict_test
from chestx_jax.training.run_context import make_context
from chestx_jax.types import Rollout
from tests.helpers.bad_films import write_bad_films
from tests.helpers.tiny_models import tiny

COUNT, UNREADABLE = 7, (2, 6)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """A job whose stage `sft` has left a random tiny model, and its test records, of which some films are broken."""
    workdir = tmp_path_factory.mktemp("run")
    data = workdir / "data"
    train_tokenizer(["The lungs are clear. Is there an effusion?"] * 5, data / "tokenizer", 295)
    rng = np.random.default_rng(0)
    records = []
    for number in range(COUNT):
        Image.fromarray(rng.integers(0, 256, (56, 56), np.uint8)).save(data / f"{number}.png")
        question = "Is there edema? " * (1 + number % 3) + "Options:\nA) Yes\nB) No"
        records.append({"item_id": f"s{number}", "question": question, "answer": "A", "image_path": [f"{number}.png"]})
    for number in UNREADABLE:
        (data / f"{number}.png").write_bytes(b"no film")
    (data / "test.jsonl").write_text("\n".join(map(json.dumps, records)))
    model = tiny("qwen2_vl")
    job = JobConfig(
        init="random",
        evaluation=EvaluationConfig(SourceConfig("test.jsonl"), RowsConfig(384, 2, 64), batch=4, length=8),
        model=model,
        image=ImageSpec(aspect="squash", height=56, width=56),
        mesh=MeshConfig(data=4, tensor=2),
        tokenizer="tokenizer",
        max_bad=1.0,
    )
    (workdir / "config.json").write_text(json.dumps(to_dict(job)))
    save_params(workdir / "sft" / "params", jax.jit(init, static_argnums=0)(model, jax.random.key(4)), to_dict(model))
    return make_context(job, workdir)


def test_every_readable_sample_once_in_order(context, monkeypatch):
    """The last batch and the gaps of unreadable films are filled up; what is generated goes to the right sample."""
    samples = context.samples(context.job.evaluation.source)
    windows = []

    def sample(sampler, params, prompts, vocabulary, step):
        windows.append(prompts.index.tolist())
        ids = np.array(prompts.index)[:, None] + 10
        logprobs, length = np.zeros(ids.shape, np.float32), np.ones(len(ids), np.int32)
        rollout = Rollout(ids=ids, length=length, logprobs=logprobs, finished=np.array(prompts.index) % 2 == 0)
        active = np.flatnonzero(ids[:, 0] >= 10).tolist()
        for ended in (active[::2][::-1], active[1::2]):  # as they end, which is in any order
            yield SimpleNamespace(rollout=rollout), ended

    monkeypatch.setattr(answers, "sample_completions", sample)
    model, log = context.loaded_model(None), []
    sampler = SimpleNamespace(slots=1)
    monkeypatch.setattr(predict_module, "WINDOW", 4)
    bad = BadRecords(1.0, COUNT, log.append)
    predictions = list(predict(model, samples, sampler, bad, context.job.evaluation.rows))
    assert windows == [[0, 1, -1, 3], [4, 5, -1, -1]]
    assert [int(p.sample_id[1:]) for p in predictions] == [0, 1, 3, 4, 5]
    assert [p.pred for p in predictions] == [model.encoder.tokenizer.decode([n + 10]) for n in (0, 1, 3, 4, 5)]
    assert [p.truncated for p in predictions] == [False, True, True, False, True]
    assert [line.split(" (")[0] for line in log] == ["record s2", "record s6"]
    lost = [samples[number] for number in UNREADABLE]
    assert list(predict(model, lost, sampler, BadRecords(1.0, COUNT))) == []
    assert len(windows) == 2  # nothing is generated where no film can be read
    small = RowsConfig(length=16, image_slots=1, patches=64)  # no sample fits
    assert list(predict(model, samples, sampler, BadRecords(1.0, COUNT), small)) == []
    with pytest.raises(UserError, match="more than the allowed share"):
        list(predict(model, lost, sampler, BadRecords(0.0, COUNT)))


@pytest.mark.filterwarnings("ignore")  # of pydicom and Pillow, about the films
def test_whatever_is_wrong_with_a_film_its_sample_is_left_out_by_name(context, tmp_path, monkeypatch):
    pytest.importorskip("pydicom", exc_type=ImportError)
    good = context.samples(context.job.evaluation.source)[0]
    films = write_bad_films(tmp_path)
    samples = [replace(good, id=name, images=(str(path),)) for name, path in films.items()]
    log: list[str] = []

    def sample(sampler, params, prompts, vocabulary, step):
        ids = np.array(prompts.index)[:, None]
        rollout = Rollout(ids=ids, length=ids[:, 0] * 0, logprobs=ids * 0.0, finished=ids[:, 0] == 0)
        yield SimpleNamespace(rollout=rollout), np.flatnonzero(ids[:, 0] >= 0).tolist()

    monkeypatch.setattr(answers, "sample_completions", sample)
    sampler = SimpleNamespace(slots=4)

    model = context.loaded_model(None)
    keeping = replace(model, encoder=model.encoder._replace(image=ImageSpec(max_pixels=56 * 56)))
    (prediction,) = predict(keeping, [*samples, good], sampler, BadRecords(1.0, len(samples) + 1, log.append))
    assert prediction.sample_id == good.id
    assert [line.split()[1] for line in log] == list(films)


@pytest.mark.parametrize("blind", [False, True])
def test_a_job_s_test_and_evaluation_predict_the_same(context, blind, monkeypatch):
    """Same texts and probabilities, though one computes at fixed shapes on a mesh and the other at the batch's bucket.
    A random model writes no answer tags, so the probability compared is that of the whole text."""
    monkeypatch.setattr(answers, "answer_probability", lambda pieces, logprobs_L: float(np.exp(logprobs_L.sum())))
    place = f"orbax:{context.workdir / 'sft' / 'params'}"
    tested = predict_test(context, context.job.evaluation, TrainedModel(f"blind {blind}", place, blind))
    config = EvalConfig(batch=3, length=8, blind=blind)
    evaluated = list(checkpoint_predict(config, place, print)(context.samples(context.job.evaluation.source)))
    assert len(tested) == COUNT - len(UNREADABLE)
    assert len({p.probability for p in tested}) > 1
    assert [replace(p, probability=None) for p in tested] == [replace(p, probability=None) for p in evaluated]
    # A probability is the exponential of eight log-probs summed; each rounds in fp32 as its program orders the sums.
    np.testing.assert_allclose([p.probability for p in tested], [p.probability for p in evaluated], rtol=1e-5)


def test_prompts_in_buckets_are_answered_as_prompts_padded_to_the_limit(context, monkeypatch):
    """Each bucket is compiled once, and none that no window meets."""
    monkeypatch.setattr(answers, "answer_probability", lambda pieces, logprobs_L: float(np.exp(logprobs_L.sum())))
    monkeypatch.setattr(predict_module, "WINDOW", 1)
    samples = [s for n, s in enumerate(context.samples(context.job.evaluation.source)) if n not in UNREADABLE]
    longer = [replace(sample, question="Is there an effusion? " * 9 + sample.question) for sample in samples[:4]]
    mixed, limits = [*samples[:4], *longer, *samples[:4], *longer], context.job.evaluation.rows
    params = context.load_params(f"orbax:{context.workdir / 'sft' / 'params'}")
    sampler = context.sampler("test", answers.greedy(8), 4)
    model = context.loaded_model(sampler.weights(params))

    def predicted(lengths):
        before, use = sampler.prefill._cache_size(), BucketUse()
        made = list(predict(model, mixed, sampler, BadRecords(0.0, len(mixed)), limits, lengths, use))
        return made, {bucket: count for (_, bucket), count in use.runs.items()}, sampler.prefill._cache_size() - before

    bucketed, buckets, compiled = predicted(context.job.evaluation.lengths)
    padded, limit_alone, compiled_padded = predicted(LengthsConfig(rows=(384,), image_slots=(2,)))
    assert sorted(buckets.values()) == [2, 2]
    assert compiled == len(buckets) == 2
    assert max(buckets) < (384, 2)
    assert limit_alone == {(384, 2): 4}
    assert compiled_padded == 1
    assert [p.pred for p in bucketed] == [p.pred for p in padded]
    np.testing.assert_allclose([p.probability for p in bucketed], [p.probability for p in padded], rtol=1e-5)


def test_buckets_above_a_test_s_limits_are_refused():
    for lengths, named in ((LengthsConfig(rows=(512,)), 512), (LengthsConfig(completions=(100,)), 100)):
        with pytest.raises(UserError, match=f"lengths holds {named}"):
            EvaluationConfig(rows=RowsConfig(384, 2, 64), length=8, lengths=lengths)


def test_the_answer_s_probability_is_that_of_its_tokens():
    pieces = ["<think>", " so <answer>B", "</answer></think>", "<answer>", " A", " </", "answer>"]
    logprobs = np.log(np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], np.float32))
    assert answer_probability(pieces, logprobs) == pytest.approx(0.5 * 0.4)  # " </" carries the blank before the tag
    assert answer_probability(["A"], logprobs[:1]) is None
    assert answer_probability(["<answer>", "</answer>"], logprobs[:2]) is None
    quoted = ["<think>", "<answer>", "A", "</answer>", "</think>"]
    assert answer_probability(quoted, np.zeros(5, np.float32)) is None  # an answer in the thoughts is none


def test_a_job_does_not_start_from_weights_that_are_not_finite(context, tmp_path):
    params = context.load_params(f"orbax:{context.workdir / 'sft' / 'params'}")
    leaves, tree = jax.tree.flatten(params)
    spoilt = tree.unflatten([*leaves[:-1], leaves[-1].at[0].set(np.nan)])
    save_params(tmp_path / "params", spoilt, to_dict(context.job.model))
    with pytest.raises(UserError, match="holds weights that are not finite"):
        context.load_params(f"orbax:{tmp_path / 'params'}")
