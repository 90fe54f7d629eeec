"""The endpoint client against a misbehaving server: retries, cache, resume, every item accounted for."""

import base64
import io
import json
import time
from functools import partial

import numpy as np
import pytest
from PIL import Image

from chestx_jax.data.schema import Sample
from chestx_jax.endpoint.client import Endpoint, call_all, complete, parse_model, request_key
from chestx_jax.errors import UserError
from chestx_jax.eval.judges import llm_judge
from chestx_jax.eval.judges.judgements import aggregate
from chestx_jax.eval.predictions.records import Prediction, read_predictions
from chestx_jax.eval.predictions.resume import predict_missing
from chestx_jax.inference import remote
from chestx_jax.tokens.films import load_image
from tests.helpers.chat_server import serve
from tests.helpers.image_files import png_bytes

QUESTION = "Does this chest X-ray show edema? Options:\nA) Yes\nB) No"
CHAT = [{"role": "user", "content": "hello"}]


def endpoint(url, folder, **settings):
    defaults = {"first_wait": 0.01, "max_wait": 0.1, "timeout": 0.5, "workers": 4}
    return Endpoint("tiny", url, folder / "cache", **{**defaults, **settings})


def samples(folder, count=8):
    drawn_samples = []
    for number in range(count):
        path = folder / f"{number}.png"
        Image.fromarray(np.full((16, 16), number * 5, np.uint8)).save(path)
        drawn_samples.append(Sample(f"s{number}", "binary", QUESTION, "A", (str(path),), (), (), "phantom"))
    return drawn_samples


@pytest.mark.parametrize("stream", [True, False])
def test_a_reply_is_asked_for_once(tmp_path, stream):
    with serve(lambda body, before: "Kerley lines are seen.", stream) as (url, log):
        first = complete(endpoint(url, tmp_path, stream=stream), CHAT)
        second = complete(endpoint(url, tmp_path), CHAT)
    assert first.text == second.text == "Kerley lines are seen."
    assert (first.prompt_tokens, first.completion_tokens, first.cached) == (10, 4, False)
    assert second.cached
    assert sum(log.asked.values()) == 1


def test_the_same_is_asked_once_however_many_ask(tmp_path):
    with serve(lambda body, before: time.sleep(0.1) or "A") as (url, log):
        ours = endpoint(url, tmp_path)
        replies = [
            reply for _, reply in call_all(ours, lambda number: complete(ours, CHAT), range(8), lambda reply: False)
        ]
    assert [reply.text for reply in replies] == ["A"] * 8
    assert sum(log.asked.values()) == 1
    assert sum(not reply.cached for reply in replies) == 1


@pytest.mark.parametrize("fault", [429, 500, "html", "cut", "slow"])
def test_faults_are_asked_again(tmp_path, fault):
    with serve(lambda body, before: fault if before < 2 else "A") as (url, log):
        reply = complete(endpoint(url, tmp_path), CHAT)
    assert reply.text == "A"
    assert sum(log.asked.values()) == 3


def test_a_fault_that_stays_is_an_error_and_not_cached(tmp_path):
    with serve(lambda body, before: 500) as (url, log):
        reply = complete(endpoint(url, tmp_path, attempts=3), CHAT)
    assert "gave up after 3 attempts: HTTP 500" in reply.error
    assert sum(log.asked.values()) == 3
    with serve(lambda body, before: "A") as (other, _):
        assert complete(endpoint(other, tmp_path), CHAT).text == "A"


def test_a_refused_request_is_not_repeated(tmp_path):
    with (
        serve(lambda body, before: 401) as (url, log),
        pytest.raises(UserError, match=r"refuses tiny \(HTTP 401.*check model, key and URL"),
    ):
        complete(endpoint(url, tmp_path), CHAT)
    assert sum(log.asked.values()) == 1


def test_the_cache_key_ignores_how_and_minds_what(tmp_path):
    one = endpoint("http://a/v1", tmp_path)
    assert request_key(one, {"messages": CHAT}) == request_key(one, {"stream": True, "messages": CHAT})
    assert request_key(one, {"messages": CHAT}) != request_key(one, {"messages": CHAT, "seed": 1})
    with pytest.raises(UserError, match="openai:MODEL@URL"):
        parse_model("gpt-4o", tmp_path)
    assert parse_model("openai:org/m@x@http://h:1/v1/", tmp_path).url == "http://h:1/v1"


def test_predictions_come_from_the_server_with_their_films(tmp_path):
    eval_samples = samples(tmp_path)
    with serve(lambda body, before: "<think> haze </think><answer> A </answer>") as (url, log):
        predictions = predict_missing(
            tmp_path / "p.jsonl", eval_samples, lambda missing: remote.predict(endpoint(url, tmp_path), missing, print)
        )
    assert [p.sample_id for p in predictions] == [s.id for s in eval_samples]
    assert all(p.tokens == 5 for p in predictions)
    content = log.bodies[0]["messages"][0]["content"]
    assert content[0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert content[1]["text"].startswith(QUESTION)
    assert "<think>" in content[1]["text"]


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    eval_samples, path = samples(tmp_path), tmp_path / "p.jsonl"
    with serve(lambda body, before: "<answer> A </answer>") as (url, log):
        ours = endpoint(url, tmp_path, workers=1)

        def dies(missing):
            for number, prediction in enumerate(remote.predict(ours, missing, print)):
                if number == 3:
                    raise KeyboardInterrupt
                yield prediction

        with pytest.raises(KeyboardInterrupt):
            predict_missing(path, eval_samples, dies)
        with path.open("a") as file:
            file.write('{"question": "half a li')
        predictions = predict_missing(path, eval_samples, lambda missing: remote.predict(ours, missing, print))
    assert [p.sample_id for p in predictions] == [s.id for s in eval_samples]
    assert max(log.asked.values()) == 1
    assert len(read_predictions(path)) == len(eval_samples)


def test_a_server_is_sent_the_film_that_a_local_model_sees(tmp_path):
    """A plain file as it is; what readers disagree on, as a JPEG of how `load_image` reads it; what none reads, not."""
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 4096, (20, 30, 3)).astype(np.uint16)
    contents = {
        "plain.png": png_bytes((deep // 16).astype(np.uint8)),
        "deep.png": png_bytes(deep),
        "grey.png": png_bytes(deep[..., :1]),
        "alpha.png": png_bytes(deep[..., :2]),
        "cut.png": png_bytes(deep)[:-90],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    plain = base64.b64encode(contents["plain.png"]).decode()
    assert remote.film_url(str(tmp_path / "plain.png")) == f"data:image/png;base64,{plain}"
    for name in ("deep.png", "grey.png", "alpha.png"):
        start, _, code = remote.film_url(str(tmp_path / name)).partition(",")
        assert start == "data:image/jpeg;base64"
        sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(code))).convert("L")).astype(int)
        shown = np.asarray(Image.fromarray(load_image(tmp_path / name)).convert("L"))
        assert np.abs(sent - shown).mean() < 20
    with pytest.raises(UserError, match=r"cut\.png"):
        remote.film_url(str(tmp_path / "cut.png"))


def test_an_unanswered_sample_is_left_for_the_next_run(tmp_path):
    eval_samples, path, log_lines = samples(tmp_path, 4), tmp_path / "p.jsonl", []
    down = {"s2": True}
    wanted = remote.film_url(eval_samples[2].images[0])

    def script(body, before):
        return (
            500
            if down["s2"] and body["messages"][0]["content"][0]["image_url"]["url"] == wanted
            else "<answer> A </answer>"
        )

    with serve(script) as (url, log):
        ask = partial(remote.predict, endpoint(url, tmp_path, attempts=2), log=log_lines.append)
        predictions = predict_missing(path, eval_samples, ask)
        assert [p.sample_id for p in predictions] == ["s0", "s1", "s3"]
        assert any("3 of 4 samples answered" in line for line in log_lines)
        down["s2"] = False
        predictions = predict_missing(path, eval_samples, ask)
    assert [p.sample_id for p in predictions] == ["s0", "s1", "s2", "s3"]
    assert sorted(log.asked.values()) == [1, 1, 1, 3]


def test_an_endpoint_that_is_down_is_not_asked_to_the_end(tmp_path):
    log_lines: list[str] = []
    ours = endpoint("http://127.0.0.1:9/v1", tmp_path, attempts=1, workers=2, patience=3)
    assert list(remote.predict(ours, samples(tmp_path, 40), log_lines.append)) == []
    assert len(log_lines) < 12


PREDICTION = Prediction(
    "s",
    "binary",
    "phantom",
    QUESTION,
    "A",
    "<think> There is edema. </think><answer> A </answer>",
    ("Mild edema.",),
    ("Edema.",),
)


def judging(body, before):
    """Sound replies in every wrapping an LLM gives them; the observation lists have two and one entries."""
    prompt = body["messages"][1]["content"]
    seen = {"observation": "edema", "status": "present"}
    if "List every observation" in prompt:
        reply = {"key_conclusion": [seen] if "There is edema." in prompt else [seen, seen]}
        return "Here it is:\n```json\n" + json.dumps(reply) + "\n```\nAnything else?"
    if "Reference list:" in prompt:
        return json.dumps({"recalled_findings": [seen], "recalled_count": 1})
    if "Report:" in prompt:
        return "{not json" if body["seed"] == 0 else json.dumps({"correct_steps": [seen], "correct_count": 1})
    return json.dumps({"effective_steps": ["x"], "effective_count": 1, "ineffective_count": 3})


def test_judging_makes_the_release_s_records(tmp_path):
    with serve(judging) as (url, _):
        ours = endpoint(url, tmp_path)
        first = list(llm_judge.judge_all(ours, [PREDICTION] * 3, print))
        again = list(llm_judge.judge_all(ours, [PREDICTION] * 3, print))
    assert sorted(index for index, _, _ in first) == [0, 1, 2]
    scores = aggregate([record for _, record, _ in first], "clean")
    assert (scores["completeness"], scores["factuality"], scores["effectiveness"]) == (0.5, 1.0, 0.25)
    assert scores == aggregate([record for _, record, _ in again], "clean")
    assert sum(usage.calls for _, _, usage in again) == 0
    record = first[0][1]
    assert record["judge"]["prompts"] == "1"
    assert record["correct"] == "yes"


def test_replies_that_never_become_json_are_malformed(tmp_path):
    with serve(lambda body, before: "I cannot help with that.") as (url, log):
        judged = list(llm_judge.judge_all(endpoint(url, tmp_path), [PREDICTION], print))
    scores = aggregate([record for _, record, _ in judged], "clean")
    assert (scores["n"], scores["n_valid"], scores["malformed"]) == (1, 0, 1)
    assert max(log.asked.values()) == 1


def test_a_judge_that_is_down_leaves_every_item_counted(tmp_path):
    ours = endpoint("http://127.0.0.1:9/v1", tmp_path, attempts=1, workers=2, patience=2)
    judged = list(llm_judge.judge_all(ours, [PREDICTION] * 30, lambda text: None))
    assert sorted(index for index, _, _ in judged) == list(range(30))
    assert aggregate([record for _, record, _ in judged], "clean")["malformed"] == 30
