"""What a setting is worth, on validation questions only, drawn from the training questions and answered by a small stand-in for the whole model.

    python ablate.py --RAD_dir DIR base "epochs=40" "loss=bce label_smoothing=0 schedule=steps"
    python ablate.py --RAD_dir DIR --split clean --draws 5 base "image=0"

An argument is one row of the table: `base`, the settings that --help lists, or what it changes in them. A draw trains on the training
questions without a random fifth of the freeform and para ones, and is scored on that; a row is compared with the first one draw by
draw. The stand-in sees an image as the mean of its frozen EfficientNet-Lite0 map and multiplies it with the sum of an LSTM's states: a
draw takes about a minute, CMSA's ten. Test questions are never looked at. ABLATIONS.md has what came of it.
"""

import argparse
import math
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from base_model import ImageSide, VQAOutput
from classifier import AnswerClassifier
from dataset_RAD import find_data, find_embedding, idf_weights, split_validation, training_questions
from engine import (
    RECIPES,
    SCHEDULES,
    Inputs,
    batches,
    collate,
    encode_images,
    imagenet_start,
    load_part,
    train_step,
    vqa_loss,
)
from language_model import QuestionEncoder, WordEmbedding
from utils import UserError, choose_device, run_main, say, set_seed, write_json

# the recipe "best", but for idf, more epochs and larger batches; the validation part is the same for every row
BASE = {
    key: RECIPES["best"][key] for key in ("loss", "label_smoothing", "schedule", "word_dropout")
} | {
    "idf": 0,
    "epochs": 20,
    "lr": 0.005,
    "batch_size": 64,
    "clip_norm": 0.25,
    "dropout": 0.5,
    "width": 512,
    "image": 1,
}
FRACTION = 0.2


class SmallModel(nn.Module):
    """pooled (B, E) and questions (B, 12) -> VQAOutput with logits (B, answers): q + tanh(W v) * tanh(U q), then the answer classifier."""

    def __init__(
        self, ntoken, answers, word_dim, channels, width=512, dropout=0.5, word_dropout=0.0, image=1
    ):
        super().__init__()
        self.w_emb = WordEmbedding(ntoken, word_dim, word_dropout)
        self.q_emb = QuestionEncoder(2 * word_dim, width)
        self.of_image = nn.Sequential(
            nn.BatchNorm1d(channels),
            nn.Linear(channels, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.Tanh(),
        )
        self.gate = nn.Linear(width, width)
        self.classifier = AnswerClassifier(width, 1024, answers, dropout)
        self.image = image

    def forward(self, pooled, questions):
        features = self.q_emb(self.w_emb(questions)).sum(1)  # (B, width)
        if self.image:
            features = features + self.of_image(pooled) * torch.tanh(self.gate(features))
        return VQAOutput(self.classifier(features), None, features)


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add(
        "settings",
        nargs="+",
        help=f"rows of the table: base, or changes of it: {' '.join(f'{key}={value}' for key, value in BASE.items())}",
    )
    add("--RAD_dir", type=Path, default=argparse.SUPPRESS, help="as for train.py")
    add(
        "--split",
        choices=["official", "clean"],
        default="official",
        help="official keeps rewordings of the validation questions in training, clean drops them",
    )
    add(
        "--draws",
        type=int,
        default=3,
        help="random fifths of the freeform and para training questions, the same ones for every row",
    )
    add("--gpu", type=int, default=argparse.SUPPRESS, help="CUDA device, -1 for the CPU")
    add("--json", type=Path, default=argparse.SUPPRESS, help="write the table there too")
    args = parser.parse_args()
    if args.draws < 1:
        raise UserError(f"--draws {args.draws}: at least 1 is wanted")
    return args


def read_settings(text):
    """ "base", or "key=value key=value" -> all settings. Raises UserError."""
    settings = dict(BASE)
    for change in text.split() if text != "base" else ():
        key, _, value = change.partition("=")
        try:
            settings[key] = type(BASE[key])(value)
        except (KeyError, ValueError):
            raise UserError(
                f"{change!r} is no setting: key=value is wanted, with a key of {', '.join(BASE)}"
            ) from None
    if (
        settings["schedule"] not in SCHEDULES
        or settings["loss"] not in ("bce", "ce")
        or not {settings["image"], settings["idf"]} <= {0, 1}
    ):
        raise UserError(
            f"{text!r}: loss is bce or ce, schedule one of {', '.join(SCHEDULES)}, image and idf 0 or 1"
        )
    if (
        min(settings["epochs"], settings["batch_size"] - 1, settings["width"]) < 1
        or not all(0 < settings[key] < math.inf for key in ("lr", "clip_norm"))
        or not all(0 <= settings[key] < 1 for key in ("label_smoothing", "word_dropout", "dropout"))
    ):
        raise UserError(
            f"{text!r}: epochs and width are at least 1, batch_size at least 2, lr and clip_norm above 0, label_smoothing, "
            "word_dropout and dropout from 0 to below 1"
        )
    return settings


def train_and_answer(settings, data, vectors, pooled, train, val, device, seed):
    """Train on a draw's training part; which of its validation questions are then answered rightly: a list of bool."""
    set_seed(seed)
    model = SmallModel(
        data.ntoken,
        data.num_answers,
        vectors.shape[1],
        pooled.shape[1],
        settings["width"],
        settings["dropout"],
        settings["word_dropout"],
        settings["image"],
    )
    model.w_emb.initialise(
        vectors * torch.from_numpy(idf_weights(train, data.ntoken))[:, None]
        if settings["idf"]
        else vectors
    )
    model.to(device)
    optimizer = torch.optim.Adamax(
        [p for p in model.parameters() if p.requires_grad], lr=settings["lr"]
    )
    for epoch in range(settings["epochs"]):
        for group in optimizer.param_groups:
            group["lr"] = SCHEDULES[settings["schedule"]](epoch, settings["epochs"], settings["lr"])
        model.train()
        for batch in batches(train, settings["batch_size"], seed, epoch):
            tokens, labels, organs = collate(batch, device)
            output = model(pooled[[q.image for q in batch]], tokens)
            train_step(
                model,
                optimizer,
                vqa_loss(output, labels, organs, settings["loss"], settings["label_smoothing"]),
                settings["clip_norm"],
            )
    model.eval()
    with torch.inference_mode():
        tokens, labels, _ = collate(val, device)
        return (model(pooled[[q.image for q in val]], tokens).logits.argmax(1) == labels).tolist()


def pool(data, device):
    """The mean over the cells of every image's EfficientNet-Lite0 map, float32 (N, 1280) on the device."""
    encoder, state, _ = imagenet_start("efficientnet_lite0")
    side = ImageSide(encoder, shared=True)
    load_part(side.encoders[0], state, "the encoder's start")
    inputs = Inputs(data, device, encode_images(side.to(device), data, device), distmodal=False)
    return torch.cat(
        [inputs([row])["maps"][:, 0].mean((2, 3)) for row in range(len(data.image_names))]
    )


GROUPS = {
    "freeform": lambda q: q.phrase_type == "freeform",
    "freeform + para": lambda q: True,
    "open": lambda q: q.answer_type == "OPEN",
    "closed": lambda q: q.answer_type == "CLOSED",
    "twin": lambda q: q.twin,
    "no twin": lambda q: not q.twin,
}


def cell(scores, first, compared):
    """A cell of the table from a row's scores and the first row's, one a draw."""
    if math.isnan(mean := statistics.mean(scores)):
        return "-"
    differences = [one - other for one, other in zip(scores, first)]
    spread = f" ± {statistics.stdev(differences):.1f}" if len(scores) > 1 else ""
    return f"{mean:.1f}" + (f" ({statistics.mean(differences):+.1f}{spread})" if compared else "")


def main():
    args = parse_args()
    rows = [(text, read_settings(text)) for text in args.settings]
    device = choose_device(getattr(args, "gpu", None))
    data = find_data(getattr(args, "RAD_dir", None), say=say)
    found = find_embedding(data, "glove", say)
    vectors = (
        torch.from_numpy(found[0])
        if found
        else torch.randn(data.ntoken, 100, generator=torch.Generator().manual_seed(0))
    )
    pooled = pool(data, device)
    draws = [
        split_validation(training_questions(data, args.split), FRACTION, args.split, 100 + draw)
        for draw in range(args.draws)
    ]
    print(
        f"{data.name} ({data.digest}), {args.split} split, {args.draws} draws of {len(draws[0][1])} validation questions; accuracy in %, in brackets its mean "
        f"difference to the first row and the standard deviation of that over the draws\n\n| settings | {' | '.join(GROUPS)} | seconds |\n"
        f"|---|{'---|' * (len(GROUPS) + 1)}",
        flush=True,
    )
    out = []
    for text, settings in rows:
        began, scores = time.perf_counter(), {name: [] for name in GROUPS}
        for draw, (train, val) in enumerate(draws):
            right = train_and_answer(settings, data, vectors, pooled, train, val, device, draw)
            for name, belongs in GROUPS.items():
                chosen = [good for good, question in zip(right, val) if belongs(question)]
                scores[name].append(
                    100 * statistics.mean(chosen) if chosen else math.nan
                )  # e.g. no para among the questions
        out.append(
            {
                "changes": text,
                "settings": settings,
                "scores": scores,
                "seconds": round(time.perf_counter() - began, 1),
            }
        )
        cells = [cell(scores[name], out[0]["scores"][name], len(out) > 1) for name in GROUPS]
        print(f"| {text} | {' | '.join(cells)} | {out[-1]['seconds']:.0f} |", flush=True)
    if getattr(args, "json", None):
        write_json(
            args.json, {"data": data.about(), "split": args.split, "draws": args.draws, "rows": out}
        )


if __name__ == "__main__":
    run_main(main)
