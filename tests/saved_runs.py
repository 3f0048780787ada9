"""Run folders of untrained models and results folders, as train.py and test.py leave them."""

import json
from types import SimpleNamespace

import numpy as np
import torch

from extras import WithPrior, fit_prior
from readers.checkpoints import build, save_checkpoint
from scores import intervals, protocol, table
from utils import ORGAN_CODES, VERSION

SETTINGS = {
    "split": "official",
    "seed": 0,
    "val_fraction": 0.1,
    "question_len": 12,
    "question_only": False,
    "image_only": False,
    "freeze_encoders": True,
    "recipe": "paper",
    "epochs": 2,
    "form_rule": False,
}
SMALL = {  # a model whose tests take seconds
    "fusion": "CMSA",
    "word_dim": 20,
    "hidden": 32,
    "encoder": "efficientnet_lite0",
    "shared": True,
    "num_stacks": 2,
    "glimpses": 2,
}


def small_model(words, answers, prior=False, **arguments):
    """(an untrained model, what its checkpoint says of it) for so many words and answers."""
    sizes = {"ntoken": words, "num_answers": answers}
    made_with = {"model_arguments": SMALL | sizes | arguments, "prior_arguments": None}
    torch.manual_seed(0)
    model = build(**made_with).eval()
    if prior:
        training = [
            SimpleNamespace(tokens=(i % words, words), image=i, label=i % answers) for i in range(9)
        ]
        cells = dict(enumerate(torch.randn(9, 1280)))
        part, made_with["prior_arguments"] = fit_prior(
            training, cells, words, answers, np.eye(words, 8, dtype=np.float32)
        )
        model = WithPrior(model, part).eval()
    return model, made_with


def save_run(folder, model, made_with, /, dictionary, answers, about, settings=None, **other):
    """Write best.pth of a run. about: RadData.about(); settings, other: what differs."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = made_with | {
        "version": VERSION,
        "settings": SETTINGS | (settings or {}),
        "dictionary": dictionary,
        "answers": answers,
        "data": about,
        "start": "random weights",
        "model": model.state_dict(),
        "random": torch.get_rng_state(),
        "epoch": 1,
        "best": 0.5,
    }
    save_checkpoint(folder / "best.pth", kept | other)
    return folder


def prediction(qid, correct=1, answer="yes", truth=None, answer_type="CLOSED", **other):
    """A row of predictions.json; `other` are fields that differ."""
    truth = truth or (answer if correct else "no" if answer == "yes" else "yes")
    row = {
        "qid": qid,
        "image": f"image{qid % 7}.jpg",
        "organ": "HEAD",
        "question": f"is question {qid} answered?",
        "phrase_type": "freeform",
        "answer_type": answer_type,
        "question_types": ["PRES"],
        "truth": truth,
        "answer": answer,
        "probability": 0.9,
        "correct": correct,
        "known_answer": 1,
        "twin": qid % 2,
        "image_in_training": 1,
        "near_identical_in_training": 0,
        "unknown_words": [],
        "data": "VQA-RAD 0",
    }
    return {"top5": [[answer, other.get("probability", 0.9)], ["other", 0.01]]} | row | other


MANY = [  # a third right, all organs, two thirds with two types, a quarter para
    prediction(
        i,
        int(i % 3 == 0),
        organ=ORGAN_CODES[i // 3 % 3],
        question_types=["PRES", "POS"] if i % 5 else ["SIZE"],
        phrase_type="para" if i % 4 == 3 else "freeform",
    )
    for i in range(200)
]


def save_results(folder, rows, **about):
    """Write a results folder; `about` are fields of results.json that differ."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions.json").write_text(json.dumps(rows))
    results = {
        "version": VERSION,
        "model": "CMSA",
        "recipe": "paper",
        "changed": {},
        "split": "clean",
        "data": {"name": "VQA-RAD", "digest": "0", "folder": "/nonexistent/data"},
        "checkpoint": "/nonexistent/run/best.pth",
        "epoch": 3,
        "question_only": False,
        "image_only": False,
        "training_questions": 7,
    }
    (folder / "results.json").write_text(json.dumps(results | about))
    return folder


def save_scored(folder, rows, **about):
    """A results folder whose results.json and results_all.json hold the scores of the rows."""
    for name in ("all", "freeform"):
        chosen = protocol(rows, name)
        scores = table(chosen) | {"interval95_percent": intervals(chosen)}
        save_results(folder, rows, **about, **scores)
        if name == "all":
            (folder / "results.json").rename(folder / "results_all.json")
    return folder
