"""VQA-RAD: all forms, blemishes, the leak, splits and validation, and where data are found."""

import json
from collections import Counter
from pathlib import Path

import h5py
import pytest
from helpers import archive, prepare, processed, public, quiet, record

import dataset_RAD as rad
import readers.download
import readers.find
import tools.phantom_RAD
from dataset_RAD import split_validation, training_questions
from tools.summary import main as summary_main
from tools.summary import summary
from utils import PHANTOM_MARK, UserError, writable

pytestmark = pytest.mark.usefixtures("no_real_folders")

# ---------------------------------------------------------------- the development split


def test_leak_of_the_development_split(development):
    clean = training_questions(development, "clean")
    assert len(development.train) == len(training_questions(development, "official")) == 2613
    assert len(development.train) - len(clean) == 239 == sum(q.twin for q in development.test)
    assert not any(q.twin for q in development.train)
    assert (development.ntoken, development.num_answers) == (1055, 405)
    assert development.name == "VQA-RAD, processed split"
    with pytest.raises(UserError):
        training_questions(development, "other")


def test_blemishes_of_the_real_split(development):
    questions = development.train + development.test
    types_seen = Counter(name for q in questions for name in q.question_types)
    assert {q.answer_type for q in development.train} == {"OPEN", "CLOSED"}
    assert "PRSE" not in types_seen and "ATRIB" not in types_seen and types_seen["OTHER"] == 171
    assert all(len(q.tokens) == 12 and max(q.tokens) <= 1055 for q in development.test)
    assert sum(q.label == -1 for q in development.test) == 65


def test_summary_of_the_development_split(development):
    """The ceilings of docs/SPLIT.md among other facts."""
    lines = summary(development, training_questions(development, "clean"))
    text = " ".join("\n".join(lines).split())
    assert "training (official) 2,613 898 448 1,267" in text
    assert "training (clean) 2,374 898 448 1,028" in text
    assert "test 451 308 143 0 190 261" in text
    assert "official split: 82.5 (freeform), 85.6 (freeform + para)" in text
    assert "clean split: 69.5 (freeform), 69.8 (freeform + para)" in text
    assert "an answer that training lacks: 65" in text and "official training): 239" in text


@pytest.mark.parametrize("split", ["official", "clean"])
@pytest.mark.parametrize("fraction", [0.0001, 0.1, 0.5])
def test_validation_part_mirrors_the_protocol(development, split, fraction):
    questions = training_questions(development, split)
    train, val = split_validation(questions, fraction, split, 3)
    assert split_validation(questions, fraction, split, 3) == (train, val)
    assert split_validation(questions, fraction, split, 4)[1] != val
    plain = [q for q in questions if q.phrase_type != "frame"]
    wanted = max(1, round(fraction * len(plain)))
    assert wanted <= len(val) <= wanted + 8
    assert {q.phrase_type for q in val} <= {"freeform", "para"}
    drawn = {q.qid for q in val}
    assert not drawn & {q.qid for q in train}
    frames = {q.qid for q in questions if q.phrase_type == "frame"}
    assert all(q.twin == (q.qid + 1 in frames) for q in val)
    kept = {q.qid for q in train if q.phrase_type == "frame"}
    assert frames - kept == ({q + 1 for q in drawn} & frames if split == "clean" else set())
    assert len(train) + len(val) + len(frames - kept) == len(questions)
    for a, b in zip(plain, plain[1:]):
        same = a.answer == b.answer or "para" in (a.phrase_type, b.phrase_type)
        if a.image == b.image and same:
            assert (a.qid in drawn) == (b.qid in drawn)


def test_validation_fraction_limits(development):
    assert split_validation(development.train, 0, "official", 0) == (development.train, [])
    for fraction in (1, -0.1, 1.5, float("nan")):
        with pytest.raises(UserError, match="fraction"):
            split_validation(development.train, fraction, "official", 0)


def test_question_length_and_questions_unread(development):
    short = rad.set_question_len(development, 3)
    for long, cut in zip(development.test, short.test):
        assert cut.tokens == long.tokens[:3] and cut.words == long.words
        assert cut.unknown_words == tuple(w for w in long.unknown_words if w in long.words[:3])
    longest = max(len(q.words) for q in development.train)
    for q in rad.set_question_len(development, longest + 1).train:
        kept = [development.dictionary[token] for token in q.tokens[: len(q.words)]]
        assert kept == list(q.words)
        assert q.tokens[len(q.words) :] == (1055,) * (longest + 1 - len(q.words))
    assert rad.set_question_len(development, 12) == development
    blank = rad.without_questions(short)
    assert {q.tokens for q in blank.train + blank.test} == {(1055,) * 3}
    assert not any(q.unknown_words for q in blank.test)
    assert [q.label for q in blank.test] == [q.label for q in development.test]


# ---------------------------------------------------------------- small made-up folders


@pytest.mark.parametrize("images", ["images", "VQA_RAD Image Folder", "."])
def test_processed_form_with_blemishes(tmp_path, images):
    blemished = {"answer": 4, "answer_type": "CLOSED ", "question_type": "PRSE, Atrib, Other"}
    numbers = "one two three four five six seven eight nine ten eleven twelve thirteen"
    test = [
        record("3", phrase_type="test_para", **blemished),
        record(9, image_organ="chest ", answer="dont know", question=numbers),
    ]
    data = prepare(processed(tmp_path / "d", test=test, images=images))
    first, second = data.test
    assert (first.qid, first.answer, first.raw_answer, first.label) == (3, "4", "4", -1)
    assert (first.answer_type, first.phrase_type) == ("CLOSED", "para")
    assert first.question_types == ("PRES", "ATTRIB", "OTHER") and first.twin is False
    assert second.organ == 2 and second.answer == "don't know"
    assert second.tokens == (data.ntoken,) * 12 and len(second.unknown_words) == 12
    assert second.words == tuple(numbers.split())
    assert data.answers == ["yes", "no"] and data.dictionary == ["is", "the", "lung", "normal"]
    assert data.image_names == ["i0.jpg", "i1.jpg", "i2.jpg"]
    assert "3 images" in "\n".join(summary(data, training_questions(data, "clean")))


def test_prepared_files(tmp_path):
    data = prepare(processed(tmp_path))
    with h5py.File(data.images_path) as file:
        assert file["images"].shape == (3, 224, 224, 3)
        assert file["images"].chunks == (1, 224, 224, 3)
        assert list(file["names"].asstr()) == data.image_names and file.attrs["size"] == 224
        assert file.attrs["source digest"].decode() == data.digest
    for name in ("dictionary", "answers"):
        content = json.loads((data.prepared / f"{name}.json").read_text())
        assert content == getattr(data, name)
    names = sorted(path.name for path in data.prepared.iterdir())
    assert names == ["answers.json", "dictionary.json", "images224x224.h5"]


def test_public_form(tmp_path):
    data = prepare(public(tmp_path))
    assert data.name == "VQA-RAD, public release" and not data.phantom
    train = [(q.qid, q.phrase_type) for q in data.train]
    assert train == [(2, "frame"), (3, "para"), (4, "freeform"), (5, "freeform")]
    assert [(q.qid, q.phrase_type, q.twin) for q in data.test] == [(1, "freeform", True)]
    assert [q.qid for q in training_questions(data, "clean")] == [3, 4, 5]


# ---------------------------------------------------------------- where data are found


@pytest.fixture
def phantom(monkeypatch):
    """A stand-in for the phantom set's drawing; gives the list of seeds it was asked for."""
    calls = []

    def draw(folder, seed=0):
        calls.append(seed)
        public(Path(folder))

    monkeypatch.setattr(tools.phantom_RAD, "draw", draw)
    return calls


def test_without_network_the_phantom_set_is_used_with_a_banner(tmp_path, phantom):
    lines = []
    data = rad.find_data(log=lines.append)
    assert data.phantom and data.name == "phantom set" and phantom == [0]
    assert data.folder == tmp_path / "data_RAD" / "phantom"
    text = "\n".join(lines)
    for part in ("can't be downloaded", "PHANTOM", "mean nothing for radiology"):
        assert part in text
    assert str(tmp_path / "data_RAD") in text
    lines.clear()
    assert rad.find_data(log=lines.append) == data and phantom == [0]
    assert "PHANTOM" in "\n".join(lines)
    lines.clear()
    assert rad.find_data(data.folder, log=lines.append).phantom and "PHANTOM" in lines[0]
    assert sorted(path.name for path in (tmp_path / "data_RAD").iterdir()) == ["phantom"]


def test_a_service_that_is_away_means_the_phantom_set(phantom, monkeypatch):
    def away(folder, log):
        raise readers.download.NoNetwork("api.osf.io answered 503")

    monkeypatch.setattr(readers.find, "download_public", away)
    lines = []
    assert rad.find_data(log=lines.append).phantom and "answered 503" in lines[0]


def test_phantom_is_drawn_anew_by_another_version(phantom):
    folder = rad.find_data(download=False, log=quiet).folder
    (folder / PHANTOM_MARK).write_text("another version")
    (folder / "stray").touch()
    assert rad.find_data(download=False, log=quiet).phantom and phantom == [0, 0]
    assert not (folder / "stray").exists()


def test_phantom_in_the_cache_when_data_RAD_is_read_only(tmp_path, phantom, monkeypatch):
    monkeypatch.setattr(
        readers.find, "writable", lambda path: "data_RAD" not in Path(path).parts and writable(path)
    )
    assert rad.find_data(download=False, log=quiet).folder == tmp_path / "cache" / "phantom"


def test_order_of_the_search(tmp_path, phantom):
    public(tmp_path / "data_RAD" / "public")
    assert rad.find_data(log=quiet).name == "VQA-RAD, public release"
    processed(tmp_path / "data_RAD")
    assert rad.find_data(log=quiet).name == "VQA-RAD, processed split"
    archive(tmp_path / "given")
    assert rad.find_data(tmp_path / "given", log=quiet).name == "VQA-RAD, authors' archive"
    with pytest.raises(UserError, match="no such folder"):
        rad.find_data(tmp_path / "none", log=quiet)
    assert not phantom


def test_command_line(tmp_path, capsys):
    summary_main(["--RAD_dir", str(processed(tmp_path / "d"))])
    assert "3 images, 4 words, 2 answers" in capsys.readouterr().out
    with pytest.raises(UserError, match="nothing was downloaded.*https://osf.io/89kps/"):
        summary_main(["--download"])
