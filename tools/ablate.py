"""What a setting is worth, on validation questions and with a small stand-in for the model.

    python -m tools.ablate base "epochs=40" "loss=bce label_smoothing=0 schedule=steps"
    python -m tools.ablate --RAD_dir DIR --split clean --draws 5 base "image=0"

An argument is one row of the table: `base`, the settings that --help lists, or a list of changes
in them. A draw trains on the training questions without a random fifth of the freeform and para
ones, and that fifth scores it. A row is compared with the first one draw by draw. The stand-in
sees an image as the mean cell of its frozen EfficientNet-Lite0 map, and multiplies it with the
sum of an LSTM's states. It takes about a minute a draw, CMSA ten. Test questions are never looked
at. docs/TUNED.md has the results.
"""

import argparse
import math
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from base_model import CHANNELS, ImageSide, VQAOutput
from classifier import AnswerClassifier
from dataset_RAD import find_data, split_validation, training_questions
from engine import RATES, batches, collate, train_step, vqa_loss
from extras import idf_weights, mean_cells
from features import model_inputs
from language_model import QuestionEncoder, WordEmbedding
from readers.checkpoints import load_part
from readers.sets import add_options
from readers.vectors import find_embedding
from readers.weights import imagenet_state
from settings import RECIPES
from utils import UserError, choose_device, log, run_main, set_seed, write_json

ENCODER = "efficientnet_lite0"
# the recipe tuned, but for idf, more epochs and the same validation questions in every row
FROM_RECIPE = ("loss", "label_smoothing", "schedule", "word_dropout", "batch_size")
BASE = {name: RECIPES["tuned"][name] for name in FROM_RECIPE} | {
    "idf": 0,
    "epochs": 20,
    "lr": 0.005,
    "clip_norm": 0.25,
    "dropout": 0.5,
    "width": 512,
    "image": 1,
}
FRACTION = 0.2  # of the freeform and para questions, for validation
GROUPS = {
    "freeform": lambda q: q.phrase_type == "freeform",
    "freeform + para": lambda q: True,
    "open": lambda q: q.answer_type == "OPEN",
    "closed": lambda q: q.answer_type == "CLOSED",
    "twin": lambda q: q.twin,
    "no twin": lambda q: not q.twin,
}


class SmallModel(nn.Module):
    """The stand-in: q + tanh(MLP(v)) * tanh(U q), then the answer classifier.

    pooled (B, channels) and questions (B, 12) -> VQAOutput with logits (B, answers). settings:
    those of a row; `width`, `dropout`, `word_dropout` and `image` are used. sizes: those of the
    word list, the answers and a word vector.
    """

    def __init__(self, sizes, settings, channels=CHANNELS[ENCODER]):
        super().__init__()
        (ntoken, answers, word_dim), width = sizes, settings["width"]
        self.w_emb = WordEmbedding(ntoken, word_dim, settings["word_dropout"])
        self.q_emb = QuestionEncoder(2 * word_dim, width)
        self.image_mlp = nn.Sequential(
            nn.BatchNorm1d(channels),
            nn.Linear(channels, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.Tanh(),
        )
        self.gate = nn.Linear(width, width)
        self.classifier = AnswerClassifier(width, 1024, answers, settings["dropout"])
        self.with_image = settings["image"]

    def forward(self, pooled, questions):
        features = self.q_emb(self.w_emb(questions)).sum(1)  # (B, width)
        if self.with_image:
            features = features + self.image_mlp(pooled) * torch.tanh(self.gate(features))
        return VQAOutput(self.classifier(features), None, features)


def parse_args():
    style = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=style)
    add = parser.add_argument
    base = " ".join(f"{key}={value}" for key, value in BASE.items())
    add("settings", nargs="+", help=f"rows of the table: base, or changes of it: {base}")
    add("--RAD_dir", "--data_dir", type=Path, help="as for train.py")
    add_options(add)
    add("--split", choices=["official", "clean"], default="official", help="official keeps "
        "rewordings of the validation questions in training, clean drops them")  # fmt: skip
    add("--draws", type=int, default=3, help="random fifths, the same ones for every row")
    add("--gpu", type=int, help="CUDA device, -1 for the CPU")
    add("--json", type=Path, help="write the table there too")
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
    flags = {settings["image"], settings["idf"]}
    if settings["schedule"] not in RATES or settings["loss"] not in ("bce", "ce") or flags - {0, 1}:
        raise UserError(
            f"{text!r}: loss is bce or ce, schedule one of {', '.join(RATES)}, image and idf 0 or 1"
        )
    shares = [settings[key] for key in ("label_smoothing", "word_dropout", "dropout")]
    if (
        min(settings["epochs"], settings["batch_size"] - 1, settings["width"]) < 1
        or not all(0 < settings[key] < math.inf for key in ("lr", "clip_norm"))
        or not all(0 <= share < 1 for share in shares)
    ):
        raise UserError(
            f"{text!r}: epochs and width are at least 1, batch_size at least 2, lr and clip_norm "
            "above 0, label_smoothing, word_dropout and dropout from 0 to below 1"
        )
    return settings


def train_and_answer(settings, data, vectors, pooled, draw, seed):
    """Train on a draw's training part, then answer its validation questions.

    vectors: word vectors (words, dim); pooled: mean cells (N, channels), both on the device;
    draw: lists of training and validation questions. Returns a list of bool: right or not.
    """
    set_seed(seed)
    device, (train, val) = pooled.device, draw
    sizes = (data.ntoken, data.num_answers, vectors.shape[1])
    model = SmallModel(sizes, settings, pooled.shape[1])
    if settings["idf"]:
        vectors = vectors * torch.from_numpy(idf_weights(train, data.ntoken))[:, None]
    model.w_emb.initialise(vectors)
    model.to(device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adamax(trained, lr=settings["lr"])
    rate = RATES[settings["schedule"]]
    for epoch in range(settings["epochs"]):
        for group in optimizer.param_groups:
            group["lr"] = rate(epoch, settings["epochs"], settings["lr"])
        model.train()
        for batch in batches(train, settings["batch_size"], seed, epoch):
            tokens, labels, organs = collate(batch, device)
            output = model(pooled[[q.image for q in batch]], tokens)
            kind, smoothing = settings["loss"], settings["label_smoothing"]
            loss = vqa_loss(output, labels, organs, kind, smoothing)
            train_step(model, optimizer, loss, settings["clip_norm"])
    model.eval()
    with torch.inference_mode():
        tokens, labels, _ = collate(val, device)
        return (model(pooled[[q.image for q in val]], tokens).logits.argmax(1) == labels).tolist()


def pool(data, device):
    """The mean cell of every image's EfficientNet-Lite0 map, float32 (N, 1280) on the device."""
    side = ImageSide(ENCODER, distmodal=False)
    load_part(side.encoders[0], imagenet_state(ENCODER), "the encoder's start")
    inputs = model_inputs(side.to(device), data, device, frozen=True)
    return mean_cells(side, inputs, range(len(data.image_names)))


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
    device = choose_device(args.gpu)
    data = find_data(args.RAD_dir, vars(args), log=log)
    found = find_embedding(data, "glove", log)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(data.ntoken, 100, generator=generator)
    vectors = torch.from_numpy(found[0]) if found else vectors
    pooled = pool(data, device)
    questions = training_questions(data, args.split)
    draws = [
        split_validation(questions, FRACTION, args.split, 100 + draw) for draw in range(args.draws)
    ]
    print(
        f"{data.titled(args.split)}, {args.draws} draws of "
        f"{len(draws[0][1])} validation questions; accuracy in %, in brackets its mean difference "
        "to the first row and the standard deviation of that over the draws\n\n"
        f"| settings | {' | '.join(GROUPS)} | seconds |\n|---|{'---|' * (len(GROUPS) + 1)}",
        flush=True,
    )
    out = []
    for text, settings in rows:
        began, scores = time.perf_counter(), {name: [] for name in GROUPS}
        for seed, draw in enumerate(draws):
            right = train_and_answer(settings, data, vectors, pooled, draw, seed)
            for name, belongs in GROUPS.items():
                chosen = [good for good, question in zip(right, draw[1]) if belongs(question)]
                # a group may be empty, e.g. without para questions
                scores[name].append(100 * statistics.mean(chosen) if chosen else math.nan)
        seconds = round(time.perf_counter() - began, 1)
        out.append({"changes": text, "settings": settings, "scores": scores, "seconds": seconds})
        cells = [cell(scores[name], out[0]["scores"][name], len(out) > 1) for name in GROUPS]
        print(f"| {text} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)
    if args.json:
        about = {"data": data.about(), "split": args.split, "draws": args.draws}
        write_json(args.json, about | {"rows": out})


if __name__ == "__main__":
    run_main(main)
