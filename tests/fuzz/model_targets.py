"""The fuzzer's targets among readers of checkpoints: what train, test, ask, export, pretrain do."""

import csv
import functools
import json
import os
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

import ask
import export
import pretrain
import test as evaluation
import train
from base_model import VQAModel
from dataset_MTPT import OrganSet
from decoders import PretrainingModel
from engine import Trainer
from readers import checkpoints, pretraining, weights
from readers.question_lists import read_questions
from tests.fuzz.attempt import check
from tests.fuzz.contents import as_json, png, saved
from tools.ask_many import answer_file
from utils import SIZE, VERSION, UserError

SMALL = "--model SAN --num_hid 4 --num_stacks 1 --no-distmodal --encoder efficientnet_lite0".split()
TRAINING, _ = train.parse_args(SMALL)
TRAINING.epochs, TRAINING.freeze_encoders = 2, True  # as main() settles them
DATA = SimpleNamespace(
    ntoken=2,
    num_answers=2,
    dictionary=["is", "it"],
    answers=["yes", "no"],
    name="n",
    folder="f",
    digest="digest",
)
MODEL_ARGUMENTS = dict(
    fusion="SAN",
    ntoken=2,
    num_answers=2,
    hidden=4,
    rnn="LSTM",
    word_dim=2,
    use_spatial=True,
    blocks=2,
    glimpses=2,
    encoder="efficientnet_lite0",
    distmodal=False,
    shared=False,
    num_stacks=1,
)


def light_model():
    """(a small module that stands for a model, its optimizer)."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    return model, torch.optim.Adamax(model.parameters())


def make_state():
    """A run's last.pth as engine.Trainer saves it, of the light model."""
    model, optimizer = light_model()
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    return {
        "version": VERSION,
        "epoch": 1,
        "best": 0.5,
        "history": [{"epoch": 0, "loss": 1.0}],
        "sums": [0.0, 0, 0, 0],
        "model": dict(model.state_dict()),
        "optimizer": optimizer.state_dict(),
        "random": [[torch.get_rng_state(), None]],
        "dictionary": DATA.dictionary,
        "answers": DATA.answers,
        "data": {"name": DATA.name, "digest": DATA.digest, "folder": DATA.folder},
        "settings": checkpoints.settings_of(TRAINING),
        "recipe": "paper",
        "changed": {},
        "start": "random weights",
        "model_arguments": MODEL_ARGUMENTS,
        "prior_arguments": None,
    }


STATE = make_state()


def run_checkpoint(folder):
    """What train.py --resume and test.py --epoch do with last.pth before the first step."""
    path, (model, optimizer) = folder / "last.pth", light_model()
    args, kept = train.parse_args(["--resume", "--output", str(folder)])
    checkpoints.check_vocabulary(kept, DATA, path)
    checkpoints.copy_shared_encoder(kept)
    range(kept["settings"]["epochs"])
    Trainer(model, optimizer, folder, {}, args.clip_norm).restore(kept, path)
    checkpoints.find_checkpoint(folder, 1, folder)


def whole_model():
    """A run's best.pth with a real model."""
    model = VQAModel(**MODEL_ARGUMENTS)
    return {"best.pth": saved(STATE | {"model": model.state_dict()})}


def run_model(folder):
    """What ask.py, test.py, export.py and train.py --input do with a run's best.pth."""
    path = folder / "best.pth"
    ask.answer(*ask.load(path), np.zeros((SIZE, SIZE, 3), np.uint8), "is it")
    _, kept, _ = evaluation.load_model(
        path, SimpleNamespace(model=None, rnn=None, split=None, epoch=None)
    )
    export.about(kept)
    args = SimpleNamespace(**vars(TRAINING) | {"input": path})
    train.old_model(args, checkpoints.read_checkpoint(path), path, DATA, frozen=True)


QUESTIONS = [["image", "question", "n"], ["a.png", "is it", "1"], ["b.png", "it, is it?", ""]]
PICTURES = {"a.png": png([[90]]), "b.png": png(np.full((4, 2), 9))}


def batch_files():
    """Lists of questions in each form that ask.py --batch reads, with their images."""
    table = "\n".join(",".join(f'"{cell}"' for cell in row) for row in QUESTIONS)
    objects = [dict(zip(QUESTIONS[0], row)) for row in QUESTIONS[1:]]
    files = [{"q.csv": "\n".join(map(",".join, QUESTIONS)).replace(", ", " ").encode()}]
    files += [{"q.csv": table.encode("utf-16")}, {"q.csv": table.replace('","', '";"').encode()}]
    files += [{"q.json": as_json(objects)}, {"q.jsonl": b"\n".join(map(as_json, objects))}]
    return [PICTURES | one for one in files]


@cache
def asked_model():
    """(a model whose images all look alike, the rest of its checkpoint), as ask.load gives them."""
    model = VQAModel(**MODEL_ARGUMENTS).eval()
    model.image.maps = lambda images: torch.ones(1, 1, 1280, 7, 7)  # it takes no time
    return model, STATE | {"path": "best.pth", "epochs": (2, 2)}


def run_batch(folder):
    """ask.py --batch: each row is written, with an answer or an error."""
    paths = [folder / name for name in ("q.csv", "q.json", "q.jsonl")]
    path = next(filter(os.path.lexists, paths), paths[0])
    rows, failed = read_questions(path), None
    for output in (folder / "new" / "answers.jsonl", folder / "new" / "answers.csv"):
        args = SimpleNamespace(batch=path, output=output, top=2, json=False)
        try:
            answer_file(*asked_model(), rows, args)
        except UserError as error:
            failed = error
        with open(output, encoding="utf-8", newline="") as file:
            read = map(json.loads, file) if output.suffix == ".jsonl" else csv.DictReader(file)
            told = [row["model_answer"] or row["error"] for row in read]
        check(len(told) == len(rows) and all(told), "a row is lost, or has no answer and no error")
    if failed:
        raise failed


def language():
    """A module that stands for the question side of a VQAModel."""
    tables = {name: torch.nn.Embedding(3, 4) for name in ("emb", "emb_")}
    parts = {"w_emb": torch.nn.ModuleDict(tables), "q_emb": torch.nn.Linear(2, 2)}
    model = torch.nn.ModuleDict(parts)
    model.fusion = "CMSA"
    return model


PART = {  # as pretrain.py keeps it
    "version": VERSION,
    "encoder": "resnet34",
    "state": dict(torch.nn.Linear(2, 2).state_dict()),
    "adapter": {"weight": torch.zeros(1)},
    "phantom": False,
    "settings": {"seed": 0},
    "dictionary": ["is", "it"],
    "compatibility": dict(language().state_dict()),
    "epoch": 3,
}


def run_part(folder):
    """What train.py does with a file of pretrain.py's."""
    path = folder / "best.pth"
    named = dict.fromkeys(weights.MTPT_FILES, path)
    parts = weights.find_parts(named, None, phantom=True)
    _, encoders, description = weights.choose_encoders(parts, "auto", named)
    for part in [*encoders, parts[weights.IMAGE_TYPE_ARGUMENT]]:
        checkpoints.load_part(torch.nn.Linear(2, 2), part["state"], description)
    weights.start_language(language(), path, ["it", "was"])


PRETRAINING = ["--encoder", "efficientnet_lite0", "--num_hid", "4", "--epochs", "2"]
ORGAN_SET = OrganSet("brain", "classification", ["a", "b"], [], [], Path("f"), False, "digest")


def pretraining_files():
    """An organ's last.pth and run.json, before its first step."""
    args = pretrain.parse_args(PRETRAINING)
    arguments = pretrain.model_arguments(args, ORGAN_SET, DATA, args.encoder, word_dim=2)
    model = PretrainingModel(**arguments)
    about = {
        "version": VERSION,
        "data": {"digest": "digest"},
        "questions": {"digest": "digest"},
        "start": "random weights",
        "encoder": args.encoder,
        "epochs": 2,
        "encoder_rate": 0.5,
        "settings": checkpoints.settings_of(args),
        "model_arguments": arguments,
    }
    progress = {key: STATE[key] for key in ("epoch", "best", "history", "sums", "random")}
    states = {"model": model.state_dict()}
    states["optimizer"] = pretrain.make_optimizer(model, args.lr, 0.5).state_dict()
    checkpoint = about | progress | states | {"dictionary": DATA.dictionary}
    return {"brain/last.pth": saved(checkpoint), "brain/run.json": as_json(about)}


def run_pretraining(folder):
    """What pretrain.py --resume does with an organ's run before the first step."""
    arguments = ["--resume", "--output", str(folder)]
    args = pretrain.parse_args(arguments)
    kept, path = pretraining.read_run(folder, "brain")
    if not kept:
        return
    args = pretrain.settings_of_run(args, kept, path, arguments)
    pretraining.check_same_data(kept, ORGAN_SET, DATA, path)
    wanted = functools.partial(pretrain.model_arguments, args, ORGAN_SET, DATA)
    model, _ = pretraining.old_model(kept, wanted, path)
    optimizer = pretrain.make_optimizer(model, args.lr, kept["encoder_rate"])
    Trainer(model, optimizer, folder, {}, args.clip_norm, args.warmup).restore(kept, path)
    check(type(kept["epochs"]) is int, "a number of epochs that is none")
