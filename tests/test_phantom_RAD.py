"""The phantom data set: its form, answers that can't be guessed, findings that show.

And: the same seed gives the same bytes, and a set is written whole or not at all.
"""

import collections
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from readers.json_files import read_json
from tools import phantom_RAD
from tools.phantom_draw import lesion_places
from tools.phantom_scenes import scenes
from utils import HERE, ORGAN_CODES, UserError, run_main

FIELDS = [
    "qid",
    "phrase_type",
    "qid_linked_id",
    "image_case_url",
    "image_name",
    "image_organ",
    "evaluation",
    "question",
    "question_rephrase",
    "question_relation",
    "question_frame",
    "question_type",
    "answer",
    "answer_type",
]
TYPES = set("PRES POS ABN SIZE ATTRIB OTHER MODALITY PLANE COLOR ORGAN COUNT".split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "set"
    phantom_RAD.draw(folder)
    return folder


@pytest.fixture(scope="module")
def records(folder):
    return read_json(folder / "VQA_RAD Dataset Public.json")


def is_test(record):
    return record["phrase_type"].startswith("test_")


def pixels(folder, name):
    """The picture as floats (448, 448), 0 to 1."""
    with Image.open(folder / "VQA_RAD Image Folder" / name) as image:
        return np.asarray(image.convert("L").resize((448, 448)), dtype=np.float32) / 255


def answers_to(records, *questions):
    """Picture name -> answer, of the records with one of these questions."""
    return {r["image_name"]: r["answer"] for r in records if r["question"] in questions}


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_form(records):
    assert all(list(r) == FIELDS for r in records)
    assert [r["qid"] for r in records] == list(range(len(records)))
    assert all(
        isinstance(r[f], str) and r[f]
        for r in records
        for f in FIELDS
        if f not in ("qid", "answer")
    )
    assert all(isinstance(r["answer"], int if r["answer"] in (1, 2, 3) else str) for r in records)
    assert {r["phrase_type"] for r in records} == {"freeform", "para", "test_freeform", "test_para"}
    assert {r["answer_type"] for r in records} == {"OPEN", "CLOSED"}
    assert {r["image_organ"] for r in records} == set(ORGAN_CODES)
    for part in (True, False):
        assert {r["question_type"] for r in records if is_test(r) == part} == TYPES
    # the model reads no more
    assert all(len(r["question"].split()) <= 12 for r in records)


def test_size(records):
    tests = sum(map(is_test, records))
    assert len({r["image_name"] for r in records}) >= 300 and len(records) >= 2000
    assert tests >= 300 and 0.15 < tests / len(records) < 0.25


def test_pictures(folder, records):
    names = {path.name for path in (folder / "VQA_RAD Image Folder").iterdir()}
    assert names == {r["image_name"] for r in records} and len(names) == 320
    modes, sizes = set(), set()
    for name in names:
        with Image.open(folder / "VQA_RAD Image Folder" / name) as image:
            image.load()
            assert image.format == "JPEG" and 220 <= min(image.size) and max(image.size) <= 610
            modes.add(image.mode)
            sizes.add(image.size)
    assert modes == {"L", "RGB"} and len(sizes) > 100


def test_a_para_follows_its_freeform(records):
    count = 0
    for before, record in zip([None, *records], records):
        if record["phrase_type"].endswith("para"):
            count += 1
            for field in ("qid_linked_id", "image_name", "answer", "answer_type", "question_type"):
                assert record[field] == before[field]
            assert before["phrase_type"] == record["phrase_type"].replace("para", "freeform")
            assert record["question"] != before["question"]
            assert record["question_rephrase"] == before["question"]
            assert before["question_rephrase"] == record["question"]
    linked = collections.Counter(r["qid_linked_id"] for r in records)
    assert count > 300 and max(linked.values()) == 2
    assert sum(n == 2 for n in linked.values()) == count


def test_nothing_leaks_into_training(records):
    train, test = [r for r in records if not is_test(r)], [r for r in records if is_test(r)]
    assert not {r["image_name"] for r in train} & {r["image_name"] for r in test}
    assert all(r["question_frame"] == "NULL" for r in test)
    assert sum(r["question_frame"] != "NULL" for r in train) > 250
    assert {r["answer"] for r in test} <= {r["answer"] for r in train}
    assert {r["question"] for r in test} <= {r["question"] for r in train}


def test_the_question_does_not_give_the_answer(records):
    by_text = collections.defaultdict(collections.Counter)
    learnt = collections.defaultdict(collections.Counter)
    for r in records:
        by_text[r["question"], r["answer_type"]][r["answer"]] += 1
        if not is_test(r):
            learnt[r["question"]][r["answer"]] += 1
            if r["question_frame"] != "NULL":
                by_text[r["question_frame"], r["answer_type"]][r["answer"]] += 1
    # a wording is either open or closed
    assert len({question for question, _ in by_text}) == len(by_text)
    assert all(len(answers) > 1 for answers in by_text.values())
    for (question, kind), answers in by_text.items():
        share = max(answers.values()) / sum(answers.values())
        limit = 0.65 if kind == "CLOSED" else 1.3 / len(answers)
        assert share < limit or sum(answers.values()) < 8, (question, answers)
    for kind, limit in (("CLOSED", 0.58), ("OPEN", 0.40)):
        right = [
            learnt[r["question"]].most_common(1)[0][0] == r["answer"]
            for r in records
            if is_test(r) and r["answer_type"] == kind
        ]
        assert np.mean(right) < limit


def test_the_side_and_tone_of_lesions_show(folder, records):
    """The patient's left is right in the picture, and there it differs from its mirror image.

    It is brighter or darker, as the answers alone say.
    """
    sides = answers_to(
        records, "Is the lesion on the left or right side?", "Is the lesion left or right sided?"
    )
    tones = answers_to(records, "Is the lesion bright or dark?", "Is this a bright or dark lesion?")
    tones |= {r["image_name"]: "bright" for r in records if r["image_organ"] == "CHEST"}
    right = []
    for name in sides.keys() & tones.keys():
        picture = pixels(folder, name)[60:390, 40:408]
        difference = picture - picture[:, ::-1]
        half = difference[:, 204:] if sides[name] == "left" else difference[:, :164]
        here = np.sort(half.ravel())
        right.append((here[-1500:].mean() > -here[:1500].mean()) == (tones[name] == "bright"))
    assert len(right) >= 25 and np.mean(right) > 0.85


def test_sides_of_fluid_and_air_show(folder, records):
    sides = answers_to(records, "Which side is abnormal?", "On which side is the abnormality?")
    seen = collections.Counter()
    for scene in scenes():
        if scene.finding in ("effusion", "pneumothorax"):
            picture = pixels(folder, scene.name)
            rows = slice(270, 350) if scene.finding == "effusion" else slice(120, 280)
            difference = picture[rows, 310:370].mean() - picture[rows, 78:138].mean()
            left = difference > 0.2 if scene.finding == "effusion" else difference < -0.1
            right = difference < -0.2 if scene.finding == "effusion" else difference > 0.1
            assert (left, right) == (scene.side == "left", scene.side == "right")
            assert sides.get(scene.name, scene.side) == scene.side
            seen[scene.finding, scene.side] += 1
    assert len(seen) == 4


def test_every_lesion_shows_where_it_was_put(folder):
    """A lesion is nearly white or nearly black at its place, which is on its side."""
    checked = wrong = 0
    for scene in scenes():
        picture = pixels(folder, scene.name) if scene.count else None
        for x, y, radius in lesion_places(scene) if scene.count else []:
            distance = np.hypot(*np.meshgrid(np.arange(448) / 448 - x, np.arange(448) / 448 - y))
            inside = picture[distance < radius * (1.1 if scene.cystic else 0.6)]
            checked += 1
            if scene.tone == "bright":
                wrong += np.percentile(inside, 70) < 0.75
            else:
                wrong += np.percentile(inside, 30) > 0.2
            assert (x > 0.5) == (scene.side == "left") or scene.plane == "sagittal"
    assert checked > 200 and wrong < 0.05 * checked


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        phantom_RAD.draw(tmp_path / name, seed=seed, images=60)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b and a.keys() == c.keys() and len(a) == 62
    assert all(a[name] != c[name] for name in a if name != "PHANTOM.txt")


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), KeyboardInterrupt(), OSError(28, "No space left on device")]
)
@pytest.mark.parametrize("exists", [False, True])
def test_nothing_half_written(tmp_path, monkeypatch, error, exists):
    draw_picture, calls = phantom_RAD.draw_picture, []

    def failing(scene, seed):
        calls.append(scene)
        if len(calls) == 10:
            raise error
        return draw_picture(scene, seed)

    monkeypatch.setattr(phantom_RAD, "draw_picture", failing)
    if exists:
        (tmp_path / "set").mkdir()
    with pytest.raises(UserError if isinstance(error, OSError) else type(error)):
        phantom_RAD.draw(tmp_path / "set", images=60)
    assert len(calls) == 10
    assert [path.name for path in tmp_path.rglob("*")] == ["set"] * exists


def test_an_empty_folder_is_filled_and_a_full_one_kept(tmp_path):
    (tmp_path / "set").mkdir()
    phantom_RAD.draw(tmp_path / "set", images=60)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="isn't empty"):
        phantom_RAD.draw(tmp_path / "set", images=60)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("seed, images", [(-1, 320), (0, 0), (0, 59)])
def test_numbers_that_cannot_be_used(tmp_path, seed, images):
    with pytest.raises(UserError):
        phantom_RAD.draw(tmp_path / "set", seed=seed, images=images)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("images", [60, 61, 100])
def test_small_sets_hold_every_type_and_stay_closed(images):
    records = phantom_RAD.records(scenes(1, images), 1)
    for part in (True, False):
        assert {r["question_type"] for r in records if is_test(r) == part} == TYPES
    for field in ("answer", "question"):
        assert {r[field] for r in records if is_test(r)} <= {
            r[field] for r in records if not is_test(r)
        }


def test_command_line(tmp_path, monkeypatch, capsys):
    command = [sys.executable, "-m", "tools.phantom_RAD", "--output", "made", "--images", "60"]
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    assert subprocess.run(command, cwd=tmp_path, env=environment).returncode == 0
    assert len(contents(tmp_path / "made")) == 62
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path)
    for output, images in (("made", 60), ("few", 3), ("file", 60), ("file/below", 60)):
        arguments = ["phantom_RAD.py", "--output", output, "--images", str(images)]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as left:
            run_main(phantom_RAD.main)
        refused = capsys.readouterr().err
        assert left.value.code == 2 and refused.startswith("error: ") and refused.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_help_names_the_smallest_set(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["phantom_RAD.py", "--help"])
    with pytest.raises(SystemExit):
        phantom_RAD.main()
    assert "at least 60 " in " ".join(capsys.readouterr().out.split())
