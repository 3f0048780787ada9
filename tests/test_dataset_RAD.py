"""dataset_RAD.py: text rules against the official code's fixtures, the real development split, blemishes, bad input, download, phantom."""

import hashlib
import http.server
import json
import math
import os
import pickle
import struct
import sys
import threading
import tracemalloc
import types
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

import dataset_RAD as rad
from utils import UserError, run_main

SHARED = Path(rad.__file__).resolve().parent.parent / "shared"


def shared(*parts):
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path


def load(*parts):
    return json.loads(shared(*parts).read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def no_real_folders(tmp_path, monkeypatch):
    """No test reads or writes the real data_RAD, the user's cache or the network."""
    monkeypatch.setenv("CMSA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rad, "DATA_RAD", tmp_path / "data_RAD")
    monkeypatch.setattr(rad, "OSF_API", "http://127.0.0.1:9/none/")


# ---------------------------------------------------------------- text rules


def test_questions_match_the_official_code():
    for question, words in load("parity", "questions.json"):
        assert rad.tokenize(question) == words, question


def test_answers_match_the_official_code():
    for answer, normal in load("parity", "answers.json"):
        assert rad.normalise_answer(answer) == normal, answer


@pytest.mark.parametrize(
    "answer, normal",
    [
        (4, "4"),
        ("A/P", "p"),
        ("1,000 mL.", "1000 ml"),
        ("3.4 cm.", "3.4 cm"),
        ("couldnt've", "couldn't've"),
        ("dont", "don't"),
        ("lets", "lets"),
        ("Ten ribs", "10 ribs"),
        ("The x-ray", "xray"),
        ("right-sided", "right sided"),
        ("MRI - T1", "mri t1"),
        ("", ""),
    ],
)
def test_answer_rules(answer, normal):
    assert rad.normalise_answer(answer) == normal


def test_encode_pads_cuts_and_reports_unknown_words():
    word2idx = {"is": 0, "it": 1}
    assert rad.encode("Is it, LARGE?", word2idx) == ([0, 1] + [2] * 10, ["large"])
    assert rad.encode("is " * 20, word2idx, 5) == ([0] * 5, [])


def test_vocabulary_of_the_development_split():
    facts, train = load("parity", "vocabulary.json"), load("vqa_rad", "trainset.json")
    words, answers = rad.build_dictionary(train), rad.build_answers(train)
    assert (len(words), len(answers)) == (facts["ntoken"], facts["num_answers"])
    for values, what in ((words, "words"), (answers, "answers")):
        first, last = facts["first_" + what], facts["last_" + what]
        assert values[: len(first)] == first and values[-len(last) :] == last
    coverage, known = facts["test_answer_coverage"], set(answers)
    test = load("vqa_rad", "testset.json")
    for part, chosen in (
        ("all", test),
        ("freeform", [r for r in test if r["phrase_type"] == "freeform"]),
        ("open", [r for r in test if r["answer_type"] == "OPEN"]),
        ("closed", [r for r in test if r["answer_type"] != "OPEN"]),
    ):
        assert (
            round(100 * np.mean([rad.normalise_answer(r["answer"]) in known for r in chosen]), 2)
            == coverage[part]
        )


# ---------------------------------------------------------------- the development split


def content(record):
    return tuple(str(record[field]) for field in rad._FIELDS[1:])


def test_public_form_converts_to_the_processed_one():
    train, test = rad.convert_public(load("vqa_rad_public", rad.PUBLIC_JSON))
    assert (
        len(train) == 2329
        and len(test) == 451
        and sum(r["phrase_type"] == "frame" for r in train) == 983
    )
    assert Counter(map(content, test)) == Counter(map(content, load("vqa_rad", "testset.json")))
    processed = load("vqa_rad", "trainset.json")
    plain = [
        Counter(content(r) for r in records if r["phrase_type"] != "frame")
        for records in (train, processed)
    ]
    assert plain[0] == plain[1]
    assert not Counter(map(content, train)) - Counter(
        map(content, processed)
    )  # frames of the absent test records aside
    for records in (train, test):
        assert [r["qid"] for r in records] == sorted(r["qid"] for r in records)


@pytest.fixture(scope="module")
def development(tmp_path_factory):
    folder = tmp_path_factory.mktemp("development")
    for name in ("trainset.json", "testset.json", "images"):
        (folder / name).symlink_to(shared("vqa_rad", name))
    return rad.prepare(folder, say=lambda line: None)


def test_leak_of_the_development_split(development):
    clean = rad.training_questions(development, "clean")
    assert len(development.train) == len(rad.training_questions(development, "official")) == 2613
    assert len(development.train) - len(clean) == 239 == sum(q.twin for q in development.test)
    assert not any(q.twin for q in development.train)
    assert (development.ntoken, development.num_answers, development.name) == (
        1055,
        405,
        "VQA-RAD, processed split",
    )
    with pytest.raises(UserError):
        rad.training_questions(development, "other")


def test_blemishes_of_the_real_split(development):
    types_seen = Counter(
        name for q in development.train + development.test for name in q.question_types
    )
    assert {q.answer_type for q in development.train} == {"OPEN", "CLOSED"}
    assert "PRSE" not in types_seen and "ATRIB" not in types_seen and types_seen["OTHER"] == 171
    assert all(len(q.tokens) == 12 and max(q.tokens) <= 1055 for q in development.test)
    assert sum(q.label == -1 for q in development.test) == 65


@pytest.mark.parametrize("split", ["official", "clean"])
@pytest.mark.parametrize("fraction", [0.0001, 0.1, 0.5])
def test_validation_part_mirrors_the_protocol(development, split, fraction):
    questions = rad.training_questions(development, split)
    train, val = rad.split_validation(questions, fraction, split, 3)
    again = rad.split_validation(questions, fraction, split, 3)
    assert again == (train, val) and rad.split_validation(questions, fraction, split, 4)[1] != val
    plain = [q for q in questions if q.phrase_type != "frame"]
    assert (
        max(1, round(fraction * len(plain))) <= len(val) <= max(1, round(fraction * len(plain))) + 8
    )
    assert {q.phrase_type for q in val} <= {"freeform", "para"}
    drawn = {q.qid for q in val}
    assert not drawn & {q.qid for q in train}
    frames = {q.qid for q in questions if q.phrase_type == "frame"}
    assert all(q.twin == (q.qid + 1 in frames) for q in val)
    kept = {q.qid for q in train if q.phrase_type == "frame"}
    assert frames - kept == ({q + 1 for q in drawn} & frames if split == "clean" else set())
    assert len(train) + len(val) + len(frames - kept) == len(questions)
    for a, b in zip(plain, plain[1:]):
        if a.image == b.image and (
            a.answer == b.answer or "para" in (a.phrase_type, b.phrase_type)
        ):
            assert (a.qid in drawn) == (b.qid in drawn)


def test_validation_fraction_limits(development):
    assert rad.split_validation(development.train, 0, "official", 0) == (development.train, [])
    for fraction in (1, -0.1, 1.5, float("nan"), "0.1"):
        with pytest.raises(UserError, match="fraction"):
            rad.split_validation(development.train, fraction, "official", 0)


def test_images_are_read_by_row(development):
    rows = [7, 0, 7, 313]
    images = rad.load_images(development.images_path, rows)
    assert images.dtype == torch.uint8 and images.shape == (4, 224, 224, 3)
    for image, row in zip(images, rows):
        with Image.open(development.folder / "images" / development.image_names[row]) as picture:
            expected = picture.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
        assert np.array_equal(image.numpy(), np.asarray(expected))
    floats = rad.to_float(images)
    assert (
        floats.shape == (4, 3, 224, 224)
        and floats.dtype == torch.float32
        and floats.is_contiguous()
    )
    expected = (images[1, 5, 9].double() / 255 - torch.tensor(rad.MEAN)) / torch.tensor(rad.STD)
    assert torch.allclose(floats[1, :, 5, 9].double(), expected, atol=1e-5)


class Rows(torch.utils.data.Dataset):
    def __init__(self, store):
        self.store = store

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return self.store[[i]][0]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_image_store_in_workers(development, context):
    store = rad.ImageStore(development.images_path)
    expected = store[range(8)]  # opened here first, then inherited
    loader = torch.utils.data.DataLoader(
        Rows(store), batch_size=4, num_workers=2, multiprocessing_context=context
    )
    assert torch.equal(torch.cat(list(loader)), expected)


def test_glove_of_the_development_split(development):
    said, folder = [], shared("glove")
    table, description = rad.load_embedding(
        development, "glove", None, [None, "/none", folder], said.append
    )
    assert (
        table.shape == (1055, 100)
        and table.dtype == np.float32
        and "100d" in said[0]
        and "100d" in description
    )
    with open(folder / "glove.6B.100d.txt", encoding="utf-8") as file:
        row = next(line for line in file if line.startswith("lungs ")).split()[1:]
    assert np.allclose(table[development.dictionary.index("lungs")], np.array(row, float))
    again, _ = rad.load_embedding(development, "glove", 100, [folder], said.append)
    assert np.array_equal(again, table) and said[0] == said[1]
    assert rad.load_embedding(development, "glove", 300, [folder]) is None
    assert rad.load_embedding(development, "biowordvec", None, [folder]) is None


# ---------------------------------------------------------------- small made-up folders


def record(qid, **changes):
    number = int(qid) if str(qid).isdigit() else 0
    return {
        "qid": qid,
        "image_name": f"i{number % 3}.jpg",
        "image_organ": rad.ORGANS[number % 3],
        "answer": "Yes",
        "answer_type": "CLOSED",
        "question_type": "PRES",
        "question": "Is the lung normal?",
        "phrase_type": "freeform",
    } | changes


def draw_images(folder, count=3):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        shape = [(40, 30, 3), (250, 300), (224, 224, 3)][i % 3]  # colour, grey, colour
        pixels = np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"i{i}.jpg", quality=95)


def processed(folder, train=None, test=None, images="images"):
    folder.mkdir(parents=True, exist_ok=True)
    train = (
        [record(1), record(2, phrase_type="frame"), record(4, answer="No")]
        if train is None
        else train
    )
    (folder / "trainset.json").write_text(json.dumps(train))
    (folder / "testset.json").write_text(json.dumps([record(3)] if test is None else test))
    draw_images(folder / images)
    return folder


def public(folder):
    folder.mkdir(parents=True, exist_ok=True)
    records = [
        record("0", phrase_type="test_freeform", question_frame="Is/Are the lung normal?"),
        record(6, question_frame=None),
        record(3, phrase_type="para", question_frame="NULL"),
        record(9, question_frame=" ? "),
    ]
    (folder / rad.PUBLIC_JSON).write_text(json.dumps(records))
    draw_images(folder / rad.IMAGE_FOLDER, 1)
    return folder


def quiet(line):
    pass


def error_of(folder):
    """The one-line message of a folder that can't be used; nothing may be left behind in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError) as caught:
            rad.prepare(folder, say=quiet)
    assert "\n" not in str(caught.value)
    assert not (Path(folder) / "prepared").exists()
    return str(caught.value)


@pytest.mark.parametrize("images", ["images", "VQA_RAD Image Folder", "."])
def test_processed_form_with_blemishes(tmp_path, images):
    test = [
        record(
            "3",
            answer=4,
            answer_type="CLOSED ",
            question_type="PRSE, Atrib, Other",
            phrase_type="test_para",
        ),
        record(
            9,
            image_organ="chest ",
            answer="dont know",
            question="one two three four five six seven eight nine ten eleven twelve thirteen",
        ),
    ]
    data = rad.prepare(processed(tmp_path / "d", test=test, images=images), say=quiet)
    first, second = data.test
    assert (first.qid, first.answer, first.raw_answer, first.label) == (3, "4", "4", -1)
    assert (first.answer_type, first.phrase_type) == ("CLOSED", "para")
    assert first.question_types == ("PRES", "ATTRIB", "OTHER") and first.twin is False
    assert (
        second.organ == 2
        and second.tokens == (data.ntoken,) * 12
        and len(second.unknown_words) == 12
    )
    assert second.answer == "don't know"
    assert data.answers == ["yes", "no"] and data.dictionary == ["is", "the", "lung", "normal"]
    assert data.image_names == ["i0.jpg", "i1.jpg", "i2.jpg"]
    assert "3 images" in "\n".join(rad.summary(data))
    with h5py.File(data.images_path) as file:
        assert file["images"].shape == (3, 224, 224, 3) and file["images"].chunks == (
            1,
            224,
            224,
            3,
        )
        assert (
            list(file["names"].asstr()) == data.image_names
            and file.attrs["size"] == 224
            and file.attrs["source digest"] == data.digest
        )
    assert json.loads((data.prepared / "dictionary.json").read_text()) == data.dictionary
    assert sorted(p.name for p in data.prepared.iterdir()) == [
        "answers.json",
        "dictionary.json",
        "digests.json",
        "images224x224.h5",
    ]


def test_public_form(tmp_path):
    data = rad.prepare(public(tmp_path), say=quiet)
    assert data.name == "VQA-RAD, public release" and not data.phantom
    assert [(q.qid, q.phrase_type) for q in data.train] == [
        (2, "frame"),
        (3, "para"),
        (4, "freeform"),
        (5, "freeform"),
    ]
    assert [(q.qid, q.phrase_type, q.twin) for q in data.test] == [(1, "freeform", True)]
    assert [q.qid for q in rad.training_questions(data, "clean")] == [3, 4, 5]


def test_sixteen_bit_and_transparent_images(tmp_path):
    Image.fromarray(np.full((20, 20), 257 * 100, np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGBA", (20, 20), (10, 20, 30, 128)).save(tmp_path / "clear.png")
    assert (rad.read_image(tmp_path / "deep.png") == 100).all() and (
        rad.read_image(tmp_path / "clear.png") == (10, 20, 30)
    ).all()


BAD_RECORDS = [
    ({"answer": None}, ["record 1 ", "qid 4", "'answer'"]),
    ({"image_name": "../x.jpg"}, ["record 1 ", "../x.jpg"]),
    ({"image_name": "a/b.jpg"}, ["a/b.jpg"]),
    ({"image_name": "a\\b.jpg"}, ["file name"]),
    ({"image_name": ""}, ["file name"]),
    ({"image_organ": "FOOT"}, ["FOOT", "ABD, HEAD, CHEST"]),
    ({"answer_type": "MAYBE"}, ["MAYBE", "OPEN or CLOSED"]),
    ({"question": "  "}, ["question is empty"]),
    ({"question": "??"}, ["question is empty"]),
    ({"qid": 1}, ["qid 1 ", "more than once"]),
    ({"qid": 3}, ["qid 3 ", "more than once"]),
    ({"qid": "x"}, ["whole number"]),
    ({"qid": True}, ["whole number"]),
    ({"qid": 1.5}, ["whole number"]),
    ({"qid": [1]}, ["whole number"]),
    ({"phrase_type": "other"}, ["phrase_type"]),
    ({"answer": ["a"]}, ["'answer'", "list"]),
    ({"question": 3}, ["'question'", "int"]),
    ({"question": "\ud800 a"}, ["'question'"]),
    ({"image_name": "n" * 300 + ".jpg"}, ["nnn", "damaged"]),
]


@pytest.mark.parametrize("change, words", BAD_RECORDS)
def test_bad_records(tmp_path, change, words):
    message = error_of(processed(tmp_path / "d", train=[record(1), record(4) | change]))
    for word in words:
        assert word in message


def test_missing_field_is_named(tmp_path):
    bad = record(4)
    del bad["question_type"]
    message = error_of(processed(tmp_path / "d", train=[record(1), bad]))
    assert (
        "trainset.json, record 1 (counting from 0, qid 4) lacks the field 'question_type'"
        in message
    )


@pytest.mark.parametrize(
    "text, words",
    [
        ('[{"qid": 1,', "not valid JSON"),
        ("{}", "list of records"),
        ("[3]", "record 0"),
        ("[]", "no training"),
        ("", "not valid JSON"),
        ("\xff", "not valid JSON"),
    ],
)
def test_bad_json(tmp_path, text, words):
    folder = processed(tmp_path / "d")
    (folder / "trainset.json").write_text(text, encoding="latin1")
    assert words in error_of(folder)


def test_empty_test_part_and_missing_pieces(tmp_path):
    assert "no test questions" in error_of(processed(tmp_path / "a", test=[]))
    assert "frame" in error_of(processed(tmp_path / "b", test=[record(3, phrase_type="frame")]))
    assert "no such folder" in error_of(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    message = error_of(tmp_path / "empty")
    assert all(
        name in message
        for name in (rad.PUBLIC_JSON, "trainset.json", "dictionary.pkl", "--RAD_dir")
    )
    folder = processed(tmp_path / "c")
    (folder / "testset.json").unlink()
    assert "testset.json" in error_of(folder)


def bomb(path):
    """A small file that holds a very large image."""
    Image.new("1", (10000, 10000)).save(path, "PNG")  # PIL itself would only warn


def test_all_bad_images_are_listed_at_once(tmp_path):
    folder = processed(
        tmp_path / "d", train=[record(i, image_name=f"j{i}.jpg") for i in range(10, 40)]
    )
    good = (folder / "images" / "i0.jpg").read_bytes()
    for i in range(10, 40):
        (folder / "images" / f"j{i}.jpg").write_bytes(good)
    (folder / "images" / "j10.jpg").write_bytes(good[: len(good) // 2])
    (folder / "images" / "j11.jpg").write_text("not an image")
    bomb(folder / "images" / "j12.jpg")
    message = error_of(folder)
    assert "3 of 31" in message and all(f"j{i}.jpg (damaged" in message for i in (10, 11, 12))
    (folder / "images" / "j13.jpg").unlink()
    message = error_of(folder)
    assert "4 of 31" in message and "j13.jpg (missing)" in message and "j12.jpg" in message
    for i in range(13, 40):
        (folder / "images" / f"j{i}.jpg").unlink(missing_ok=True)
    message = error_of(folder)
    assert "30 of 31" in message and "and 10 more" in message


def test_rebuilt_only_when_the_source_changed(tmp_path):
    folder, said = processed(tmp_path / "d"), []
    first = rad.prepare(folder, say=said.append)
    again = rad.prepare(folder, say=said.append)
    assert len(said) == 1 and again == first
    Image.new("RGB", (9, 9), (200, 0, 0)).save(folder / "images" / "i1.jpg", quality=95)
    changed = rad.prepare(folder, say=said.append)
    assert len(said) == 2 and changed.digest != first.digest
    assert abs(int(rad.load_images(changed.images_path, [1])[0, 5, 5, 0]) - 200) < 4
    (folder / "trainset.json").write_text(json.dumps([record(1, question="why")]))
    assert (
        rad.prepare(folder, say=said.append).dictionary
        == json.loads((folder / "prepared" / "dictionary.json").read_text())
        == ["why"]
    )
    for damage in ("images224x224.h5", "dictionary.json", "digests.json"):
        path = folder / "prepared" / damage
        path.write_bytes(path.read_bytes()[:-5])
        rad.prepare(folder, say=said.append)
    assert len(said) == 6
    before = (folder / "prepared" / "images224x224.h5").read_bytes()
    (folder / "images" / "i1.jpg").write_text("no image")
    with pytest.raises(UserError, match="i1.jpg"):
        rad.prepare(folder, say=quiet)
    assert (folder / "prepared" / "images224x224.h5").read_bytes() == before


def test_read_only_folder_uses_the_cache(tmp_path, monkeypatch):
    folder, cache = processed(tmp_path / "d"), tmp_path / "cache"
    real = rad.writable
    monkeypatch.setattr(
        rad, "writable", lambda place: folder not in Path(place).parents and real(place)
    )
    data = rad.prepare(folder, say=quiet)
    assert (
        data.prepared.parent == cache
        and data.images_path.is_file()
        and not (folder / "prepared").exists()
    )
    said = []
    assert rad.prepare(folder, say=said.append) == data and not said
    monkeypatch.setattr(rad, "writable", lambda place: False)
    assert rad.prepare(folder, say=said.append) == data
    (folder / "trainset.json").write_text(json.dumps([record(1)]))
    with pytest.raises(UserError, match="CMSA_CACHE"):
        rad.prepare(folder, say=quiet)


def test_folder_marked_read_only_is_left_alone(tmp_path):
    folder = processed(tmp_path / "d")
    folder.chmod(0o555)
    data = rad.prepare(folder, say=quiet)
    assert data.prepared.parent == tmp_path / "cache" and not (folder / "prepared").exists()
    folder.chmod(0o755)


# ---------------------------------------------------------------- word tables


def glove(folder, text):
    (folder / "glove.6B.50d.txt").write_text(text)
    return folder


def row(word, value, dim=50):
    return " ".join([word] + [str(value)] * dim)


def test_glove_rows_header_and_cache(tmp_path):
    data = rad.prepare(processed(tmp_path / "d"), say=quiet)
    said = []
    glove(tmp_path, f"2 50\n{row('lung', 0.5)}\n{row('other', 1)}\n{row('is', 0.25)} \n")
    table, _ = rad.load_embedding(data, "glove", None, [tmp_path], said.append)
    assert (
        said == ["GloVe 50d: 2 of 4 words found"]
        and (table[2] == 0.5).all()
        and (table[0] == 0.25).all()
    )
    assert 0 < np.abs(table[1]).mean() < 0.3 and np.array_equal(
        np.load(data.prepared / "embedding_glove_50d.npy"), table
    )
    glove(tmp_path, f"{row('lung', 0.75)}\n")
    changed, _ = rad.load_embedding(data, "glove", 50, [tmp_path], said.append)
    assert (changed[2] == 0.75).all() and np.array_equal(changed[1], table[1])
    (data.prepared / "embedding_glove_50d.npy").write_bytes(b"damaged")
    assert np.array_equal(
        rad.load_embedding(data, "glove", 50, [tmp_path], said.append)[0], changed
    )
    assert (
        rad.prepare(data.folder, say=said.append) == data and len(said) == 3
    )  # the other files stay current


@pytest.mark.parametrize(
    "text",
    [
        row("is", 1) + "\nword 1 2\n",
        row("is", 1) + "\n" + row("lung", "x") + "\n",
        row("is", 1) + "\n" + row("lung", "nan") + "\n",
        row("is", 1) + "\n\n",
    ],
)
def test_bad_glove_line_is_named(tmp_path, text):
    data = rad.prepare(processed(tmp_path / "d"), say=quiet)
    with pytest.raises(UserError, match="line 2"):
        rad.load_embedding(data, "glove", 50, [glove(tmp_path, text)], quiet)
    assert not list(data.prepared.glob("embedding*"))


def test_authors_tables(tmp_path):
    data, said = rad.prepare(processed(tmp_path / "d"), say=quiet), []
    path = tmp_path / "biowordvec_init_200d.npy"
    np.save(path, np.ones((data.ntoken, 200)))
    table, _ = rad.load_embedding(data, "biowordvec", None, [tmp_path], said.append)
    assert table.shape == (4, 200) and table.dtype == np.float32
    np.save(path, np.ones((7, 200)))
    assert (
        rad.load_embedding(data, "biowordvec", 200, [tmp_path], said.append) is None
        and "another dictionary" in said[-1]
    )
    for content in (np.array([{}], object), None):
        path.write_bytes(b"junk") if content is None else np.save(path, content, allow_pickle=True)
        with pytest.raises(UserError, match="biowordvec_init"):
            rad.load_embedding(data, "biowordvec", 200, [tmp_path], quiet)


def zipped(path, method=zipfile.ZIP_DEFLATED, **members):
    """glove.6B.zip with members such as glove.6B.50d.txt from d50="text"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for dim, text in members.items():
            archive.writestr(f"glove.6B.{dim[1:]}d.txt", text)
    return path


def test_glove_zip_and_the_widest_of_all_forms(tmp_path):
    data, said = rad.prepare(processed(tmp_path / "d"), say=quiet), []
    path = zipped(
        tmp_path / "d" / "glove" / "glove.6B.zip",
        d50=row("lung", 1),
        d100=f"{row('is', 2, 100)}\n{row('lung', 3, 100)}\n",
        d20="other",
    )
    table, description = rad.find_embedding(
        data, "glove", said.append
    )  # a member without a last line feed reads too
    assert (
        table.shape == (4, 100)
        and (table[0] == 2).all()
        and (table[2] == 3).all()
        and said == ["GloVe 100d: 2 of 4 words found"]
    )
    assert str(path) in description and sorted(os.listdir(path.parent)) == [
        "glove.6B.zip"
    ]  # nothing is unpacked
    assert (rad.load_embedding(data, "glove", 50, [path.parent], quiet)[0][2] == 1).all()
    (tmp_path / "data_RAD").mkdir()
    for dim, value, expected in (
        (50, 4, 3),
        (100, 5, 5),
        (200, 6, 6),
    ):  # narrower loses; of one width plain text is taken; wider wins
        (tmp_path / "data_RAD" / f"glove.6B.{dim}d.txt").write_text(row("lung", value, dim))
        assert (rad.find_embedding(data, "glove", quiet)[0][2] == expected).all()
    zipped(
        tmp_path / "cache" / "glove.6B.zip", zipfile.ZIP_STORED, d300=row("lung", 7, 300)
    )  # where --download_glove may have to put it
    assert rad.find_embedding(data, "glove", quiet)[0].shape == (4, 300)


def test_zip_is_read_anew_only_when_it_changed(tmp_path, monkeypatch):
    data = rad.prepare(processed(tmp_path / "d"), say=quiet)
    path = zipped(tmp_path / "glove.6B.zip", d50=row("lung", 1))
    first = rad.load_embedding(data, "glove", None, [tmp_path], quiet)[0]
    with monkeypatch.context() as patch:
        patch.setattr(rad, "_read_embedding", None)
        assert np.array_equal(rad.load_embedding(data, "glove", None, [tmp_path], quiet)[0], first)
    zipped(path, d50=row("lung", 2) + "\n")
    assert (rad.load_embedding(data, "glove", None, [tmp_path], quiet)[0][2] == 2).all()


def error_of_table(data, name, folder):
    """The one-line message of a word table that can't be used; nothing of it may be kept."""
    with pytest.raises(UserError) as caught:
        rad.load_embedding(data, name, None, [folder], quiet)
    assert "\n" not in str(caught.value) and not list(data.prepared.glob("embedding*"))
    return str(caught.value)


def test_damaged_zips(tmp_path):
    data = rad.prepare(processed(tmp_path / "d"), say=quiet)
    text = "".join(row(word, i, 50) + "\n" for i, word in enumerate(("is", "lung", "the")))
    path = zipped(tmp_path / "glove.6B.zip", zipfile.ZIP_STORED, d50=text)
    whole = path.read_bytes()
    at = whole.index(b"the 2 2")  # a word that is not wanted: only the checksum can tell
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[whole.index(b"PK\x01\x02") + 8] |= 1
    for content in (
        b"",
        b"not a zip",
        whole[:-30],
        whole[len(whole) // 2 :],
        whole[:at] + b"thx" + whole[at + 3 :],
        bytes(encrypted),
    ):
        path.write_bytes(content)
        message = error_of_table(data, "glove", tmp_path)
        assert str(path) in message and "get it again" in message and "--download_glove" in message
    for method, members in (
        (zipfile.ZIP_DEFLATED, {"d60": text}),
        (zipfile.ZIP_LZMA, {"d50": text}),
    ):
        zipped(path, method, **members)
        assert "no glove.6B.300d.txt" in error_of_table(data, "glove", tmp_path)
    zipped(path, d50=text + "word 1 2\n")
    assert f"{path}, line 4" in error_of_table(data, "glove", tmp_path)
    random = np.random.default_rng(0)
    for _ in range(300):  # whatever is damaged, it reads right or is one clear line
        content = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            content[place] = random.integers(256)
        path.write_bytes(content)
        try:
            rad._read_embedding(path, data.dictionary, rad._tables("glove", [tmp_path])[0][0])
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)


def peak_memory(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_zip_bombs_need_little_memory(tmp_path):
    data = rad.prepare(processed(tmp_path / "d"), say=quiet)
    path = tmp_path / "glove.6B.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("glove.6B.50d.txt", "w") as member,
    ):
        for _ in range(200):  # one line of 200 MB
            member.write(b"0 " * (1 << 19))
    assert path.stat().st_size < 1 << 20
    assert peak_memory(lambda: error_of_table(data, "glove", tmp_path)) < 16 << 20
    with pytest.raises(UserError, match=f"{path}, line 1"):
        rad.load_embedding(data, "glove", None, [tmp_path], quiet)
    zipped(
        path, d50=(row("other", 1) + "\n") * 300_000 + row("lung", 2)
    )  # 30 MB of lines: read through
    tables = []
    assert (
        peak_memory(
            lambda: tables.append(rad.load_embedding(data, "glove", None, [tmp_path], quiet)[0])
        )
        < 16 << 20
    )
    assert (tables[0][2] == 2).all()


def binary(path, words, dim=8, between=b"", header=None, after=b""):
    """A table in word2vec's binary form; the numbers of word i are i + 0.5."""
    body = between.join(
        word.encode() + b" " + struct.pack(f"<{dim}f", *[i + 0.5] * dim)
        for i, word in enumerate(words)
    )
    path.write_bytes(
        (f"{len(words)} {dim}\n".encode() if header is None else header) + body + between + after
    )
    return path


@pytest.mark.parametrize("between", [b"", b"\n"])
@pytest.mark.parametrize("block", [48, 50, 100, 1 << 22])
def test_binary_table(tmp_path, monkeypatch, between, block):
    data, said = (
        rad.prepare(
            processed(tmp_path / "d", [record(1, question="Is the lung naïve?")]), say=quiet
        ),
        [],
    )
    monkeypatch.setattr(rad, "BLOCK", block)
    path = binary(
        tmp_path / "myBIOvec.BIN",
        ["</s>", "lung", "", "lungs", "a" * 15, "naïve", "the", "zz"],
        between=between,
    )
    (tmp_path / "other.bin").write_bytes(b"junk")  # not named like it
    (tmp_path / "bio.bin").mkdir()
    table, description = rad.load_embedding(data, "biowordvec", None, [tmp_path], said.append)
    assert (
        said == ["BioWordVec 8d: 3 of 4 words found"]
        and str(path) in description
        and table.dtype == np.float32
    )
    assert [float(table[i, 7]) for i in (1, 2, 3)] == [6.5, 1.5, 5.5] and (
        table[1:] == table[1:, :1]
    ).all()
    assert table.shape == (4, 8) and 0 < np.abs(table[0]).mean() < 0.3  # "is" is not in it
    assert rad.load_embedding(data, "glove", None, [tmp_path], quiet) is None
    monkeypatch.setattr(rad, "_read_embedding", None)  # kept
    assert (
        np.array_equal(rad.load_embedding(data, "biowordvec", 8, [tmp_path], said.append)[0], table)
        and said[0] == said[1]
    )


def test_damaged_binary_tables(tmp_path):
    data = rad.prepare(processed(tmp_path / "d"), say=quiet)
    path, words = tmp_path / "bio.bin", ["is", "lung", "other"]
    whole = binary(path, words).read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        message = error_of_table(data, "biowordvec", tmp_path)
        assert str(path) in message and (
            "get it again" in message
            if end > 3
            else "BioWordVec_PubMed_MIMICIII_d200.vec.bin" in message
        )
    for header in (
        b"",
        b"3\n",
        b"3 8 1\n",
        b"3 x\n",
        b"-3 8\n",
        b"0 8\n",
        b"3 0\n",
        b"3 99999999999\n",
        b"9" * 100 + b" 8\n",
        b"\xba\x16O/\n",
    ):
        binary(path, words, header=header)
        assert "not word vectors in word2vec's binary form" in error_of_table(
            data, "biowordvec", tmp_path
        )
    for change in ({"header": b"4 8\n"}, {"header": b"3 9\n"}):
        binary(path, words, **change)
        assert "get it again" in error_of_table(data, "biowordvec", tmp_path)
    path.write_bytes(
        whole[: -4 * 8 - 6 - 4] + struct.pack("<f", float("nan")) + whole[-4 * 8 - 6 :]
    )
    assert "word 2" in error_of_table(data, "biowordvec", tmp_path)
    path.write_bytes(b"5 8\n" + bytes(20 << 20))  # no space anywhere
    assert "ends within word 1 of 5" in error_of_table(data, "biowordvec", tmp_path)
    binary(
        path, words, after=b"more"
    )  # what stands behind the announced words is nobody's business
    assert rad.load_embedding(data, "biowordvec", None, [tmp_path], quiet) is not None


def test_binary_table_needs_little_memory(tmp_path):
    data = rad.prepare(processed(tmp_path / "d"), say=quiet)
    path = tmp_path / "BioWordVec_PubMed_MIMICIII_d200.vec.bin"
    with open(path, "wb") as file:
        file.write(b"50000 200\n")
        for i in range(50_000):
            file.write(
                (b"lung " if i == 49_999 else b"word%d " % i) + struct.pack("<f", 0.25) * 200
            )
    tables = []
    assert (
        peak_memory(
            lambda: tables.append(
                rad.load_embedding(data, "biowordvec", None, [tmp_path], quiet)[0]
            )
        )
        < 20 << 20
    )
    assert path.stat().st_size > 36 << 20 and (tables[0][2] == 0.25).all()


# ---------------------------------------------------------------- the authors' archive

WORDS, ANSWERS = ["normal", "is", "lung", "the", "extra"], ["no", "yes", "maybe"]


def archive(folder, protocol=2, images=False):
    """A small archive in which the images are in the pickle only, unless `images`."""
    processed(folder)
    (folder / "cache").mkdir(exist_ok=True)
    pixels = np.stack([rad.read_image(folder / "images" / f"i{i}.jpg") for i in (2, 0, 1)])
    floats = ((pixels / 255 - rad.MEAN) / rad.STD).transpose(0, 3, 1, 2).astype(np.float32)
    for name, value in (
        ("dictionary.pkl", [{w: i for i, w in enumerate(WORDS)}, WORDS]),
        ("cache/trainval_ans2label.pkl", {a: i for i, a in enumerate(ANSWERS)}),
        ("cache/trainval_label2ans.pkl", ANSWERS),
        ("images224x224.pkl", floats),
    ):
        (folder / name).write_bytes(pickle.dumps(value, protocol))
    (folder / "imgid2idx.json").write_text(json.dumps({"i2.jpg": 0, "i0.jpg": 1, "i1.jpg": 2}))
    if not images:
        for path in (folder / "images").iterdir():
            path.unlink()
    return folder, pixels[[1, 2, 0]]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_archive_form(tmp_path, protocol):
    folder, pixels = archive(tmp_path / "d", protocol)
    data = rad.prepare(folder, say=quiet)
    assert (data.name, data.dictionary, data.answers) == (
        "VQA-RAD, authors' archive",
        WORDS,
        ANSWERS,
    )
    assert np.array_equal(rad.load_images(data.images_path, [0, 1, 2]).numpy(), pixels)
    assert data.train[0].tokens[:4] == (1, 3, 2, 0) and data.train[0].label == 1


def test_archive_with_image_files_does_not_need_the_pickle(tmp_path):
    folder, pixels = archive(tmp_path / "d", images=True)
    (folder / "images224x224.pkl").unlink()
    assert np.array_equal(
        rad.load_images(rad.prepare(folder, say=quiet).images_path, [0, 1, 2]).numpy(), pixels
    )


class Hostile:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_hostile_pickle_does_not_run(tmp_path):
    folder, _ = archive(tmp_path / "d")
    for name in ("dictionary.pkl", "images224x224.pkl"):
        good = (folder / name).read_bytes()
        (folder / name).write_bytes(pickle.dumps([Hostile(tmp_path / "marker")]))
        message = error_of(folder)
        assert name in message and "mkdir" in message and not (tmp_path / "marker").exists()
        (folder / name).write_bytes(good)
    pickle.loads(pickle.dumps(Hostile(tmp_path / "marker")))  # it would have run
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "name, value",
    [
        ("images224x224.pkl", np.zeros((3, 224, 224, 3), np.float32)),
        ("images224x224.pkl", np.array([{}, []], object)),
        ("images224x224.pkl", np.full((3, 3, 224, 224), np.nan, np.float32)),
        ("images224x224.pkl", np.zeros(3, [("a", "O")])),
        ("images224x224.pkl", np.zeros((2, 3, 224, 224), np.float32)),
        ("images224x224.pkl", 5),
        ("images224x224.pkl", {1, 2}),
        ("dictionary.pkl", [{"a": 1}, ["a"]]),
        ("dictionary.pkl", ["a"]),
        ("dictionary.pkl", [{}, []]),
        ("dictionary.pkl", None),
        ("dictionary.pkl", [{"a": 0}, ["a", "a"]]),
        ("cache/trainval_label2ans.pkl", ["yes", "no"]),
        ("cache/trainval_ans2label.pkl", [0]),
    ],
)
def test_wrong_pickles(tmp_path, name, value):
    folder, _ = archive(tmp_path / "d")
    (folder / name).write_bytes(pickle.dumps(value))
    assert Path(name).name in error_of(folder)


def test_damaged_and_missing_pickles(tmp_path):
    folder, _ = archive(tmp_path / "d")
    good = (folder / "dictionary.pkl").read_bytes()
    for bad in (
        b"",
        b"junk",
        good[:-9],
        b"\x80\x04\x95" + b"\xff" * 8,
        pickle.dumps(np.ones(3), 2).replace(b"f8", b"O8"),
    ):
        (folder / "dictionary.pkl").write_bytes(bad)
        assert "dictionary.pkl" in error_of(folder)
    (folder / "dictionary.pkl").unlink()
    assert "but not dictionary.pkl" in error_of(folder)


# ---------------------------------------------------------------- finding, downloading, the phantom set


class Release(http.server.BaseHTTPRequestHandler):
    """Speaks as much of OSF's API as is needed: two pages, a folder, downloads with ranges."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        state, base = self.server, f"http://127.0.0.1:{self.server.server_port}"
        path = unquote(self.path.partition("?")[0])
        state.log.append((path, self.headers.get("Range")))

        def entry(name, folder=""):
            body = state.files[folder + name]
            about = {
                "kind": "file",
                "name": name,
                "size": len(body),
                "extra": {"hashes": {"sha256": hashlib.sha256(body).hexdigest()}},
            }
            return {"attributes": about, "links": {"download": f"{base}/get/{folder}{name}"}}

        folder = {
            "attributes": {"kind": "folder", "name": rad.IMAGE_FOLDER},
            "links": {},
            "relationships": {"files": {"links": {"related": {"href": f"{base}/list/folder"}}}},
        }
        pictures = sorted(name.split("/")[1] for name in state.files if "/" in name)
        lists = {
            "/list/": ([entry("Readme.docx")], f"{base}/list/2"),
            "/list/2": ([folder, entry(rad.PUBLIC_JSON)], None),
            "/list/folder": (
                [entry(name, rad.IMAGE_FOLDER + "/") for name in pictures[:2]],
                f"{base}/list/folder2",
            ),
            "/list/folder2": ([entry(name, rad.IMAGE_FOLDER + "/") for name in pictures[2:]], None),
        }
        if path in lists and state.mode != "away":
            items, following = lists[path]
            self.answer(200, json.dumps({"data": items, "links": {"next": following}}).encode())
        elif path == "/data/glove.6B.zip":
            self.send_response(302)
            self.send_header("Location", "/get/glove.6B.zip")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path.startswith("/get/") and state.mode != "away":
            body, status = state.files[path[5:]], 200
            if path[5:] in state.damage:
                state.damage.remove(path[5:])
                body = bytes(len(body))
            if (start := self.headers.get("Range")) and state.mode != "no ranges":
                body, status = body[int(start[6:-1]) :], 206
            if path[5:] in state.cut:  # the connection breaks half-way
                self.answer(status, body, body[: len(body) // 2])
                self.close_connection = True
                return
            self.answer(status, body)
        else:
            self.answer(503, b"")

    def do_HEAD(self):
        path, state = unquote(self.path), self.server
        state.log.append(("HEAD " + path, None))
        if path == "/data/glove.6B.zip":  # as at Stanford: it lies on another host
            self.send_response(302)
            self.send_header("Location", "/get/glove.6B.zip")
            self.send_header("Content-Length", "0")
        else:
            self.send_response(503 if state.mode == "away" else 200)
            if state.mode != "no length":
                self.send_header("Content-Length", str(len(state.files[path[5:]])))
        self.end_headers()

    def answer(self, status, body, sent=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if sent is None else sent)


@pytest.fixture
def release(tmp_path, monkeypatch):
    folder = public(tmp_path / "release")
    draw_images(folder / rad.IMAGE_FOLDER, 3)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Release)
    server.files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    server.files["Readme.docx"] = b"not wanted"
    server.log, server.damage, server.cut, server.mode = [], set(), set(), ""
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(rad, "OSF_API", f"http://127.0.0.1:{server.server_port}/list/")
    monkeypatch.setattr(rad.time, "sleep", lambda seconds: None)
    yield server
    server.shutdown()
    server.server_close()


def downloaded(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def wanted(release):
    return {name: body for name, body in release.files.items() if name != "Readme.docx"}


def test_download_and_use(tmp_path, release):
    data = rad.find_data(say=quiet)
    assert (
        data.name == "VQA-RAD, public release"
        and data.folder == tmp_path / "data_RAD" / "public"
        and not data.phantom
    )
    files = {
        name: body
        for name, body in downloaded(data.folder).items()
        if not name.startswith("prepared")
    }
    assert files == wanted(release)
    asked = len(release.log)
    assert rad.find_data(say=quiet) == data and len(release.log) == asked


@pytest.mark.parametrize("mode", ["", "no ranges"])
def test_download_resumes(tmp_path, release, mode):
    folder, name = tmp_path / "p", rad.IMAGE_FOLDER + "/i1.jpg"
    (folder / rad.IMAGE_FOLDER).mkdir(parents=True)
    (folder / rad.IMAGE_FOLDER / "i0.jpg").write_bytes(release.files[rad.IMAGE_FOLDER + "/i0.jpg"])
    (folder / (name + ".part")).write_bytes(release.files[name][:100])
    release.mode = mode
    rad.download_public(folder, say=quiet)
    assert downloaded(folder) == wanted(release)
    fetched = [entry for entry in release.log if entry[0].startswith("/get/")]
    assert len(fetched) == 3 and ("/get/" + name, "bytes=100-") in fetched


def test_damaged_file_is_fetched_again(tmp_path, release):
    release.damage = {rad.PUBLIC_JSON, rad.IMAGE_FOLDER + "/i1.jpg"}
    rad.download_public(tmp_path / "p", say=quiet)
    assert downloaded(tmp_path / "p") == wanted(release)


def test_broken_connection_stops_and_goes_on_later(tmp_path, release):
    release.cut = {rad.IMAGE_FOLDER + "/i1.jpg"}
    with pytest.raises(UserError, match="i1.jpg.*run the same command again"):
        rad.find_data(say=quiet)
    part = tmp_path / "data_RAD" / "public" / rad.IMAGE_FOLDER / "i1.jpg.part"
    assert (
        part.stat().st_size > len(release.files[rad.IMAGE_FOLDER + "/i1.jpg"]) * 0.6
    )  # each of the three tries went on
    assert not (tmp_path / "data_RAD" / "public" / rad.PUBLIC_JSON).exists()
    release.cut = set()
    assert rad.find_data(say=quiet).name == "VQA-RAD, public release"


def test_listing_without_images(tmp_path, release):
    release.files = {name: body for name, body in release.files.items() if "/" not in name}
    with pytest.raises(UserError, match="by hand"):
        rad.find_data(say=quiet)
    assert not (tmp_path / "data_RAD" / "public").exists()


@pytest.fixture
def phantom(monkeypatch):
    calls = []

    def draw(folder, seed=0):
        calls.append(seed)
        public(Path(folder))

    monkeypatch.setitem(sys.modules, "phantom_RAD", types.SimpleNamespace(draw=draw))
    return calls


def test_without_network_the_phantom_set_is_used_and_said_so(tmp_path, phantom):
    said = []
    data = rad.find_data(say=said.append)
    assert (
        data.phantom
        and data.name == "phantom set"
        and data.folder == tmp_path / "data_RAD" / "phantom"
        and phantom == [0]
    )
    text = "\n".join(said)
    assert (
        "can't be downloaded" in text and "PHANTOM" in text and "mean nothing for radiology" in text
    )
    assert str(tmp_path / "data_RAD") in text
    said.clear()
    assert (
        rad.find_data(say=said.append) == data and phantom == [0] and "PHANTOM" in "\n".join(said)
    )
    said.clear()
    assert rad.find_data(data.folder, say=said.append).phantom and "PHANTOM" in said[0]
    assert sorted(path.name for path in (tmp_path / "data_RAD").iterdir()) == ["phantom"]


def test_phantom_is_drawn_anew_by_another_version(tmp_path, phantom):
    folder = rad.find_data(download=False, say=quiet).folder
    (folder / rad.PHANTOM_MARK).write_text("another version")
    (folder / "stray").touch()
    assert (
        rad.find_data(download=False, say=quiet).phantom
        and phantom == [0, 0]
        and not (folder / "stray").exists()
    )


def test_phantom_in_the_cache_when_data_RAD_is_read_only(tmp_path, phantom, monkeypatch):
    real = rad.writable
    monkeypatch.setattr(
        rad, "writable", lambda place: "data_RAD" not in Path(place).parts and real(place)
    )
    assert rad.find_data(download=False, say=quiet).folder == tmp_path / "cache" / "phantom"


def test_service_away_and_slow(tmp_path, release, phantom, monkeypatch):
    release.mode, said = "away", []
    assert rad.find_data(say=said.append).phantom and "answered 503" in said[0]
    monkeypatch.setattr(rad, "CONNECT_SECONDS", 0.2)
    with pytest.raises(rad.NoNetwork):
        rad.download_public(tmp_path / "p", api="http://10.255.255.1/list/", say=quiet)


def test_order_of_the_search(tmp_path, phantom):
    public(tmp_path / "data_RAD" / "public")
    assert rad.find_data(say=quiet).name == "VQA-RAD, public release"
    processed(tmp_path / "data_RAD")
    assert rad.find_data(say=quiet).name == "VQA-RAD, processed split"
    archive(tmp_path / "given")
    assert rad.find_data(tmp_path / "given", say=quiet).name == "VQA-RAD, authors' archive"
    with pytest.raises(UserError, match="no such folder"):
        rad.find_data(tmp_path / "none", say=quiet)
    assert not phantom


def test_command_line(tmp_path, capsys):
    rad.main(["--RAD_dir", str(processed(tmp_path / "d"))])
    assert "3 images, 4 words, 2 answers" in capsys.readouterr().out
    with pytest.raises(UserError, match="no download"):
        rad.main(["--download"])


# ---------------------------------------------------------------- GloVe's download


@pytest.fixture
def stanford(tmp_path, release, monkeypatch):
    """The stand-in server with a glove.6B.zip of some 150 kB."""
    lines = "".join(
        f"w{i} " + " ".join(f"{v:.3f}" for v in values) + "\n"
        for i, values in enumerate(np.random.default_rng(0).normal(size=(1000, 50)))
    )
    release.files["glove.6B.zip"] = zipped(
        tmp_path / "made" / "glove.6B.zip", d50=lines + row("lung", 1)
    ).read_bytes()
    monkeypatch.setattr(
        rad, "GLOVE_URL", f"http://127.0.0.1:{release.server_port}/data/glove.6B.zip"
    )
    return release


def fetched(server):
    return [asked for path, asked in server.log if path == "/get/glove.6B.zip"]


def test_glove_is_downloaded_and_used(tmp_path, stanford, capsys):
    rad.main(["--download_glove"])
    path = tmp_path / "data_RAD" / "glove.6B.zip"
    assert (
        str(path) in capsys.readouterr().out and path.read_bytes() == stanford.files["glove.6B.zip"]
    )
    assert os.listdir(path.parent) == ["glove.6B.zip"] and fetched(stanford) == [None]
    rad.main(["--download_glove"])  # whole: not fetched again
    assert fetched(stanford) == [None]
    said, data = [], rad.prepare(processed(tmp_path / "d"), say=quiet)
    assert (rad.find_embedding(data, "glove", said.append)[0][2] == 1).all() and said == [
        "GloVe 50d: 1 of 4 words found"
    ]


def test_glove_goes_to_the_cache_when_data_RAD_is_read_only(tmp_path, stanford, monkeypatch):
    real = rad.writable
    monkeypatch.setattr(
        rad, "writable", lambda place: "data_RAD" not in Path(place).parts and real(place)
    )
    rad.main(["--download_glove"])
    assert (tmp_path / "cache" / "glove.6B.zip").is_file()
    assert rad.find_embedding(rad.prepare(processed(tmp_path / "d"), say=quiet), "glove", quiet)[
        0
    ].shape == (4, 50)


@pytest.mark.parametrize("mode", ["", "no ranges"])
def test_glove_download_resumes(tmp_path, stanford, mode):
    body, bars = stanford.files["glove.6B.zip"], []
    (tmp_path / "glove.6B.zip.part").write_bytes(body[:1000])
    stanford.mode = mode
    real = rad.tqdm

    def tqdm(*args, **kwargs):
        bars.append(real(*args, **kwargs | {"file": open(os.devnull, "w"), "disable": False}))
        return bars[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rad, "tqdm", tqdm)
        assert rad.download_glove(tmp_path, say=quiet).read_bytes() == body
    assert fetched(stanford) == ["bytes=1000-"] and not (tmp_path / "glove.6B.zip.part").exists()
    assert bars[0].n == bars[0].total == len(body)  # what was there counts once


def test_glove_download_stops_and_goes_on_later(tmp_path, stanford):
    body, stanford.cut = stanford.files["glove.6B.zip"], {"glove.6B.zip"}
    with pytest.raises(UserError, match="stopped at glove.6B.zip.*run the same command again"):
        rad.main(["--download_glove"])
    folder = tmp_path / "data_RAD"
    assert (
        os.listdir(folder) == ["glove.6B.zip.part"]
        and (folder / "glove.6B.zip.part").stat().st_size > len(body) * 0.6
    )
    stanford.cut = set()
    rad.main(["--download_glove"])
    assert (folder / "glove.6B.zip").read_bytes() == body


def test_damaged_glove_is_fetched_again(tmp_path, stanford):
    body, stanford.damage = stanford.files["glove.6B.zip"], {"glove.6B.zip"}
    at = (
        body.index(b"PK\x01\x02") - 100
    )  # damage that only the checksum shows, in a finished and in a partial file
    damaged = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
    (tmp_path / "glove.6B.zip").write_bytes(damaged)
    (tmp_path / "glove.6B.zip.part").write_bytes(damaged[:-50])
    assert rad.download_glove(tmp_path, say=quiet).read_bytes() == body
    assert fetched(stanford) == [f"bytes={len(body) - 50}-", None]
    stanford.files["glove.6B.zip"] = damaged  # the server's own is damaged
    with pytest.raises(UserError, match="checksum"):
        rad.download_glove(tmp_path / "new", say=quiet)
    assert not os.listdir(tmp_path / "new")


def test_no_glove_to_be_had(tmp_path, stanford, capsys, monkeypatch):
    stanford.mode = "no length"
    with pytest.raises(UserError, match="how large"):
        rad.download_glove(tmp_path / "new", say=quiet)
    stanford.mode = "away"
    with pytest.raises(UserError, match="answered 503.*get it from"):
        rad.main(["--download_glove"])
    monkeypatch.setattr(rad, "GLOVE_URL", "http://127.0.0.1:9/glove.6B.zip")
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        run_main(lambda: rad.main(["--download_glove"]))
    said = capsys.readouterr()
    assert (
        left.value.code == 2
        and said.err.count("\n") == 1
        and "no download of GloVe" in said.err
        and not said.out
    )
    assert not (tmp_path / "data_RAD" / "glove.6B.zip.part").exists()


def test_idf_weights_by_hand():
    """Word 0 in all of three questions, 1 in two, 2 in one (twice), 3 in none: log 1, log 1.5, log 3, log 3, over their mean."""
    questions = [
        types.SimpleNamespace(tokens=tokens) for tokens in ((0, 1, 4), (0, 1, 4), (0, 2, 2))
    ]
    logs = np.array([0, math.log(1.5), math.log(3), math.log(3)])
    np.testing.assert_allclose(rad.idf_weights(questions, 4), logs / logs.mean(), rtol=1e-6)
    assert (
        rad.idf_weights(questions[:1] * 2, 2) == 1
    ).all()  # every word in every question: none is telling
