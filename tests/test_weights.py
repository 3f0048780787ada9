"""readers/weights.py: train.py's use of the files that pretrain.py leaves."""

import pytest
import torch
from helpers import quiet

import train
from base_model import VQAModel
from dataset_RAD import find_data
from readers import weights
from utils import ORGAN_ENCODERS, UserError


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
