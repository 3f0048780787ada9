"""dataset_MTPT.py: which sets are found, digests, augmentation, batches, questions' labels."""

import functools
import json
import math
import shutil

import numpy as np
import pytest
import torch
from helpers import quiet, shared
from organ_folders import write_list
from PIL import Image
from torch.utils.data import DataLoader

import dataset_MTPT as mtpt
import tools.phantom_MTPT
from dataset_RAD import find_data
from readers.organ_lists import Sample
from readers.records import convert_public
from text_rules import tokenize
from utils import ORGAN_CODES, UserError


def test_the_digest_tells_labels_parts_and_names(brain, abdomen):
    digests = {mtpt.load_organ_set(abdomen, "abdomen").digest}
    (abdomen / "classes.txt").write_text("background\nliver\nspleen\n")
    digests.add(mtpt.load_organ_set(abdomen, "abdomen").digest)
    write_list(abdomen / "train.txt", range(5))
    write_list(abdomen / "val.txt", [5])
    digests.add(mtpt.load_organ_set(abdomen, "abdomen").digest)
    shutil.rmtree(brain / "val")
    names = ["tumour", "normal"]
    for given in (names, names[::-1]):
        rows = [[f"train/{n}/{i}.png", label] for n, label in zip(names, given) for i in range(3)]
        (brain / "train.json").write_text(json.dumps(rows))
        digests.add(mtpt.load_organ_set(brain, "brain").digest)
    (brain / "classes.txt").write_text("tumour\nnormal\n")
    digests.add(mtpt.load_organ_set(brain, "brain").digest)
    assert len(digests) == 6


def test_without_a_validation_part_a_fifth_is_held_out(abdomen):
    (abdomen / "val.txt").unlink()
    write_list(abdomen / "train.txt", range(6))
    one = mtpt.load_organ_set(abdomen, "abdomen")
    assert [len(one.train), len(one.val)] == [5, 1] and one.val[0] not in one.train


def test_a_folder_without_sets(brain, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        mtpt.find_organ_sets(tmp_path / "none")
    with pytest.raises(UserError, match="no folder abdomen and no folder chest.*--organ: brain"):
        mtpt.find_organ_sets(tmp_path)
    assert set(mtpt.find_organ_sets(tmp_path, ["brain"])) == {"brain"}
    (tmp_path / "chest").mkdir()
    with pytest.raises(UserError, match="holds no organ set"):
        mtpt.find_organ_sets(tmp_path, ["chest"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="or name another folder by --MTPT_dir"):
        mtpt.find_organ_sets(tmp_path / "empty")


def test_an_empty_data_folder_gets_the_phantom_and_a_banner(tmp_path, monkeypatch):
    logged = []
    small = functools.partial(tools.phantom_MTPT.draw_organs, images=15)
    monkeypatch.setattr(tools.phantom_MTPT, "draw_organs", small)
    monkeypatch.setattr(mtpt, "DATA_MTPT", tmp_path)
    sets = mtpt.find_organ_sets(None, log=logged.append)
    assert "PHANTOM ORGAN SETS ARE IN USE" in logged[0]
    assert all(one.phantom for one in sets.values())
    # it is drawn once
    monkeypatch.setattr(tools.phantom_MTPT, "draw_organs", lambda _: pytest.fail("drawn again"))
    again = mtpt.find_organ_sets(None, ["brain"], log=logged.append)
    assert again["brain"].digest == sets["brain"].digest
    # a half-filled folder is never mixed with drawings
    (tmp_path / "brain").mkdir()
    with pytest.raises(UserError, match="no folder abdomen"):
        mtpt.find_organ_sets(None)


def test_the_command_line_prints_what_there_is(brain, tmp_path, capsys):
    mtpt.main(["--MTPT_dir", str(tmp_path)])
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("brain: classification, 6 training and 4 held-out images, 2 classes")
    assert line.endswith("classes: normal, tumour")


@pytest.fixture
def lopsided(tmp_path):
    """A set whose pictures show their masks: a bright bar in the left half, upright."""
    mask = np.zeros((100, 100), np.uint8)
    mask[20:60, 20:30] = 1  # neither half is the other's mirror image
    for name, value in (("image", mask * 200), ("mask", mask)):
        Image.fromarray(value).save(tmp_path / f"{name}.png")
    return [Sample(tmp_path / "image.png", tmp_path / "mask.png")]


def test_augmentation_moves_mask_and_image_together_and_never_flips(lopsided):
    images = mtpt.OrganImages(lopsided, [0] * len(lopsided), [], seed=3)
    angles, centres, heights = [], [], []
    for epoch in range(60):
        image, mask, _, _ = images[epoch, 0]
        assert image.shape == (224, 224, 3) and image.dtype == torch.uint8
        assert mask.shape == (224, 224) and mask.dtype == torch.int64
        bright = image[..., 0] > 100
        overlap = (bright & (mask == 1)).sum() / (bright | (mask == 1)).sum()
        assert overlap > 0.93
        y, x = np.nonzero(mask.numpy())
        centres.append(x.mean())
        heights.append(y.mean())
        # of the bar to upright
        (xx, xy), (_, yy) = np.cov(x, y)
        angles.append(math.degrees(0.5 * math.atan2(2 * xy, yy - xx)))
    assert max(centres) < 112 and max(heights) < 112 and np.std(centres) > 2
    assert max(map(abs, angles)) < 16 and max(angles) > 9 and min(angles) < -9


def test_a_draw_depends_on_seed_epoch_and_index_alone(lopsided):
    entries = [mtpt.Entry((i,) * 12, frozenset({i % 3}), str(i)) for i in range(50)]
    images = mtpt.OrganImages(lopsided * 4, [1] * len(lopsided * 4), entries, seed=5)
    keys = [[(2, 0), (2, 1)], [(2, 2), (2, 3)]]
    alone, workers = (
        list(DataLoader(images, batch_sampler=keys, num_workers=count)) for count in (0, 2)
    )
    for one, two in zip(alone, workers):
        assert all(torch.equal(a, b) for a, b in zip(one, two))
    again, later = images[2, 0], images[3, 0]
    assert torch.equal(again[0], alone[0][0][0]) and not torch.equal(again[0], later[0])
    # images of one epoch get different draws
    assert len({tuple(images[2, i][2].tolist()) for i in range(4)}) > 1
    for epoch in range(20):
        _, _, tokens, label = images[epoch, 0]
        assert label == (int(tokens[0]) % 3 == 1)  # brain is organ 1


def test_drawing_leaves_the_global_random_state_alone(lopsided):
    images = mtpt.OrganImages(
        lopsided * 3, [1] * len(lopsided * 3), [mtpt.Entry((1,) * 12, frozenset(), "")]
    )
    state = torch.get_rng_state()
    list(mtpt.in_order(images, torch.device("cpu")))
    assert torch.equal(state, torch.get_rng_state())


def test_held_out_images_are_not_augmented(lopsided):
    images = mtpt.OrganImages(lopsided, [0] * len(lopsided), [], augment=False)
    image, mask, tokens, label = images[0, 0]
    whole = Image.open(lopsided[0].image).convert("RGB")
    assert np.array_equal(image, whole.resize((224, 224), Image.Resampling.BILINEAR))
    assert torch.equal(mask, images[7, 0][1]) and label == 0


def test_a_loader_is_a_sequence(lopsided):
    """Its rest is what a stopped epoch goes on with; on the device images are floats."""
    images = mtpt.OrganImages(lopsided * 5, [0] * len(lopsided * 5), [], augment=False)
    loader = mtpt.in_order(images, torch.device("cpu"), size=2)
    batches = list(loader)
    assert len(loader) == 3 and [len(batch[0]) for batch in batches] == [2, 2, 1]
    rest = loader[1:]
    assert len(rest) == 2 and all(map(torch.equal, next(iter(rest)), batches[1]))
    pixels, masks, tokens, compatible = mtpt.to_device(batches[0], torch.device("cpu"))
    assert pixels.shape == (2, 3, 224, 224) and pixels.dtype == torch.float32
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert masks.shape == (2, 224, 224) and tokens.tolist() == [[0], [0]]
    assert compatible.tolist() == [0, 0]


def words_of(entries):
    return {" ".join(tokenize(entry.question)) for entry in entries}


def test_entries_are_distinct_questions_with_their_organs(tiny):
    data = find_data(tiny, log=quiet)
    train, held = mtpt.compatibility_entries(data, seed=2)
    records, test = convert_public(json.loads((tiny / "VQA_RAD Dataset Public.json").read_text()))
    tested, organs = {record["qid"] for record in test}, {}
    for record in records:
        if record["phrase_type"] != "frame" or record["qid"] - 1 not in tested:
            words = " ".join(tokenize(record["question"]))
            organs.setdefault(words, set()).add(ORGAN_CODES.index(record["image_organ"]))
    for entry in train + held:
        assert set(entry.organs) == organs[" ".join(tokenize(entry.question))]
    assert len(words_of(train)) == len(train) and len(words_of(held)) == len(held)
    assert words_of(train).isdisjoint(words_of(held))
    assert {len(entry.organs) > 1 for entry in train} == {True, False}
    assert mtpt.compatibility_entries(data, seed=2) == (train, held)


def test_no_test_rewording_becomes_an_entry(development):
    data = development
    tested = {question.qid for question in data.test}
    leaks, others = set(), set()
    for q in data.train:
        leaking = q.phrase_type == "frame" and q.qid - 1 in tested
        (leaks if leaking else others).add(" ".join(tokenize(q.question)))
    train, held = mtpt.compatibility_entries(data)
    assert words_of(train + held) <= others and len(leaks - others) > 50 and len(train) > 1400


def test_held_out_entries_have_no_rewording_in_training(development):
    """A rewording: a neighbour in qid order on the same image with the same answer."""
    train, held = mtpt.compatibility_entries(development)
    known, reworded = words_of(train), set()
    by_qid = {q.qid: q for q in development.train if q.phrase_type != "frame"}
    for q in by_qid.values():
        near = [by_qid[q.qid + step] for step in (-1, 1) if q.qid + step in by_qid]
        near = [n for n in near if n.image == q.image and n.answer == q.answer]
        if any(" ".join(tokenize(n.question)) in known for n in near):
            reworded.add(" ".join(tokenize(q.question)))
    # two: a neighbour's words also occur on another image
    assert len(held) > 80 and len(words_of(held) & reworded) <= 2


def test_the_real_sets():
    one = mtpt.find_organ_sets(shared("mtpt"), ["abdomen"], log=quiet)["abdomen"]
    assert len(one.classes) == 14 and [len(one.train), len(one.val)] == [25, 5]
    masks = [np.array(Image.open(sample.target)) for sample in one.train]
    assert {int(value) for mask in masks for value in np.unique(mask)} == {*range(14)} - {5}


@pytest.mark.parametrize("organ, copies", [("brain", 16), ("chest", 102)])
def test_the_copies_in_the_real_sets(organ, copies):
    one = mtpt.load_organ_set(shared("mtpt", organ), organ, log=quiet)
    assert len(one.copies) == copies and len(one.val) == 300


TWO_BAD = '[{"question": "a?", "label": 1}, {"question": "b?"}, 3]'
QUESTIONS = [("Is there a tumour?", 1), ("Is the liver large?", 0), ("is there a tumour", 0)]


def write_questions(folder, name, rows):
    rows = [{"question": text, "label": label} for text, label in rows]
    (folder / name).write_text(json.dumps(rows))


def test_a_set_of_its_own_questions(brain, tiny, capsys):
    """They come in place of VQA's, with their labels; held out are those that training lacks."""
    data, before = find_data(tiny, log=quiet), mtpt.load_organ_set(brain, "brain")
    write_questions(brain, "train_questions.json", QUESTIONS)
    write_questions(brain, "brain_val_questions.json", [("Is the liver large", 1), ("What?", 1)])
    one = mtpt.load_organ_set(brain, "brain")
    assert (one.train, one.val, one.classes) == (before.train, before.val, before.classes)
    assert one.digest != before.digest
    train, held = mtpt.compatibility_entries(data, organ_set=one)
    assert [(entry.question, set(entry.organs)) for entry in train] == [
        ("Is there a tumour?", {1}),
        ("Is the liver large?", set()),
    ]
    assert [(entry.question, set(entry.organs)) for entry in held] == [("What?", {1})]
    padding = len(data.dictionary)
    expected = [data.dictionary.index(word) if word in data.dictionary else padding
                for word in ("is", "there", "a", "tumour")]  # fmt: skip
    assert train[0].tokens == (*expected, *[padding] * 8) and set(expected) != {padding}
    images = mtpt.OrganImages(one.train, [1] * len(one.train), train, seed=1)
    drawn = {(images[epoch, 0][2][0].item(), images[epoch, 0][3]) for epoch in range(20)}
    assert {compatible for _, compatible in drawn} == {0, 1}
    without = mtpt.compatibility_entries(data, organ_set=before)
    assert without == mtpt.compatibility_entries(data)
    mtpt.main(["--MTPT_dir", str(brain.parent)])
    assert "2 classes, 5 questions of its own; " in capsys.readouterr().out


@pytest.mark.parametrize(
    "files, words",
    [
        ({"train_questions.json": "{}"}, "must hold a list"),
        ({"questions.json": "[]"}, "must hold a list"),
        ({"questions.json": TWO_BAD}, "in entry 2, 3"),
        ({"questions.json": '[{"question": " ", "label": 1}]'}, "in entry 1"),
        ({"questions.json": '[{"question": "a?", "label": 2}]'}, '"label", 0 or 1'),
        ({"questions.json": '[{"question": "a?", "label": "1"}]'}, '"label", 0 or 1'),
        ({"questions.json": "[{"}, "not valid JSON"),
        ({"val_questions.json": "[]"}, "no question list for training"),
        ({"a_questions.json": "[]", "b_question_list.json": "[]"}, "two question lists"),
    ],
)
def test_bad_question_lists(brain, files, words):
    for name, text in files.items():
        (brain / name).write_text(text)
    with pytest.raises(UserError) as caught:
        mtpt.load_organ_set(brain, "brain")
    assert words in str(caught.value) and "question" in str(caught.value)
