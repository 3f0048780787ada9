"""Pre-training from start to the files that train.py finds: numbers against their definitions, resume, bad arguments."""

import json
import shlex
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import dataset_MTPT as mtpt
import engine
import pretrain
import train
from base_model import ORGAN_ENCODERS, PretrainingModel, PretrainingOutput, VQAModel, make_encoder
from utils import UserError, run_main

SMALL = [
    "--num_hid",
    "32",
    "--gpu",
    "-1",
    "--encoder",
    "efficientnet_lite0",
    "--precision",
    "float32",
    "--warmup",
    "2",
    "--epochs",
    "2",
]


@pytest.fixture(scope="module")
def organ_sets(tmp_path_factory):
    """Small phantom organ sets: their folder."""
    import phantom_MTPT

    folder = tmp_path_factory.mktemp("organs") / "phantom"
    phantom_MTPT.draw_organs(folder, seed=1, images=15)
    return folder


def run(*arguments):
    """pretrain.py in this process; raises what it raises."""
    old, sys.argv = sys.argv, ["pretrain.py", *map(str, arguments)]
    try:
        pretrain.main()
    finally:
        sys.argv = old


@pytest.fixture(scope="module")
def done(organ_sets, tiny, tmp_path_factory):
    """A whole run of two epochs: (weights' folder, results' folder)."""
    folder = tmp_path_factory.mktemp("MTPT")
    run(
        "--MTPT_dir",
        organ_sets,
        "--RAD_dir",
        tiny,
        "--output",
        folder / "weights",
        "--results",
        folder / "results",
        *SMALL,
    )
    return folder / "weights", folder / "results"


def test_what_a_run_leaves(done):
    weights, results = done
    kept = {path.name for path in weights.iterdir()}
    assert {"abdomen.pth", "brain.pth", "chest.pth", "image_type.pth"} <= kept and not any(
        name.endswith(".tmp") for name in kept
    )
    about = json.loads((results / "results.json").read_text())
    assert set(about) == {"version", *ORGAN_ENCODERS, "image_type"}
    assert (
        about["brain"]["phantom"] and about["brain"]["model_arguments"]["task"] == "classification"
    )
    assert (
        about["abdomen"]["model_arguments"]["task"] == "segmentation"
        and 0 <= about["abdomen"]["results"]["mean_iou"] <= 1
    )
    assert (
        about["brain"]["results"]["copies"] == 0
        and about["brain"]["results"]["accuracy_without_copies"]
        == about["brain"]["results"]["accuracy"]
    )
    compatibility = about["brain"]["results"]["compatibility"]
    assert 0.5 <= compatibility["majority"] <= 1 and compatibility["pairs"] > 50
    assert (
        "compatibility_new_questions" not in about["brain"]["results"]
    )  # every question of the phantom set recurs
    assert about["image_type"]["results"]["images"] == sum(
        about[organ]["data"]["held-out images"] for organ in ORGAN_ENCODERS
    )
    for name in ("abdomen_masks", "abdomen_confusion", "brain_confusion", "chest_confusion"):
        with Image.open(results / f"{name}.png") as image:
            assert min(image.size) > 300
    for organ in ORGAN_ENCODERS:
        log = [
            json.loads(line) for line in (weights / organ / "log.jsonl").read_text().splitlines()
        ]
        assert log[-1]["epoch"] == 1 and "held_out_compatibility" in log[-1]
        assert {"run.json", "last.pth", "tensorboard"} <= {
            path.name for path in (weights / organ).iterdir()
        }


def test_train_finds_what_pretraining_left(done, tiny, monkeypatch):
    """Encoders, adapters and image-type classifier of the VQA model are the pre-trained ones; the question side too when asked."""
    weights, _ = done
    for name in train.MTPT_FILES.values():
        assert (weights / name).is_file()
    monkeypatch.setattr(train, "HERE", weights.parent)
    (weights.parent / "saved_models").mkdir(exist_ok=True)
    (weights.parent / "saved_models" / "MTPT").symlink_to(weights)
    try:
        args = train.parse_args(["--num_hid", "32", "--vqa_init", str(weights / "chest.pth")])
        data = train.find_data(tiny, say=lambda _: None)
        torch.manual_seed(1)
        model, arguments, description = train.build_model(args, data, frozen=True)
    finally:
        (weights.parent / "saved_models" / "MTPT").unlink()
    assert (
        "MTPT" in description
        and "PHANTOM" in description
        and arguments["encoder"] == "efficientnet_lite0"
        and not arguments["shared"]
    )
    parts = [torch.load(weights / f"{organ}.pth", weights_only=True) for organ in ORGAN_ENCODERS]
    for index, part in enumerate(parts):
        for module, key in (
            (model.image.encoders[index], "state"),
            (model.image.adapters[index], "adapter"),
        ):
            assert all(
                torch.equal(value, module.state_dict()[name]) for name, value in part[key].items()
            )
    kept = parts[2]["compatibility"]
    for ours, theirs in (
        ("q_emb.rnn.weight_hh_l0", "q_emb.rnn.weight_hh_l0"),
        ("cmsa.blocks.0.W.weight", "cmsa.blocks.0.W.weight"),
        ("w_emb.emb.weight", "w_emb.emb.weight"),
        ("fc.bias", "fc.bias"),
    ):
        assert torch.equal(model.state_dict()[ours], kept[theirs])
    assert not torch.equal(
        parts[0]["state"]["net._conv_stem.weight"], parts[1]["state"]["net._conv_stem.weight"]
    )
    with pytest.raises(UserError, match="does not fit this model"):
        args = train.parse_args(
            [
                "--num_hid",
                "16",
                "--encoder",
                "efficientnet_lite0",
                "--vqa_init",
                str(weights / "chest.pth"),
            ]
        )
        train.build_model(args, data, frozen=True)


def test_found_files_are_used_where_they_can_be_and_named_ones_must_be(done, capsys, monkeypatch):
    weights, _ = done

    def choose(phantom, named=(), lacking=(), *arguments):
        args = train.parse_args(["--encoder", "efficientnet_lite0", *arguments])
        for name, file in train.MTPT_FILES.items():
            setattr(args, name, None if name in lacking else weights / file)
        args.named = list(named)
        _, parts, image_type, description = train.choose_encoders(
            args, SimpleNamespace(phantom=phantom)
        )
        return ("MTPT" in description, image_type is not None, capsys.readouterr().out)

    assert choose(True)[:2] == (True, True)
    assert (
        choose(False)[:2] == (False, False) and "PHANTOM" in choose(False)[2]
    )  # what drawings taught is not for real data
    assert choose(False, train.MTPT_FILES)[:2] == (True, True)
    assert (
        choose(True, (), ["chest_model_path"])[:2] == (False, True)
        and "all three organs" in choose(True, (), ["chest_model_path"])[2]
    )
    assert choose(True, (), (), "--no-distmodal")[:2] == (False, False)
    load = train.load_checkpoint  # real images beside phantom questions: the reason is named
    monkeypatch.setattr(
        train,
        "load_checkpoint",
        lambda path: (
            load(path)
            | (
                {"phantom": False}
                if path.name == "image_type.pth"
                else {"data": load(path)["data"] | {"phantom": False}}
            )
        ),
    )
    used, image_type, said = choose(False)
    assert (
        not used
        and image_type
        and "with the PHANTOM set's questions" in said
        and "on the PHANTOM sets" not in said
    )
    for arguments in (
        (["chest_model_path"], ["brain_model_path"]),
        (["chest_model_path"], (), "--random_encoders"),
        (["chest_model_path"], (), "--encoder", "resnet34"),
    ):
        with pytest.raises(UserError, match="can't be used"):
            choose(True, *arguments)
    args = train.parse_args(["--no-mtpt"])
    assert args.abd_model_path is None


def test_rate_and_saving_reach_the_optimizer(tmp_path):
    """Encoder's share, warm-up by step, validation every so many epochs, and epoch_N.pth where it was asked for."""
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adamax(
        [{"params": [model.weight], "scale": 0.1}, {"params": [model.bias], "scale": 1.0}], lr=1
    )
    rates, validated = [], []

    def batch_loss(batch):
        rates.append([group["lr"] for group in optimizer.param_groups])
        return model(batch).sum() * 1e-6, torch.tensor(0), 1

    def validate():
        validated.append(len(rates))
        return None, {}

    args = SimpleNamespace(epochs=5, lr=2.0, clip_norm=1.0, save_every=2)
    engine.fit(
        model,
        optimizer,
        args,
        lambda epoch: [torch.ones(1, 2)] * 3,
        batch_loss,
        validate,
        {},
        tmp_path,
        schedule=lambda epoch, epochs, base: base / (1 + epoch),
        every=3,
        warmup=6,
    )
    expected = [2.0 / (1 + step // 3) * min(1, (step + 1) / 6) for step in range(15)]
    assert [rate[1] for rate in rates] == pytest.approx(expected) and [
        rate[0] for rate in rates
    ] == pytest.approx([0.1 * rate for rate in expected])
    assert validated == [
        6,
        9,
        12,
        15,
    ]  # after epochs 1 and 3 (save_every), 2 (every) and 4 (the last)
    assert {path.name for path in tmp_path.glob("*.pth")} == {
        "last.pth",
        "epoch_1.pth",
        "epoch_3.pth",
    }  # no score, no best


def test_rarer_organs_are_drawn_as_often():
    seen = []

    def read(keys):
        seen.extend(keys)
        return torch.zeros(len(keys), 3, 224, 224)

    labels = (
        {key: 0 for key in range(2)}
        | {key: 1 for key in range(10, 18)}
        | {key: 2 for key in range(20, 40)}
    )
    engine.train_image_type(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3)),
        read,
        labels,
        torch.device("cpu"),
        0,
        epochs=1,
        batch_size=6,
        largest=10,
    )
    counts = [sum(labels[key] == organ for key in seen) for organ in range(3)]
    assert (
        counts == [10, 10, 10]
        and len({key for key in seen if labels[key] == 2}) == 10
        and len({key for key in seen if labels[key] == 1}) == 8
    )


def test_words_are_matched_by_their_text(done, tiny):
    """--vqa_init with another dictionary: a word keeps its own vector, a new one keeps its start."""
    weights, _ = done
    part = torch.load(weights / "brain.pth", weights_only=True)
    data = train.find_data(tiny, say=lambda _: None)
    data.dictionary = ["neverseen", *reversed(data.dictionary)]
    model = VQAModel(
        "SAN",
        len(data.dictionary),
        5,
        part["model_arguments"]["word_dim"],
        32,
        encoder="efficientnet_lite0",
        shared=True,
    )
    before = model.w_emb.emb.weight.detach().clone()
    train.start_language(model, weights / "brain.pth", data)
    theirs = part["compatibility"]["w_emb.emb.weight"]
    for row, word in list(enumerate(data.dictionary))[::7]:
        expected = before[row] if word == "neverseen" else theirs[part["dictionary"].index(word)]
        assert torch.equal(model.w_emb.emb.weight[row], expected)


def test_an_interrupted_run_resumed_ends_with_the_same_bits(
    done, organ_sets, tiny, tmp_path, monkeypatch
):
    weights, _ = done
    arguments = [
        "--organ",
        "brain",
        "--MTPT_dir",
        organ_sets,
        "--RAD_dir",
        tiny,
        "--output",
        tmp_path / "w",
        "--results",
        tmp_path / "r",
        *SMALL,
    ]
    whole = pretrain.Loader.epoch

    def interrupted(loader, epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        return whole(loader, epoch)

    monkeypatch.setattr(pretrain.Loader, "epoch", interrupted)
    monkeypatch.setattr(pretrain, "fit", lambda *a, **k: engine.fit(*a, **k | {"every": 1}))
    with pytest.raises(KeyboardInterrupt):
        run(*arguments)
    assert not (tmp_path / "w" / "brain.pth").exists()
    monkeypatch.setattr(pretrain.Loader, "epoch", whole)
    with pytest.raises(UserError, match="holds brain already"):
        run(*arguments)
    with pytest.raises(UserError, match=r"lr 0.01 \(then\) and 0.5 \(now\)"):
        run(*arguments, "--resume", "--lr", "0.5")
    monkeypatch.setattr(
        pretrain, "imagenet_start", lambda *_: ("efficientnet_lite0", None, "nothing to be had")
    )  # no longer needed
    run(*arguments[:-2], "--resume")  # without --epochs: what is not named now is as then
    ours, theirs = (
        torch.load(folder / "brain.pth", weights_only=True) for folder in (tmp_path / "w", weights)
    )
    for part in ("state", "adapter", "decoder", "compatibility"):
        assert all(torch.equal(ours[part][key], theirs[part][key]) for key in theirs[part]), part
    assert ours["results"] == theirs["results"]
    stamp = (tmp_path / "w" / "brain.pth").stat().st_mtime_ns
    run(*arguments, "--resume")
    assert (tmp_path / "w" / "brain.pth").stat().st_mtime_ns == stamp  # what is done stays
    with pytest.raises(
        UserError, match=r"brain.pth was made with other settings: warmup 2 \(then\) and 9 \(now\)"
    ):
        run(*arguments, "--resume", "--warmup", "9")


def test_organs_not_begun_take_what_was_named_for_others(organ_sets, tiny, tmp_path, monkeypatch):
    """With --resume; a default that depends on the organ, as of the epochs, is not taken along."""

    class Stop(Exception):
        pass

    def fit(
        model, optimizer, args, train_batches, batch_loss, validate, checkpoint, output, *_, **__
    ):
        torch.save(
            checkpoint
            | {
                "version": engine.VERSION,
                "epoch": -1,
                "best": 0.0,
                "history": [],
                "sums": [0.0, 0, 0, 0],
                "model": model.state_dict(),
                "random": [[torch.get_rng_state(), None]],
                "optimizer": optimizer.state_dict(),
            },
            output / "last.pth",
        )
        settings = {
            name: checkpoint["identity"][name] for name in ("epochs", "encoder_rate", "encoder")
        }
        raise Stop({"organ": output.name, "random": "random" in checkpoint["start"]} | settings)

    monkeypatch.setattr(pretrain, "fit", fit)
    monkeypatch.setattr(pretrain, "lock", lambda folder: None)  # what was raised would hold it

    def started(*arguments):
        """What the first organ of a run begins with; there it is interrupted."""
        with pytest.raises(Stop) as stopped:
            run(
                "--MTPT_dir",
                organ_sets,
                "--RAD_dir",
                tiny,
                "--results",
                tmp_path / "r",
                "--num_hid",
                "32",
                "--gpu",
                "-1",
                "--precision",
                "float32",
                *arguments,
            )
        return stopped.value.args[0]

    named, default = ["--output", tmp_path / "named"], ["--output", tmp_path / "default"]
    first = started(
        *named,
        "--epochs",
        "2",
        "--encoder_rate",
        "0.5",
        "--encoder",
        "efficientnet_lite0",
        "--random_encoders",
    )
    assert first == {
        "organ": "abdomen",
        "random": True,
        "epochs": 2,
        "encoder_rate": 0.5,
        "encoder": "efficientnet_lite0",
    }
    for _ in range(2):  # interrupted again: nothing is forgotten
        assert started(*named, "--resume") == first
    assert started(*named, "--organ", "chest", "--resume") == first | {"organ": "chest"}
    assert started(*named, "--organ", "brain", "--resume", "--epochs", "4") == first | {
        "organ": "brain",
        "epochs": 4,
    }  # what is named now counts
    assert started(*named, "--resume") == first  # and what is begun keeps its own
    shutil.rmtree(tmp_path / "named" / "chest")
    assert (
        started(*named, "--organ", "chest")["epochs"] == 100
    )  # without --resume it is a run of its own
    first = started(*default, "--encoder", "efficientnet_lite0", "--organ", "abdomen")
    monkeypatch.setattr(pretrain, "PHANTOM_STEPS", 60)  # stands for an organ with more images
    later = started(*default, "--organ", "chest", "--resume")
    assert (first["epochs"], later["epochs"]) == (100, 30) and later == first | {
        "organ": "chest",
        "epochs": 30,
    }
    (tmp_path / "default" / "chest" / "run.json").write_text("[]")  # the newest one
    with pytest.raises(UserError, match="chest/run.json is not a file of this program"):
        run(
            "--MTPT_dir",
            organ_sets,
            "--RAD_dir",
            tiny,
            "--gpu",
            "-1",
            *default,
            "--organ",
            "brain",
            "--resume",
        )


def test_resume_with_damaged_files(done, organ_sets, tiny, tmp_path):
    weights, _ = done
    arguments = [
        "--organ",
        "brain",
        "--MTPT_dir",
        organ_sets,
        "--RAD_dir",
        tiny,
        "--output",
        tmp_path,
        "--results",
        tmp_path / "r",
        "--resume",
        *SMALL,
    ]
    (tmp_path / "brain").mkdir()
    last = torch.load(weights / "brain" / "last.pth", weights_only=True)
    for spoilt, words in (
        (last | {"optimizer": {}}, "does not fit this run"),
        (last | {"model": {}}, "does not fit this run"),
        ({key: value for key, value in last.items() if key != "random"}, "does not fit this run"),
        ({"version": 1}, "not a checkpoint"),
        (last | {"version": "x"}, "newer version"),
        (last | {"model_arguments": {}}, "does not fit this run"),
        (last | {"encoder": "vgg"}, "does not fit this run"),
        (last | {"encoder": ["vgg"]}, "does not fit this run"),
        ({k: v for k, v in last.items() if k != "model"}, "does not fit this run"),
        (
            last | {"model_arguments": last["model_arguments"] | {"word_dim": 10**9}},
            "does not fit this run",
        ),
        (last | {"identity": last["identity"] | {"epochs": "2"}}, "is damaged: its epochs"),
        (last | {"identity": last["identity"] | {"encoder_rate": None}}, "is damaged: its epochs"),
    ):
        torch.save(spoilt, tmp_path / "brain" / "last.pth")
        with pytest.raises(UserError, match=words):
            run(*arguments)
    (tmp_path / "r").mkdir(exist_ok=True)
    (tmp_path / "r" / "results.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="results.json is not a file of this program"):
        run(*arguments)
    assert not (tmp_path / "brain.pth").exists()


def test_the_image_task_alone_from_random_resnet(organ_sets, tiny, tmp_path):
    run(
        "--organ",
        "abdomen",
        "--MTPT_dir",
        organ_sets,
        "--RAD_dir",
        tiny,
        "--output",
        tmp_path,
        "--results",
        tmp_path / "r",
        *SMALL,
        "--epochs",
        "1",
        "--encoder",
        "resnet34",
        "--random_encoders",
        "--no-compatibility",
    )
    part = torch.load(tmp_path / "abdomen.pth", weights_only=True)
    assert (
        part["encoder"] == "resnet34" and part["adapter"] is None and part["compatibility"] is None
    )
    make_encoder("resnet34").load_state_dict(part["state"])
    results = json.loads((tmp_path / "r" / "results.json").read_text())
    assert "compatibility" not in results["abdomen"]["results"] and list(results) == [
        "version",
        "abdomen",
    ]


def test_polynomial_rate():
    """DESIGN section 7: 100 epochs, power 0.9, every 20; a shorter run has its five stages too."""
    assert all(
        len({pretrain.polynomial_rate(epoch, epochs, 0.01) for epoch in range(epochs)}) == 5
        for epochs in (5, 7, 14, 333)
    )
    rates = [pretrain.polynomial_rate(epoch, 100, 0.01) for epoch in range(100)]
    assert rates[0] == rates[19] == 0.01 and rates[20] == rates[39] == pytest.approx(
        0.01 * 0.8**0.9
    )
    assert rates[99] == pytest.approx(0.01 * 0.2**0.9) and len(set(rates)) == 5
    assert len({pretrain.polynomial_rate(epoch, 10, 0.01) for epoch in range(10)}) == 5
    assert pretrain.polynomial_rate(0, 1, 0.01) == 0.01


def test_loss_by_hand():
    output = PretrainingOutput(
        torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    )
    task = (-np.log(np.e / (np.e**2 + 1 + np.e)) - np.log(1 / 3)) / 2
    compatibility = (np.log(1 + np.exp(-1)) + np.log(1 + np.exp(3))) / 2
    loss = pretrain.pretraining_loss(output, torch.tensor([2, 0]), torch.tensor([0, 0]))
    assert loss.item() == pytest.approx(task + compatibility, rel=1e-6)
    alone = pretrain.pretraining_loss(
        PretrainingOutput(output.task_logits, None), torch.tensor([2, 0]), torch.tensor([0, 0])
    )
    assert alone.item() == pytest.approx(task, rel=1e-6)


class FixedModel(torch.nn.Module):
    """Predicts what it is told, in place of a model."""

    def __init__(self, predictions):
        super().__init__()
        self.predictions, self.compatibility = predictions, None

    def maps(self, images):
        return [torch.zeros(len(images), 512, 7, 7)]

    def decoder(self, maps):
        count = len(maps[0])
        logits = F.one_hot(torch.stack([self.predictions.pop(0) for _ in range(count)]), 4)
        return logits.movedim(-1, 1).float()


def test_iou_is_its_definition(tmp_path):
    """Intersection over union of all held-out pixels per class; a class that no held-out mask has does not count in the mean."""
    rng = np.random.default_rng(0)
    masks = [
        rng.integers(0, 3, (224, 224)).astype(np.uint8) for _ in range(3)
    ]  # class 3 does not occur
    predictions = [
        np.where(rng.random(mask.shape) < 0.7, mask, rng.integers(0, 4, mask.shape))
        for mask in masks
    ]
    samples = []
    for i, mask in enumerate(masks):
        Image.fromarray(mask).save(tmp_path / f"{i}.png")
        samples.append(mtpt.Sample(tmp_path / f"{i}.png", tmp_path / f"{i}.png"))
    args = pretrain.parse_args([])
    loader = pretrain.Loader(
        mtpt.OrganImages(samples, "abdomen", [], augment=False), torch.device("cpu"), args
    )
    model = FixedModel([torch.from_numpy(p.astype(np.int64)) for p in predictions])
    results, table, predicted, _ = pretrain.evaluate(
        model, loader, ["background", "a", "b", "c"], torch.device("cpu"), "float32"
    )
    truth, guess = np.stack(masks), np.stack(predictions)
    iou = [
        ((truth == c) & (guess == c)).sum() / ((truth == c) | (guess == c)).sum() for c in range(3)
    ]
    assert (
        results["mean_iou"] == pytest.approx(np.mean(iou), abs=1e-4) and results["iou"]["c"] is None
    )
    assert results["mean_iou_without_background"] == pytest.approx(np.mean(iou[1:]), abs=1e-4)
    assert results["pixel_accuracy"] == pytest.approx((truth == guess).mean(), abs=1e-4)
    assert (
        np.array_equal(torch.stack(predicted), guess)
        and table[0, 1] == ((truth == 0) & (guess == 1)).sum()
    )


def test_evaluation_waits_for_no_other_process(tmp_path, monkeypatch):
    """Of several processes the first one evaluates alone at the end."""
    monkeypatch.setattr("torchmetrics.metric.jit_distributed_available", lambda: True)
    monkeypatch.setattr(
        "torchmetrics.metric.gather_all_tensors", lambda *_: pytest.fail("it waits")
    )
    Image.new("L", (30, 30)).save(tmp_path / "0.png")
    loader = pretrain.Loader(
        mtpt.OrganImages([mtpt.Sample(tmp_path / "0.png", 1)], "chest", [], augment=False),
        torch.device("cpu"),
        pretrain.parse_args([]),
    )
    assert pretrain.evaluate(FixedClasses([1]), loader, ["a", "b"], torch.device("cpu"), "float32")[
        0
    ]["confusion"] == [[0, 0], [0, 1]]


def test_a_mean_of_no_class_is_null(tmp_path):
    """Held-out masks may lose their small organs when they are resized: then only background is left, and results stay JSON."""
    Image.fromarray(np.zeros((224, 224), np.uint8)).save(tmp_path / "0.png")
    loader = pretrain.Loader(
        mtpt.OrganImages(
            [mtpt.Sample(tmp_path / "0.png", tmp_path / "0.png")], "abdomen", [], augment=False
        ),
        torch.device("cpu"),
        pretrain.parse_args([]),
    )
    model = FixedModel([torch.zeros(224, 224, dtype=torch.long)])
    results = pretrain.evaluate(
        model, loader, ["background", "a", "b", "c"], torch.device("cpu"), "float32"
    )[0]
    assert results["mean_iou"] == 1 and results["mean_iou_without_background"] is None
    assert results["iou"] == {"background": 1, "a": None, "b": None, "c": None}
    pretrain.save_results(tmp_path, "abdomen", {"results": results})
    assert (
        json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)["abdomen"][
            "results"
        ]
        == results
    )


class FixedClasses(FixedModel):
    def decoder(self, maps):
        return F.one_hot(torch.tensor([self.predictions.pop(0) for _ in maps[0]]), 2).float()


@pytest.mark.parametrize(
    "copies, without, words",
    [
        ({}, 0.5, "accuracy 50.0% on 4 held-out images"),
        ({1: 0, 2: 0}, 0.0, "50.0% on 4 held-out images (0.0% without the 2 that are copies"),
        ({0: 3}, 0.6667, "50.0% on 4 held-out images (66.7% without the 1 that are copies"),
        (dict.fromkeys(range(4), 0), None, "(nothing is left without the 4"),
    ],
)
def test_accuracy_without_copies(tmp_path, copies, without, words):
    Image.new("L", (30, 30)).save(tmp_path / "0.png")
    samples = [mtpt.Sample(tmp_path / "0.png", target) for target in (0, 1, 1, 0)]
    loader = pretrain.Loader(
        mtpt.OrganImages(samples, "chest", [], augment=False),
        torch.device("cpu"),
        pretrain.parse_args([]),
    )
    held = SimpleNamespace(classes=["a", "b"], copies=copies, organ="chest")
    results = pretrain.results_of(
        FixedClasses([1, 1, 1, 1]), held, loader, {}, torch.device("cpu"), "float32"
    )[0]
    assert (
        results["accuracy"] == 0.5
        and results["copies"] == len(copies)
        and results["accuracy_without_copies"] == without
    )
    assert words in pretrain.describe("chest", results)


def test_what_to_do_next(tmp_path, monkeypatch):
    """train.sh alone finds the default folder only, and takes three organs or none."""
    home = tmp_path / "saved_models" / "MTPT"
    monkeypatch.setattr(pretrain, "HERE", tmp_path)
    for folder in (home, tmp_path / "my folder"):
        folder.mkdir(parents=True)
        (folder / "brain.pth").touch()
        assert "three organs or none, and abdomen and chest are not made yet" in pretrain.next_step(
            folder
        )
        for organ in ORGAN_ENCODERS:
            (folder / f"{organ}.pth").touch()
    assert pretrain.next_step(home) == f"Next: {tmp_path / 'train.sh'}"
    words = shlex.split(pretrain.next_step(tmp_path / "my folder"))[2:]
    args = train.parse_args(words)
    assert (
        args.brain_model_path == tmp_path / "my folder" / "brain.pth"
        and args.named == list(train.MTPT_FILES)[:3]
    )


class FixedCompatibility(torch.nn.Module):
    """Says that a question fits when its first token is even."""

    def compatible(self, visual, tokens):
        return F.one_hot((tokens[:, 0] % 2 == 0).long(), 2).float()


def test_compatibility_by_hand():
    organs = [
        {1},
        {0, 1},
        {2},
        {1},
        {0},
    ]  # asked of brain images (organ 1): yes yes no yes no; the model says yes no yes no yes
    entries = [mtpt.Entry((i,) * 12, frozenset(asked), "") for i, asked in enumerate(organs)]
    results = pretrain.evaluate_compatibility(
        FixedCompatibility(),
        torch.zeros(2, 512, 7, 7),
        entries,
        "brain",
        torch.device("cpu"),
        "float32",
        2,
    )
    assert results == {"accuracy": 0.2, "majority": 0.6, "pairs": 5}


@pytest.mark.parametrize("task, classes", [("segmentation", 6), ("classification", 4)])
@pytest.mark.parametrize("encoder", ["resnet34", "efficientnet_lite0"])
def test_every_pretraining_model_trains(task, classes, encoder):
    torch.manual_seed(0)
    model = PretrainingModel(task, classes, ntoken=20, word_dim=10, hidden=32, encoder=encoder)
    images, questions = torch.randn(2, 3, 224, 224), torch.randint(0, 21, (2, 12))
    output = model(images, questions)
    assert output.task_logits.shape == (
        (2, classes, 224, 224) if task == "segmentation" else (2, classes)
    )
    assert output.compatibility_logits.shape == (2, 2)
    (output.task_logits.square().mean() + output.compatibility_logits.square().mean()).backward()
    for name, parameter in model.named_parameters():
        assert (
            parameter.grad is not None or not parameter.requires_grad or name.endswith("W.bias")
        ), name


def test_efficientnet_maps_have_their_sizes_and_end_in_its_features():
    encoder = make_encoder("efficientnet_lite0").eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        maps = encoder.skips(images)
        assert [tuple(one.shape[1:]) for one in maps] == [
            (24, 56, 56),
            (40, 28, 28),
            (112, 14, 14),
            (1280, 7, 7),
        ]
        assert torch.equal(maps[-1], encoder(images))


def test_a_learnable_task_is_learnt(organ_sets, tiny, tmp_path):
    """Loss falls and the image task is better than chance after a short run on drawings."""
    run(
        "--organ",
        "chest",
        "--MTPT_dir",
        organ_sets,
        "--RAD_dir",
        tiny,
        "--output",
        tmp_path,
        "--results",
        tmp_path / "r",
        *SMALL,
        "--epochs",
        "12",
        "--lr",
        "0.003",
    )
    log = [json.loads(line) for line in (tmp_path / "chest" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["train_score"] > 0.8


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--batch_size", "1"], "--batch_size 1"),
        (["--epochs", "0"], "--epochs 0"),
        (["--lr", "0"], "--lr"),
        (["--seed", "-1"], "--seed"),
        (["--encoder_rate", "-2"], "--encoder_rate"),
        (["--MTPT_dir", "/nonexistent"], "/nonexistent"),
        (["--gpu", "99"], "--gpu 99"),
    ],
)
def test_bad_arguments(arguments, words, tiny, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(
        sys,
        "argv",
        ["pretrain.py", "--RAD_dir", str(tiny), "--output", str(tmp_path / "out"), *arguments],
    )
    with pytest.raises(SystemExit) as stop:
        run_main(pretrain.main)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    assert (
        stop.value.code == 2
        and len(lines) == 1
        and words in lines[0]
        and not (tmp_path / "out").exists()
    )


def test_an_empty_data_folder_gets_the_phantom_and_a_banner(tmp_path, monkeypatch):
    import phantom_MTPT

    draw = phantom_MTPT.draw_organs
    monkeypatch.setattr(phantom_MTPT, "draw_organs", lambda folder: draw(folder, images=15))
    monkeypatch.setattr(mtpt, "DATA_MTPT", tmp_path)
    said = []
    sets = mtpt.find_organ_sets(None, say=said.append)
    assert "PHANTOM ORGAN SETS ARE IN USE" in said[0] and all(one.phantom for one in sets.values())
    assert (
        mtpt.find_organ_sets(None, say=said.append)["brain"].digest == sets["brain"].digest
    )  # drawn once
    (tmp_path / "brain").mkdir()
    with pytest.raises(
        UserError, match="no folder abdomen"
    ):  # a half-filled folder is never mixed with drawings
        mtpt.find_organ_sets(None)
