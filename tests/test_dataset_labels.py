"""Image tasks from VQA sets: their labels, the images left out, and a whole pre-training."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from helpers import prepare, quiet
from PIL import Image
from pretraining_runs import SMALL, call
from set_folders import own, slake, slake_record, vqa_med

import dataset_labels as labels
import dataset_RAD as rad
import pretrain
import train
from readers.checkpoints import read_checkpoint
from readers.weights import imagenet_state
from tools import organ_results
from utils import UserError

pytestmark = pytest.mark.usefixtures("no_real_folders")


def test_answers_fields_and_masks_are_labels(tmp_path, capsys):
    train_part = [
        slake_record(1, 1),
        slake_record(2, 1, question="Is it so?", answer="Yes", answer_type="CLOSED"),
        slake_record(3, 2, content_type="Organ", answer="The Liver", location="Lung"),
        slake_record(4, 2, content_type="Organ", answer="liver", location="Lung"),
    ]
    folder = slake(tmp_path / "d", train=train_part)
    (folder / "mask.txt").write_text(
        "70:Liver\n155:Right Kidney\nodd\n\u00b2:odd\n" + "9" * 5000 + ":odd"
    )
    mask = np.zeros((9, 8), np.uint8)
    mask[0, 0], mask[1, :3], mask[2, 2] = 70, 155, 9  # 9 has no name
    Image.fromarray(mask).save(folder / "imgs" / "xmlab2" / "mask.png")
    # the official set has masks laid over the picture in colour, whose values name nothing
    Image.fromarray(np.stack([mask, mask, 0 * mask], 2)).save(folder / "imgs/xmlab1/mask.png")
    data = prepare(folder)
    found = labels.label_images(data, data.train)
    assert "masks left out for being colour pictures: 1\n" in capsys.readouterr().out
    first, second = (data.image_names.index(f"xmlab{n}/source.jpg") for n in (1, 2))
    record = {"modality of the record": {"mri": 1}}
    tasks = {"MODALITY": {"mri": 1}, "organ of the record": {"ABD": 1}} | record
    assert found[first] == (0, {f"SLAKE: {task}": Counter(of) for task, of in tasks.items()})
    tasks = {"ORGAN": {"liver": 2}, "organ of the record": {"CHEST": 1}} | record
    tasks["structures of the mask"] = {"liver": 1, "right kidney": 1}
    assert found[second] == (2, {f"SLAKE: {task}": Counter(of) for task, of in tasks.items()})
    (folder / "imgs" / "xmlab1" / "mask.png").write_bytes(b"damaged")
    with pytest.raises(UserError, match="xmlab1/mask.png can't be used as a mask"):
        labels.label_images(data, data.train)


def test_rare_answers_count_by_their_words():
    images = [{"PLANE": Counter(["axial"])}] * 8 + [{"PLANE": Counter(["coronal"])}] * 7
    images += [{"ABN": Counter([f"lung nodule in lobe {i}"])} for i in range(8)]
    images += [{"LONE": Counter(["one"])}] * 9
    # "in" is short, each number rare, and a task of one label is none
    assert labels.choose_labels(images) == {"ABN": ["lobe", "lung", "nodule"]}
    images += [{"PLANE": Counter(["coronal", "axial"])}]
    assert labels.choose_labels(images)["PLANE"] == ["axial", "coronal"]


def test_images_that_the_data_in_use_have_are_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(labels, "FEWEST", 1)
    planes = "synpic1|which plane?|axial\nsynpic1|which view?|lateral\nsynpic2|which plane?|coronal"
    folder = vqa_med(tmp_path / "med", changes={"C2_Plane_train": planes})
    target = slake(tmp_path / "target")
    rng, pictures = np.random.default_rng(0), {}
    for number in (1, 2, 3):
        part = ("Training/Train", "Validation/Val")[number == 3]
        path = folder / f"ImageClef-2019-VQA-Med-{part}_images" / f"synpic{number}.jpg"
        rough = rng.integers(0, 255, (12, 12), np.uint8)
        pictures[number] = Image.fromarray(rough).resize((240, 240), Image.Resampling.BICUBIC)
        pictures[number].save(path, quality=95)
    data = prepare(target)
    both = labels.find_label_set([folder, folder.parent / "." / folder.name], data)  # once
    assert "2 training and 1 held-out images have labels; 0 of these" in capsys.readouterr().out
    assert both.left_out == 0 and (len(both.train), len(both.val)) == (2, 1)
    assert [sample.organ for sample in both.train] == [-1, 1]  # "lung" is no organ system
    names = [name for task in both.classes.values() for name in task]
    wanted = {"axial", "coronal", "lung", "skull and contents"}
    assert wanted <= set(names) and "yes" not in names
    first = both.train[0].target
    shown = {"axial": 0.5, "lateral": 0.5, "lung": 1}
    assert {names[i]: first[i] for i in first.nonzero()[0]} == shown
    # the second image occurs in the target, smaller and of another quality
    copy = pictures[2].resize((230, 230), Image.Resampling.LANCZOS)
    copy.save(target / "imgs" / "xmlab6" / "source.jpg", quality=70)
    left = labels.find_label_set([folder], prepare(target))
    assert left.left_out == 1 and len(left.train) == 1
    assert "1 left out, for --RAD_dir has them too" in left.describe()
    assert left.digest != both.digest and left.about()["images left out"] == 1
    # the set in use itself, whose usual categories are three, is not left out
    assert labels.find_label_set([folder], prepare(folder)).left_out == 0


def test_tested_images_are_never_learnt(tmp_path, monkeypatch):
    """Of the set in use itself all training images serve that no tested question shows."""
    monkeypatch.setattr(labels, "FEWEST", 1)
    asked = [slake_record(1, 1, answer="CT"), slake_record(2, 2), slake_record(3, 6)]
    asked.append(slake_record(4, 2, answer="CT"))
    data = prepare(slake(tmp_path / "d", train=asked, val=[slake_record(5, 4)]))
    found = labels.find_label_set([data.folder], data)
    names = [data.image_names[sample.image] for sample in found.train]
    assert names == ["xmlab1/source.jpg", "xmlab2/source.jpg"]  # 6 is a test image
    assert [data.image_names[sample.image] for sample in found.val] == ["xmlab4/source.jpg"]
    # the same folder in Chinese is another split of the same images: 1 is tested, 4 is trained on
    chinese = [slake_record(3, 2, q_lang="zh"), slake_record(9, 4, q_lang="zh")]
    slake(data.folder, train=asked + chinese, val=[slake_record(5, 4)])
    other = rad.prepare(data.folder, {"language": "zh"}, log=quiet)
    found = labels.find_label_set([data.folder], other)
    assert [data.image_names[sample.image] for sample in found.train] == ["xmlab2/source.jpg"]
    assert len(found.val) == 1 and found.left_out == 1
    with pytest.raises(UserError, match="two labels on 9 training images each"):
        monkeypatch.setattr(labels, "FEWEST", 9)
        labels.find_label_set([data.folder], data)


def test_hits_by_hand():
    class Model:
        decoder = type("Decoder", (), {"sizes": [2, 3]})

    output = torch.tensor([[0.1, 0.9, 5.0, 6.0, 7.0], [0.9, 0.1, 1.0, 0.0, 0.0]])
    targets = torch.tensor([[0.5, 0.5, 1.0, 0.0, 0.0], [0.0, 0.0, 0.2, 0.8, 0.0]])
    hits = organ_results.label_hits(Model, output, targets)
    assert torch.equal(hits.nan_to_num(-1), torch.tensor([[1.0, 0.0], [-1.0, 1.0]]))
    assert organ_results.count_right(Model, output, targets) == (1.5, 2)


def test_from_a_set_to_the_encoder_of_a_run(tmp_path, tiny, data, monkeypatch):
    def share(*arguments):  # of an image's tasks
        right, count = count_right(*arguments)
        return 0.9 * right, count

    count_right = organ_results.count_right
    monkeypatch.setattr(organ_results, "count_right", share)
    folder, output = own(tmp_path / "own", 80, 20), tmp_path / "w"
    options = ["--VQA_dir", folder, "--RAD_dir", tiny, *SMALL, "--output", output]
    options += ["--results", tmp_path / "r"]
    call(*options, "--epochs", "15", "--no-compatibility")
    part = read_checkpoint(output / "vqa.pth", "encoder")
    results = json.loads((tmp_path / "r" / "results.json").read_text())["vqa"]["results"]
    task = "own set own: OTHER"
    rows = (output / "vqa" / "log.jsonl").read_text().splitlines()
    assert 0.8 < json.loads(rows[-1])["train_score"] < 0.9001  # of steps of four images
    # pictures of one grey, bright or dark: easy to learn
    assert results["tasks"][task]["accuracy"] == results["accuracy"] > 0.9
    assert part["data"]["classes"] == {task: ["bright", "dark"]}
    assert part["encoder_rate"] == pretrain.LABEL_RATE and not part["phantom"]

    before = (output / "vqa.pth").read_bytes()
    call("--resume", "--output", output, "--RAD_dir", tiny, "--gpu", -1)
    assert (output / "vqa.pth").read_bytes() == before  # it is done and stays
    # a frozen run has it once, for all three organs
    asked = ["--encoder_path", str(output / "vqa.pth"), "--recipe", "tuned", "--num_hid", "32"]
    model, arguments, description = train.new_model(train.parse_args(asked)[0], data, frozen=True)
    assert arguments["model_arguments"]["shared"] and len(model.image.encoders) == 1
    key = "net._conv_head.weight"
    assert torch.equal(model.image.encoders[0].state_dict()[key], part["state"][key])
    assert not torch.equal(part["state"][key], imagenet_state("efficientnet_lite0")[key])
    assert torch.equal(model.image.adapters[2][0].weight, part["adapter"]["0.weight"])
    assert "vqa.pth, for all organs" in description
    single = train.parse_args([*asked, "--no-distmodal"])[0]
    assert len(train.new_model(single, data, frozen=True)[0].image.encoders) == 1
    with pytest.raises(UserError, match="is efficientnet_lite0 for all organs: give one of"):
        train.new_model(train.parse_args([*asked, "--encoder", "resnet34"])[0], data, True)
    with pytest.raises(UserError, match="no such folder: .*none .* by --VQA_dir"):
        call("--VQA_dir", tmp_path / "none", "--RAD_dir", tiny, *SMALL, "--output", tmp_path / "n")
    with pytest.raises(UserError, match="--organ goes with organ sets"):
        call(*options, "--organ", "brain")
