"""Questions to a loaded model: the same tokens as transformers from PNG and DICOM, streamed text, question files."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

from chestx_jax.errors import UserError
from chestx_jax.export import export_model
from chestx_jax.inference.generate import Question, answer_file, answer_question, encode_question, read_questions
from chestx_jax.inference.loaded_model import allowed_ids, load_model
from chestx_jax.model.qwen_vl import init
from chestx_jax.rollout.sampling import SamplingConfig
from chestx_jax.sharding import MeshConfig, make_mesh
from chestx_jax.tokens.chat import INSTRUCTION
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.tokenizer import train_tokenizer
from tests.helpers.bad_films import write_bad_films
from tests.helpers.dicom import write_dicom
from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import tiny
from tests.tokens.test_chat_forms import THINKING, with_think_tokens

GREEDY = SamplingConfig(temperature=0.0, length=12, group=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A complete tiny checkpoint that looks at films in their own shape."""
    base = tmp_path_factory.mktemp("checkpoint")
    train_tokenizer(["The lungs are clear. Is there an effusion?"] * 5, base / "tokenizer", 295)
    config = tiny("qwen2_5_vl")
    params = jax.jit(init, static_argnums=0)(config, jax.random.key(4))
    spec = ImageSpec(min_pixels=3136, max_pixels=30_000)
    export_model(base / "model", config, params, base / "tokenizer", spec)
    return base / "model"


@pytest.fixture(scope="module")
def model(folder):
    return load_model(f"hf:{folder}", make_mesh(MeshConfig(1, 1, 2), jax.devices()[:2]), "float32")


@pytest.fixture
def films(tmp_path):
    """Two films of different shapes as PNG, and the first one once more as DICOM."""
    pydicom = pytest.importorskip("pydicom", exc_type=ImportError)
    assert pydicom
    rng = np.random.default_rng(0)
    first = np.asarray(Image.fromarray(rng.integers(0, 256, (9, 8), dtype=np.uint8)).resize((150, 170)))
    first = first.copy()
    first[0, :2] = 0, 255  # the whole range, so that the windowed DICOM has the same values
    Image.fromarray(first).save(tmp_path / "a.png")
    Image.fromarray(rng.integers(0, 256, (60, 140), dtype=np.uint8)).save(tmp_path / "b.png")
    write_dicom(tmp_path / "a.dcm", first, bits=8)
    return tmp_path


def theirs(folder, paths, question, length):
    """Greedy tokens of transformers for the same films and question, special tokens barred as in our sampling."""
    torch = pytest.importorskip("torch", exc_type=ImportError)
    import transformers
    from transformers import AutoTokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from chestx_jax.tokens.chat import INSTRUCTION
    from chestx_jax.tokens.tokenizer import special_ids

    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, architecture).from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    images = Qwen2VLImageProcessorPil.from_pretrained(folder)(
        images=[Image.open(path) for path in paths], return_tensors="pt"
    )
    content = [{"type": "image"} for _ in paths] + [{"type": "text", "text": f"{question}\n{INSTRUCTION}"}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    for grid in images["image_grid_thw"]:
        text = text.replace("<|image_pad|>", "<|seen|>" * (int(grid.prod()) // 4), 1)
    ids = tokenizer(text.replace("<|seen|>", "<|image_pad|>"), return_tensors="pt")
    kinds = (ids["input_ids"] == tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
    barred = np.flatnonzero(~allowed_ids(tokenizer, special_ids(tokenizer), 300)).tolist()
    out = model.generate(
        **ids, **images, mm_token_type_ids=kinds, max_new_tokens=length, do_sample=False, suppress_tokens=barred
    )
    return out[0, ids["input_ids"].shape[1] :].tolist()


def test_films_cut_into_other_patches_are_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    settings = tmp_path / "model" / "preprocessor_config.json"
    settings.write_text(settings.read_text().replace('"merge_size": 2', '"merge_size": 1'))
    with pytest.raises(UserError, match=r"image\.merge_size is 1 and .*vision\.merge_size is 2"):
        load_model(f"hf:{tmp_path / 'model'}", make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]), "float32")


@pytest.mark.parametrize("names", [("a.png",), ("a.png", "b.png")])
def test_same_tokens_as_transformers(folder, model, films, names):
    paths = tuple(str(films / name) for name in names)
    answer = answer_question(model, Question("Is it clear?", paths), GREEDY, 0)
    assert answer["ids"] == theirs(folder, paths, "Is it clear?", GREEDY.length)


def test_same_tokens_as_qwen3_vl_with_a_thought_that_the_prompt_opens(films, tmp_path):
    """Patches of 16, DeepStack, think tags as tokens, a thinking model's template; the text begins with its tag."""
    train_tokenizer(["The lungs are clear. Is there an effusion?"] * 5, tmp_path / "small", 290)
    with_think_tokens(tmp_path / "small", THINKING).save_pretrained(tmp_path / "tokenizer")
    config = tiny("qwen3_vl")
    params = jax.jit(init, static_argnums=0)(config, jax.random.key(4))
    spec = ImageSpec(patch_size=16, mean=(0.5,) * 3, std=(0.5,) * 3, min_pixels=4096, max_pixels=30_000)
    export_model(tmp_path / "model", config, params, tmp_path / "tokenizer", spec)
    model = load_model(f"hf:{tmp_path / 'model'}", make_mesh(MeshConfig(1, 1, 2), jax.devices()[:2]), "float32")
    paths, pieces = tuple(str(films / name) for name in ("a.png", "b.png")), []
    answer = answer_question(model, Question("Is it clear?", paths), GREEDY, 0, pieces.append)
    assert answer["text"].startswith("<think>\n")
    assert answer["text"].startswith("".join(pieces))
    assert pieces[0] == "<think>\n"
    assert answer["ids"] == theirs(tmp_path / "model", paths, "Is it clear?", GREEDY.length)
    plain = answer_question(model, Question("Is it clear?", paths, reasoning=False), GREEDY, 0)
    assert not plain["text"].startswith("<think>\n")


def test_real_films_give_the_same_tokens_as_transformers(folder, model, shared_data, tmp_path):
    """As PNG, and once more as DICOM, which is windowed over its own range."""
    pytest.importorskip("pydicom", exc_type=ImportError)
    path = sorted((shared_data / "cxr" / "images" / "nih").iterdir())[0]
    film = np.asarray(Image.open(path).convert("L")).copy()
    film[0, :2] = 0, 255
    Image.fromarray(film).save(tmp_path / "film.png")
    write_dicom(tmp_path / "film.dcm", film, bits=8)
    for ours, reference in ((path, path), (tmp_path / "film.dcm", tmp_path / "film.png")):
        answer = answer_question(model, Question("Is it clear?", (str(ours),)), GREEDY, 0)
        assert answer["ids"] == theirs(folder, [str(reference)], "Is it clear?", GREEDY.length)


def test_dicom_is_the_same_film(model, films):
    png, dicom = (encode_question(model, Question("", (str(films / name),))) for name in ("a.png", "a.dcm"))
    np.testing.assert_array_equal(png.images[0][0], dicom.images[0][0])


def test_text_is_written_as_it_grows(model, films):
    written = []
    answer = answer_question(model, Question("Is it clear?", (str(films / "a.png"),)), GREEDY, 0, written.append)
    jax.effects_barrier()
    text = "".join(written)
    assert len(written) > 1
    assert answer["text"].startswith(text)
    assert answer["text"].removeprefix(text).strip("\ufffd") == ""


def test_files_are_answered_in_order_and_resumed(model, films, tmp_path):
    questions = [Question(f"Question {n}?", (str(films / ("gone.png" if n == 2 else "a.png")),)) for n in range(5)]
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    assert answer_file(model, questions, whole, GREEDY, 0, batch=2) == (5, 1)
    lines = [json.loads(line) for line in whole.read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(5))
    assert "gone.png" in lines[2]["error"]
    assert all("text" in line for line in lines if line["index"] != 2)
    content = whole.read_bytes().splitlines(keepends=True)
    cut.write_bytes(b"".join(content[:2]) + content[2][:10])
    assert answer_file(model, questions, cut, GREEDY, 0, batch=2) == (3, 1)
    again = [json.loads(line) for line in cut.read_text().splitlines()]
    drop = lambda line: {key: value for key, value in line.items() if key != "tokens_per_second"}  # noqa: E731
    assert list(map(drop, again)) == list(map(drop, lines))


@pytest.mark.filterwarnings("ignore")  # of pydicom and Pillow, about the films
def test_whatever_is_wrong_with_a_film_its_line_says_so(model, films, tmp_path):
    bad = write_bad_films(tmp_path)
    paths = [films / "a.png", *bad.values(), films / "a.png"]
    questions = [Question("Is it clear?", (str(path),)) for path in paths]
    assert answer_file(model, questions, tmp_path / "out.jsonl", GREEDY, 0, batch=4) == (len(paths), len(bad))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert ["error" in line for line in lines] == [False, *[True] * len(bad), False]
    assert all(path.name in line["error"] for path, line in zip(paths[1:-1], lines[1:-1], strict=True))


def test_questions_are_read_with_their_films(tmp_path):
    path = tmp_path / "q.jsonl"
    records = [
        {"question": "A?", "image_path": "a.png"},
        {"question": "B?", "image_path": ["a", "b"], "reasoning": False},
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    first, second = read_questions(path)
    assert first == Question("A?", (str(tmp_path / "a.png"),), True)
    assert second == Question("B?", (str(tmp_path / "a"), str(tmp_path / "b")), False)
    path.write_text(json.dumps({"question": f"A?\n{INSTRUCTION}", "image_path": "/old/a.png"}))
    assert read_questions(path, "/old=/films") == [Question("A?", ("/films/a.png",), True)]


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"image_path": "a.png"}, "question"),
        ({"question": 3}, "question"),
        ({"question": "A?", "image_path": 3}, "image_path"),
        ({"question": "A?", "image_path": [["a.png"]]}, "image_path"),
        ({"question": "A?", "reasoning": "no"}, "reasoning"),
        (["A?"], r"\(whole record\)"),
    ],
)
def test_a_question_that_cannot_be_read_is_named(tmp_path, record, field):
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"question": "A?"}) + "\n" + json.dumps(record))
    with pytest.raises(UserError, match=rf"q\.jsonl: record 1, field {field}: "):
        read_questions(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda questions: questions[1:],
        lambda questions: questions[:1],
        lambda questions: [*questions[:1], replace(questions[1], text="Is it not?"), *questions[2:]],
        lambda questions: [*questions[:1], replace(questions[1], images=("b.png",)), *questions[2:]],
        lambda questions: [questions[1], questions[0], *questions[2:]],
    ],
)
def test_questions_that_changed_before_a_resume_are_refused(model, films, tmp_path, change):
    questions = [Question(f"Question {n}?", (str(films / "gone.png"),)) for n in range(2)]
    out = tmp_path / "out.jsonl"
    assert answer_file(model, questions, out, GREEDY, 0, batch=2) == (2, 2)
    more = [*questions, Question("One more?", (str(films / "gone.png"),))]
    written = out.read_bytes()
    with pytest.raises(UserError, match=r"out\.jsonl, line [12], answers .*; give another --out"):
        answer_file(model, change(more), out, GREEDY, 0, batch=2)
    assert out.read_bytes() == written
    assert answer_file(model, more, out, GREEDY, 0, batch=2) == (1, 1)


def run(*arguments):
    program = [sys.executable, "-m", "chestx_jax.generate", *arguments]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, env=dict(os.environ))


def test_the_command_prints_json_and_refuses_in_one_sentence(folder, model, films):
    question = [f"--model=hf:{folder}", "--question=Is it clear?", "--length=12"]
    done = run(*question, f"--image={films / 'a.dcm'}", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["tokens"], answer["finished"]) == (len(answer["ids"]), len(answer["ids"]) < 12)
    for arguments, complaint in {
        (*question, f"--image={films / 'gone.png'}"): "gone.png cannot be opened",
        (f"--model=hf:{folder}",): "either --question",
        ("--model=hf:nowhere", "--question=A?"): "is no folder",
    }.items():
        done = run(*arguments)
        assert done.returncode == 2
        assert complaint in done.stderr
        assert done.stderr.count("\n") == 1
