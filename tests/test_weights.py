"""readers/weights.py: the weights that a new model starts from."""

import copy
import json
import socket
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import torch
from helpers import quiet
from saved_runs import save_run, small_model

import train
from base_model import ImageSide, VQAModel, make_encoder
from dataset_RAD import find_data
from image_type import ImageTypeClassifier
from readers import weights
from readers.checkpoints import read_checkpoint, save_checkpoint, without_prior
from utils import ORGAN_ENCODERS, VERSION, UserError


@pytest.fixture
def data(tiny):
    return find_data(tiny, log=quiet)


def test_train_finds_what_pretraining_left(pretrained, data, tmp_path, monkeypatch):
    """Encoders, adapters and image types are the pre-trained ones; the question side on demand."""
    folder, _ = pretrained
    monkeypatch.setattr(train, "HERE", tmp_path)
    (tmp_path / "saved_models").mkdir()
    (tmp_path / "saved_models" / "MTPT").symlink_to(folder)
    asked = ["--num_hid", "32", "--vqa_init", str(folder / "chest.pth")]
    torch.manual_seed(1)
    model, arguments, description = train.new_model(train.parse_args(asked)[0], data, frozen=True)
    assert "MTPT" in description and "PHANTOM" in description
    assert arguments["model_arguments"]["encoder"] == "efficientnet_lite0"
    assert not arguments["model_arguments"]["shared"]
    parts = [torch.load(folder / f"{organ}.pth", weights_only=True) for organ in ORGAN_ENCODERS]
    for index, part in enumerate(parts):
        for key, module in (("state", model.image.encoders), ("adapter", model.image.adapters)):
            ours = module[index].state_dict()
            assert all(torch.equal(value, ours[name]) for name, value in part[key].items())
    image_type = torch.load(folder / "image_type.pth", weights_only=True)["state"]
    ours = model.image.image_type.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in image_type.items())
    names = "q_emb.rnn.weight_hh_l0 cmsa.blocks.0.W.weight w_emb.emb.weight fc.bias".split()
    for name in names:
        assert torch.equal(model.state_dict()[name], parts[2]["compatibility"][name])
    first, second = (part["state"]["net._conv_stem.weight"] for part in parts[:2])
    assert not torch.equal(first, second)
    asked = ["--num_hid", "16", "--encoder", "efficientnet_lite0", *asked[2:]]
    with pytest.raises(UserError, match="does not fit this model"):
        train.new_model(train.parse_args(asked)[0], data, frozen=True)


def test_found_files_are_used_where_they_can_be_and_named_ones_must_be(
    pretrained, tmp_path, capsys, monkeypatch
):
    folder, _ = pretrained
    files = {argument: folder / file for argument, file in weights.MTPT_FILES.items()}

    def choose(phantom, named=(), lacking=(), **options):
        """(whether MTPT encoders are used, whether its image types are, the log)."""
        place = tmp_path / "".join(lacking or "all")
        place.mkdir(exist_ok=True)
        for argument, path in files.items():
            if argument not in lacking and not (place / path.name).exists():
                (place / path.name).symlink_to(path)
        named = {argument: files[argument] for argument in named}
        parts = weights.find_parts(named, place, phantom)
        options = {"encoder": "efficientnet_lite0"} | options
        description = weights.choose_encoders(parts, named=named, **options)[2]
        image_type = weights.IMAGE_TYPE_ARGUMENT in parts
        return "MTPT" in description, image_type, capsys.readouterr().out

    assert choose(True)[:2] == (True, True)
    # drawings are not for real data, unless they are named
    assert choose(False)[:2] == (False, False) and "PHANTOM" in choose(False)[2]
    assert choose(False, weights.MTPT_FILES)[:2] == (True, True)
    used, image_type, logged = choose(True, lacking=["chest_model_path"])
    assert (used, image_type) == (False, True) and "all three organs" in logged
    assert choose(True, distmodal=False)[:2] == (False, True)
    for arguments, options in (
        ((["chest_model_path"], ["brain_model_path"]), {}),
        ((["chest_model_path"],), {"random": True}),
        ((["chest_model_path"],), {"encoder": "resnet34"}),
        ((["chest_model_path"],), {"distmodal": False}),
    ):
        with pytest.raises(UserError, match="can't be used"):
            choose(True, *arguments, **options)
    with pytest.raises(UserError, match="chest_model_path .*none.pth: no such file"):
        weights.find_parts({"chest_model_path": tmp_path / "none.pth"}, None, True)

    def with_real_images(path):  # beside phantom questions: the reason is named
        part = load(path)
        if path.name == "image_type.pth":
            return part | {"phantom": False}
        return part | {"data": part["data"] | {"phantom": False}}

    load = weights.load_checkpoint
    monkeypatch.setattr(weights, "load_checkpoint", with_real_images)
    used, image_type, logged = choose(False)
    assert not used and image_type
    assert "with the PHANTOM set's questions" in logged and "on the PHANTOM sets" not in logged


def test_without_mtpt_no_file_is_looked_for(pretrained, data, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "HERE", tmp_path)
    (tmp_path / "saved_models").mkdir()
    (tmp_path / "saved_models" / "MTPT").symlink_to(pretrained[0])
    asked = "--num_hid 32 --no-mtpt --encoder efficientnet_lite0".split()
    _, _, description = train.new_model(train.parse_args(asked)[0], data, frozen=True)
    assert "MTPT" not in description


def test_words_are_matched_by_their_text(pretrained, data):
    """--vqa_init with another dictionary: a word keeps its vector, a new one keeps its start."""
    path = pretrained[0] / "brain.pth"
    part = torch.load(path, weights_only=True)
    dictionary = ["neverseen", *reversed(data.dictionary)]
    word_dim = part["model_arguments"]["word_dim"]
    encoder = {"encoder": "efficientnet_lite0", "shared": True}
    model = VQAModel("SAN", len(dictionary), 5, word_dim, 32, **encoder)
    before = model.w_emb.emb.weight.detach().clone()
    weights.start_language(model, path, dictionary)
    theirs = part["compatibility"]["w_emb.emb.weight"]
    for row, word in list(enumerate(dictionary))[::7]:
        expected = before[row] if word == "neverseen" else theirs[part["dictionary"].index(word)]
        assert torch.equal(model.w_emb.emb.weight[row], expected)


def save_part(path, **changes):
    """A pre-trained encoder's file with made-up weights, as pretrain.py writes it."""
    part = dict(version=VERSION, state={}, encoder="resnet34", adapter=None, phantom=False)
    part |= dict(compatibility=None, dictionary=[], settings={}) | changes
    save_checkpoint(path, part)
    return path


@pytest.fixture
def imagenet(monkeypatch):
    """Asks for ImageNet weights get the state in this dictionary, None where it has none."""
    states = {}
    monkeypatch.setattr(weights, "imagenet_state", states.get)
    return states


def test_imagenet_weights_fit_the_encoder():
    """EfficientNet-Lite0's lie in a package: they are all of its weights, and no more."""
    encoder = make_encoder("efficientnet_lite0")
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    state = weights.imagenet_state("efficientnet_lite0")
    encoder.load_state_dict(state)
    assert not torch.equal(before["net._conv_stem.weight"], state["net._conv_stem.weight"])


def test_without_a_network_there_is_no_resnet(monkeypatch):
    """The download gives up, and the time limit of later connections is what it was."""

    def refuse(*_, **__):
        assert socket.getdefaulttimeout() == 10
        raise URLError("no network")

    models = pytest.importorskip("torchvision.models")
    monkeypatch.setattr(models.ResNet34_Weights, "get_state_dict", refuse)
    before = socket.getdefaulttimeout()
    assert weights.imagenet_state("resnet34") is None and socket.getdefaulttimeout() == before


def test_which_imagenet_weights_are_taken(imagenet, capsys):
    """ResNet-34's, else EfficientNet-Lite0's, else none with a warning; by name only the named."""
    start = weights.imagenet_start
    imagenet |= {"resnet34": {"a": 1}, "efficientnet_lite0": {"b": 2}}
    assert start("auto")[:2] == ("resnet34", {"a": 1})
    assert start("efficientnet_lite0")[:2] == ("efficientnet_lite0", {"b": 2})
    assert start("auto", random=True)[:2] == ("resnet34", None)
    assert capsys.readouterr().out == ""
    del imagenet["resnet34"]
    assert start("auto")[:2] == ("efficientnet_lite0", {"b": 2})
    assert "PyPI instead" in capsys.readouterr().out
    name, state, description = start("resnet34")
    assert (name, state) == ("resnet34", None) and "random" in description
    assert "RANDOM" in capsys.readouterr().out


def test_encoders_without_mtpt_files(imagenet):
    """Three times the ImageNet weights, of the smaller encoder where that is preferred."""
    imagenet |= {"resnet34": {"a": 1}, "efficientnet_lite0": {"b": 2}}
    name, parts, _ = weights.choose_encoders({}, "auto", {})
    assert name == "resnet34" and parts == [{"state": {"a": 1}, "adapter": None}] * 3
    name, parts, _ = weights.choose_encoders({}, "auto", {}, prefer_lite=True)
    assert name == "efficientnet_lite0" and parts[2]["state"] == {"b": 2}
    assert weights.choose_encoders({}, "resnet34", {}, prefer_lite=True)[0] == "resnet34"
    assert weights.choose_encoders({}, "auto", {}, random=True)[:2] == ("resnet34", None)


def test_an_encoder_that_was_made_for_other_data_is_noted(tmp_path, capsys):
    about = {"data": {"task": "labels"}, "questions": {"digest": "1", "folder": "/other"}}
    named = {weights.ONE_ENCODER: save_part(tmp_path / "vqa.pth", **about)}
    weights.find_parts(named, None, False, "1")
    assert capsys.readouterr().out == ""
    weights.find_parts(named, None, False, "2")
    assert "vqa.pth was made for other data (/other): it may" in capsys.readouterr().out
    for_brain = {"brain_model_path": named[weights.ONE_ENCODER]}
    weights.find_parts(for_brain, None, False, "2")
    assert "--brain_model_path" in capsys.readouterr().out
    save_part(tmp_path / "vqa.pth", **about | {"data": {"task": "classification"}})
    weights.find_parts(named, None, False, "2")
    assert capsys.readouterr().out == ""


def test_files_of_two_encoders_are_not_mixed(tmp_path, imagenet, capsys):
    imagenet["resnet34"] = {"a": 1}
    for file, encoder in zip(weights.MTPT_FILES.values(), ("resnet34", "efficientnet_lite0") * 2):
        save_part(tmp_path / file, encoder=encoder, state={"x": torch.zeros(1)})
    (tmp_path / "image_type.pth").unlink()
    parts = weights.find_parts({}, tmp_path, False)
    assert len(parts) == 3 and weights.choose_encoders(parts, "auto", {})[1][0]["state"] == {"a": 1}
    differ = "their encoders differ (resnet34, efficientnet_lite0, resnet34): pre-train all three "
    assert f"not used, {differ}with one --encoder\n" in capsys.readouterr().out
    for encoder in ("resnet34", "resnet50"):
        part = parts["abd_model_path"] | {"encoder": encoder}
        alike = dict.fromkeys(weights.MTPT_FILES, part)
        with pytest.raises(
            UserError, match=f"their encoder is {encoder}, not eff.*leave --encoder"
        ):
            weights.choose_encoders(alike, "efficientnet_lite0", alike)
    with pytest.raises(UserError, match="their encoder resnet50 is none of resnet34, eff"):
        weights.choose_encoders(alike, "auto", alike)


def test_official_files_and_torchvisions_are_read(tmp_path, parity, deterministic):
    """--abd_model_path and the others: what the official pre-training and torchvision save."""
    keys = json.loads((parity / "official_keys_MTPT_300d.json").read_text())
    official = deterministic.fill_state_dict(keys["backbone"], 1)
    whole = {"backbone": official, "cls_decoder": {"fc.8.bias": torch.ones(3)}, "cmsa": {}}
    theirs = {f"module.{key}": value for key, value in official.items()}
    more = {"fc.weight": torch.ones(1000, 512), "fc.bias": torch.ones(1000)}
    encoder = make_encoder("resnet34")
    for content in (whole, {"epoch": 99, "model_state": theirs}, official | more):
        save_checkpoint(tmp_path / "a.pth", content)
        part = weights.load_part_file(tmp_path / "a.pth")
        assert part["encoder"] == "resnet34"
        encoder.load_state_dict(part["state"])
        assert torch.equal(encoder.conv1.weight, official["conv1.weight"])
    classifier = ImageTypeClassifier().state_dict()
    save_checkpoint(tmp_path / "m.pth", {"model_state": classifier})
    state = weights.load_part_file(tmp_path / "m.pth")["state"]
    assert set(state) == set(classifier) and "fc.0.weight" in state


def test_files_that_hold_no_encoder(tmp_path):
    """A bare state dict is a ResNet-34's; whatever else is none is named in one line."""
    path = tmp_path / "a.pth"
    state = {"conv1.weight": torch.ones(2)}
    save_checkpoint(path, state)
    part = weights.load_part_file(path)
    assert part["encoder"] == "resnet34" and part["adapter"] is None and not part["phantom"]
    assert part["state"]["conv1.weight"].tolist() == [1, 1]
    for bad in ({}, {"x": 3}, [1]):
        save_checkpoint(path, bad)
        with pytest.raises(UserError, match="a.pth holds no weights of a pre-trained encoder"):
            weights.load_part_file(path)
    path.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(UserError, match="a.pth is not a checkpoint"):
        weights.load_part_file(path)
    with pytest.raises(UserError, match="no such checkpoint: .*none.pth"):
        weights.load_part_file(tmp_path / "none.pth")
    for changes in ({"state": {"x": 3}}, {"encoder": None}, {"dictionary": [3]}):
        with pytest.raises(UserError, match=f"a.pth is damaged: its {next(iter(changes))}"):
            weights.load_part_file(save_part(path, **changes))


def test_weights_of_another_encoder_are_named():
    image = ImageSide("efficientnet_lite0", shared=True)
    part = {"state": image.encoders[0].state_dict(), "adapter": image.adapters[0].state_dict()}
    weights.start_encoders(image, [part] * 3, "here")
    part["adapter"] = {"0.weight": torch.zeros(1)}
    with pytest.raises(UserError, match=r"the pre-trained adapter \(here\) does not fit"):
        weights.start_encoders(image, [part] * 3, "here")
    part["state"] = {}
    with pytest.raises(UserError, match=r"abdomen encoder's start \(here\) does not fit"):
        weights.start_encoders(image, [part] * 3, "here")


def test_a_language_side_that_lacks_or_is_damaged(tmp_path):
    model = VQAModel("CMSA", 3, 2, word_dim=4, hidden=8, encoder=None)
    theirs = VQAModel("CMSA", 2, 2, word_dim=4, hidden=8, encoder=None, blocks=1).state_dict()
    good = {"compatibility": theirs, "dictionary": ["is", "it"]}

    def start(**changes):
        path = save_part(tmp_path / "a.pth", **good | changes)
        return weights.start_language(model, path, ["it", "was", "is"])

    assert start() == f"question encoder and CMSA from {tmp_path / 'a.pth'}, 2 words"
    with pytest.raises(UserError, match="a.pth holds no question encoder"):
        start(compatibility=None)
    with pytest.raises(UserError, match="a.pth is damaged: its words and its dictionary"):
        start(dictionary=["is"])
    with pytest.raises(UserError, match="a.pth is damaged: its words and its dictionary"):
        start(dictionary=["it", "is", "is", "it"])  # as many words as the table has, but twice
    table = "w_emb.emb.weight"
    with pytest.raises(UserError, match="a.pth is damaged: its words and its dictionary"):
        start(compatibility={key: theirs[key] for key in theirs if key != table})
    with pytest.raises(UserError, match=r"its fc.bias is \(5,\), ours \(8,\)"):
        start(compatibility=theirs | {"fc.bias": torch.zeros(5)})


@torch.no_grad()
def two_sets(tmp_path, words, answers):
    """(a run's model, a new one for other data, the run's checkpoint, its path, the other data).

    Both are of the tuned recipe with random weights. words, answers: of the other data.
    """
    kept_words, kept_answers = ["is", "it", "a", "mass"], ["yes", "no", "lung"]
    made = {"softmax": True, "gate": True, "blocks": 1}
    old, made_with = small_model(len(kept_words), len(kept_answers), prior=True, **made)
    layer = old.classifier.main[-1]
    layer.weight = 3 * layer.weight  # as training leaves it: another scale
    torch.nn.init.normal_(layer.bias)
    about = {"name": "the first set", "digest": "0", "folder": "/"}
    kept = {"dictionary": kept_words, "answers": kept_answers, "about": about}
    path = save_run(tmp_path / "run", old, made_with, **kept) / "best.pth"
    new, _ = small_model(len(words), len(answers), **made)
    torch.manual_seed(7)
    for parameter in new.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    new.w_emb.emb.weight[-1] = new.w_emb.emb_.weight[-1] = 0  # padding
    data, kept = SimpleNamespace(dictionary=words, answers=answers), read_checkpoint(path)
    return old.model, new, without_prior(kept), path, data


@torch.no_grad()
def test_a_run_on_another_set_gives_its_rows_by_their_text(tmp_path):
    words, answers = ["mass", "was", "it"], ["no", "maybe", "yes"]
    old, new, kept, path, data = two_sets(tmp_path, words, answers)
    before, shared = copy.deepcopy(new), {0: 1, 2: 0}  # answers: of the new model, of the old
    described = weights.start_from_run(new, kept, path, data)
    assert f"{path} (the first set), 2 of 3 words and 2 of 3 answers; random" in described
    for table in ("emb", "emb_"):
        theirs, start, rows = (getattr(one.w_emb, table).weight for one in (old, before, new))
        wanted = torch.stack([theirs[3], start[1], theirs[1], torch.zeros_like(start[0])])
        assert torch.equal(rows, wanted)
    theirs, start, layer = (one.classifier.main[-1] for one in (old, before, new))
    assert layer.parametrizations.weight.original0.shape == ()  # one scale, found anew
    for kind in ("weight", "bias"):
        rows = [getattr(theirs, kind)[shared[i]] if i in shared else getattr(start, kind)[i]
                for i in range(3)]  # fmt: skip
        assert torch.allclose(getattr(layer, kind), torch.stack(rows), rtol=1e-5, atol=1e-7)
    theirs, ours = old.state_dict(), new.state_dict()
    rest = [key for key in ours if "w_emb" not in key and "classifier.main.3" not in key]
    assert len(rest) > 100 and all(torch.equal(theirs[key], ours[key]) for key in rest)


@torch.no_grad()
def test_shared_questions_get_the_shared_answers_of_the_run(tmp_path):
    """All words are known, in another order: logits are the old model's."""
    words, answers = ["mass", "a", "is", "new", "it"], ["right lung", "lung", "yes", "no"]
    old, new, kept, path, data = two_sets(tmp_path, words, answers)
    weights.start_from_run(new, kept, path, data)
    text = ["is it a mass", "mass mass is a"]
    maps, organs = torch.randn(2, 1, 1280, 7, 7), torch.randn(2, 3)
    logits = []
    for model, known in ((old, kept["dictionary"]), (new, words)):
        tokens = torch.tensor([[known.index(word) for word in line.split()] for line in text])
        logits.append(model.eval()(None, tokens, maps, organs).logits)
    theirs, ours = logits
    assert torch.allclose(ours[:, [2, 3, 1]], theirs, atol=1e-5) and theirs.std() > 0.1


def test_a_run_on_the_same_set_is_taken_to_the_bit(tmp_path):
    words, answers = ["is", "it", "a", "mass"], ["yes", "no", "lung"]
    old, new, kept, path, data = two_sets(tmp_path, words, answers)
    assert "4 of 4 words and 3 of 3 answers" in weights.start_from_run(new, kept, path, data)
    theirs, ours = old.state_dict(), new.state_dict()
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)
    narrow, _ = small_model(4, 3, hidden=16)
    with pytest.raises(UserError, match="best.pth does not fit this model"):
        weights.start_from_run(narrow, kept, path, data)
