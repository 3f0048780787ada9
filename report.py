"""The report of an evaluated run: results/<run>/report.html, one file that needs no network.

    python report.py results/RUN                  make it anew from what test.py left there
    python report.py results/RUN --RAD_dir DIR    when the data have moved since

What can't be had (the run's folder, the data, the checkpoint) leaves its part out, and a sentence in its place says why.
"""

import argparse
import base64
import hashlib
import io
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from dataset_RAD import ImageStore, find_data, set_question_len, tokenize, training_questions
from engine import Inputs, check_vocabulary, collate, make_model, read_checkpoint
from scores import PROTOCOLS, entry, grouped, in_group, interval, protocol, read_predictions
from utils import UserError, atomic_path, read_json, run_main, say

HERE = Path(__file__).resolve().parent
GALLERY, BINS, FEW = (
    48,
    10,
    10,
)  # cards; bins of the calibration; no interval for fewer questions than FEW
WANTED = {
    "question",
    "answer",
    "probability",
    "top5",
    "organ",
    "question_types",
    "known_answer",
    "twin",
    "near_identical_in_training",
}
ORGAN_NAMES = {"ABD": "abdomen", "HEAD": "head", "CHEST": "chest"}
GROUP_TITLES = {
    "question_type": "Question type",
    "organ": "Organ",
    "twin": "Twin among the official split's training records",
    "near_identical_in_training": "Nearly identical question in the training part",
    "known_answer": "Answer known from training",
}
COLOURS = {
    "#010203": "currentColor",
    "#010204": "var(--one)",
    "#010205": "var(--two)",
}  # stand-ins in the drawings, replaced in the SVG
INK, ONE, TWO = COLOURS
BLANKED = {
    "image blanked": "answer_without_image",
    "question blanked": "answer_without_question",
}  # the baselines that the model itself gives


# ---------------------------------------------------------------- the numbers


def interval_of(rows):
    """[low, high] in percent, the 95% interval of the rows' score by bootstrap over images; None for fewer than FEW questions."""
    if len(rows) < FEW:
        return None
    return interval([p["correct"] for p in rows], [p["image"] for p in rows])


def calibration(rows):
    """Ten equal-width bins of the given answers' probabilities, and the expected calibration error.

    {"bins": [{"low", "high", "count", "confidence", "accuracy"}], "ece"}: the error is the mean over questions of
    |share that is right - mean probability| of their bin. The means of an empty bin are None.
    """
    members = [[] for _ in range(BINS)]
    for row in rows:
        members[min(int(BINS * row["probability"]), BINS - 1)].append(row)
    bins, error = [], 0.0
    for index, group in enumerate(members):
        confidence, accuracy = (
            sum(row[key] for row in group) / len(group) if group else None
            for key in ("probability", "correct")
        )
        bins.append(
            {
                "low": index / BINS,
                "high": (index + 1) / BINS,
                "count": len(group),
                "confidence": confidence,
                "accuracy": accuracy,
            }
        )
        error += len(group) * abs(accuracy - confidence) / len(rows) if group else 0
    return {"bins": bins, "ece": error}


def yes_no_confusion(rows):
    """{truth: {answer: number}} for the questions whose true answer is yes or no; any other answer counts as "other"."""
    table = {truth: {"yes": 0, "no": 0, "other": 0} for truth in ("yes", "no")}
    for row in rows:
        if row["truth"] in table:
            table[row["truth"]][row["answer"] if row["answer"] in table else "other"] += 1
    return table


def majority_baseline(training, rows):
    """The rows with each answer replaced by the most frequent one of the training questions of the same types and answer type.

    `training` is a list of Question. Where it has none of exactly these types, those that share one count; then those of the answer
    type; then all. Of equally frequent answers the one that training has first.
    """
    counts = {}
    for q in training:
        keys = [
            ("exactly", frozenset(q.question_types), q.answer_type),
            ("answer type", q.answer_type),
            ("all",),
        ]
        for key in keys + [("one type", kind, q.answer_type) for kind in set(q.question_types)]:
            counts.setdefault(key, Counter())[q.answer] += 1

    def guess(row):
        for keys in (
            [("exactly", frozenset(row["question_types"]), row["answer_type"])],
            [("one type", kind, row["answer_type"]) for kind in row["question_types"]],
            [("answer type", row["answer_type"])],
            [("all",)],
        ):
            if found := [counts[key] for key in keys if key in counts]:
                return sum(found[1:], Counter(found[0])).most_common(1)[0][0]

    answers = [guess(row) for row in rows]
    return [
        row | {"answer": answer, "correct": int(answer == row["truth"])}
        for row, answer in zip(rows, answers)
    ]


def groups(rows):
    """{title: {group: rows}}: the groups of scores.grouped under the names that the page gives them."""
    labels = {"with": "with a twin"} | ORGAN_NAMES
    return {
        GROUP_TITLES[name]: {labels.get(key, key): of for key, of in parts.items()}
        for name, parts in grouped(rows).items()
    }


def score_rows(rows, baselines):
    """The lines of the score table: both protocols, open, closed, all, each with its interval and the baselines' scores."""
    out = []
    for name, title in PROTOCOLS.items():
        for group in ("OPEN", "CLOSED", "ALL"):

            def chosen(of):
                return in_group(protocol(of, name), group)

            out.append(
                {
                    "protocol": title,
                    "group": group.lower(),
                    "interval": interval_of(chosen(rows)),
                    **entry(chosen(rows)),
                    "baselines": [
                        entry(chosen(other))["score_percent"] for other in baselines.values()
                    ],
                }
            )
    return out


def group_tables(rows, baselines):
    """{title: lines}: per group the entry and interval of each protocol, and the baselines' scores on all its questions."""
    parts = {title: groups(protocol(rows, name)) for name, title in PROTOCOLS.items()}
    theirs = [groups(other) for other in baselines.values()]
    return {
        kind: [
            {
                "group": key,
                "baselines": [entry(other[kind][key])["score_percent"] for other in theirs],
                "protocols": [
                    {"interval": interval_of(of), **entry(of)}
                    for of in (parts[title][kind].get(key, []) for title in parts)
                ],
            }
            for key in groups(rows)[kind]
        ]
        for kind in groups(rows)
    }


def choose_gallery(rows, n=GALLERY):
    """About n rows, half right and half wrong (more of one where the other has too few), the same each time, in order of qid.

    They are taken in turn from each (organ, question type), in an order that depends on nothing but the qid.
    """
    piles = []
    for correct in (1, 0):
        by = {}
        for row in sorted(
            (row for row in rows if row["correct"] == correct),
            key=lambda row: hashlib.sha256(str(row["qid"]).encode()).digest(),
        ):
            by.setdefault((row["organ"], *row["question_types"][:1]), []).append(row)
        turns = [(turn, key, row) for key, pile in by.items() for turn, row in enumerate(pile)]
        piles.append([row for _, _, row in sorted(turns, key=lambda item: item[:2])])
    right, wrong = piles
    half = max(min(len(right), n // 2), n - len(wrong))
    return sorted(right[:half] + wrong[: n - min(half, len(right))], key=lambda row: row["qid"])


@torch.inference_mode()
def maps_for(model, questions, inputs, batch_size=16):
    """What CMSA's first block looks at, per question: {"words", "where" (T, 7, 7), "which" (T, T + 1), "label"}, T its own words.

    `where` is the mean over the query cells of P, a distribution over the cells for each word; `which` that of R over the words, the
    last column being all padding together; `label` is the class that the model answers. `inputs` is engine.Inputs or alike.
    """
    model.eval()
    device, out = next(model.parameters()).device, []
    for start in range(0, len(questions), batch_size):
        batch = questions[start : start + batch_size]
        maps, organs = model.image.see(**inputs([q.image for q in batch]))
        visual = model.image.mix(maps, organs)  # (B, 49, 512)
        tokens = collate(batch, device)[0]
        look, read = model.cmsa.attention(
            visual, model.q_emb(model.w_emb(tokens)), model.spatial
        )  # (B, T, 49, 49), (B, T, 49, T)
        labels = model(None, tokens, maps, organs).logits.argmax(1).tolist()
        for question, where, which, label in zip(
            batch, look.mean(2).float().cpu().numpy(), read.mean(2).float().cpu().numpy(), labels
        ):
            words = tokenize(question.question)[: len(question.tokens)]
            count, side = len(words), round(where.shape[1] ** 0.5)
            out.append(
                {
                    "words": words,
                    "where": where[:count].reshape(count, side, side),
                    "label": label,
                    "which": np.concatenate(
                        [which[:count, :count], which[:count, count:].sum(1, keepdims=True)], 1
                    ),
                }
            )
    return out


# ---------------------------------------------------------------- pictures


def picture(pixels, side=None, quality=82):
    """A JPEG data URI of uint8 (H, W, 3)."""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    (image.resize((side, side), Image.Resampling.LANCZOS) if side else image).save(
        buffer, "JPEG", quality=quality, optimize=True
    )
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def overlay(pixels, heat, side=112):
    """`heat` (7, 7), shares of 1, in amber over uint8 (H, W, 3), as a data URI.

    Full colour is the map's own largest share, or four times the even share where that is more: an even map stays pale.
    """
    strength = Image.fromarray((heat / max(heat.max(), 4 / heat.size)).astype(np.float32)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    strength = 0.72 * np.asarray(strength).clip(0, 1)[..., None]
    small = np.asarray(
        Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS), np.float32
    )
    return picture(
        (small * (1 - strength) + np.array([255, 150, 0]) * strength).astype(np.uint8), quality=75
    )


def place(heat):
    """Where the largest share of a map lies, in words."""
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    third = [int(3 * (i + 0.5) / size) for i, size in zip((row, column), heat.shape)]
    return " ".join(
        dict.fromkeys(
            (("upper", "middle", "lower")[third[0]], ("left", "middle", "right")[third[1]])
        )
    )


def chart(name, label, draw):
    """An inline SVG in the page's own colours. draw(axis) draws with INK, ONE and TWO; `name` makes its ids unlike another chart's."""
    import matplotlib
    from matplotlib.figure import Figure

    dark = {
        key: INK
        for key in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    }
    with matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": name,
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
        }
        | dark
    ):
        figure = Figure(figsize=(4.7, 3.1), layout="constrained")
        axis = figure.subplots()
        axis.grid(color=INK, alpha=0.15)
        draw(axis)
        buffer = io.StringIO()
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )
    svg = buffer.getvalue()
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg[svg.index("<svg") :]).replace(
        "xlink:href", "href"
    )
    svg = re.sub(r'(\bid="|\bhref="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"#01020[345]", lambda match: COLOURS[match[0]], svg)
    return Markup(
        svg.replace("<svg", Markup('<svg role="img" aria-label="{}"').format(label), 1)
    )  # nothing of the data's text is in it


def training_charts(log):
    """The curves of loss and score by epoch, as SVG."""
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in log]

    def curves(axis, series, ylabel):
        for (key, title), colour, style in zip(series, (ONE, TWO), ("-o", "--s")):
            points = [
                (row["epoch"], row[key]) for row in log if isinstance(row.get(key), (int, float))
            ]
            axis.plot(
                *zip(*points), style, color=colour, label=title, markersize=3
            ) if points else None
        axis.set(xlabel="epoch", ylabel=ylabel)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend() if len(series) > 1 else None

    span = f"epochs {epochs[0]} to {epochs[-1]}"
    return [
        chart(
            "loss",
            f"Training loss, {span}: the numbers are in the table below",
            lambda axis: curves(axis, [("loss", "training loss")], "loss"),
        ),
        chart(
            "score",
            f"Training and validation score, {span}: the numbers are in the table below",
            lambda axis: curves(
                axis,
                [("train_score", "training"), ("val_score", "validation")],
                "score (share right)",
            ),
        ),
    ]


def calibration_chart(table):
    """The share that is right in each bin of probability, against the diagonal, as SVG."""

    def draw(axis):
        full = [row for row in table["bins"] if row["count"]]
        axis.bar(
            [row["low"] + 0.05 for row in full],
            [row["accuracy"] for row in full],
            0.09,
            color=ONE,
            label="share that is right",
        )
        axis.plot([0, 1], [0, 1], "--", color=INK, linewidth=1, label="perfect calibration")
        axis.plot(
            [row["confidence"] for row in full],
            [row["accuracy"] for row in full],
            "D",
            color=TWO,
            markersize=5,
            label="mean probability",
        )
        axis.set(
            xlabel="probability of the given answer",
            ylabel="share right",
            xlim=(0, 1),
            ylim=(0, 1.02),
        )
        axis.figure.legend(loc="outside upper center", ncols=2, fontsize=9)

    return chart(
        "calibration",
        "Share of right answers by probability: the numbers are in the table below",
        draw,
    )


# ---------------------------------------------------------------- the page


def gallery(rows, data, model, inputs, missing):
    """The cards: {"row", "image", "maps", "which"}. Pictures are left out, and `missing` says why, where they can't be made."""
    by_qid = {q.qid: q for q in data.test} if data else {}
    questions = [
        q if (q := by_qid.get(row["qid"])) and q.question == row["question"] else None
        for row in rows
    ]
    cards = [{"row": row, "image": None, "maps": [], "which": []} for row in rows]
    if not any(questions):
        return cards
    store = ImageStore(data.images_path)
    pixels = [None if q is None else store[[q.image]][0].numpy() for q in questions]
    for card, image in zip(cards, pixels):
        card["image"] = None if image is None else picture(image)
    if model is None:
        return cards
    found = maps_for(model, [q for q in questions if q], inputs)
    asked = [i for i, q in enumerate(questions) if q]
    same = sum(data.answers[of["label"]] == rows[i]["answer"] for i, of in zip(asked, found))
    if same < 0.9 * len(found):  # bf16 may turn a few
        missing["maps"] = (
            f"The model answers {len(found) - same} of these {len(found)} questions otherwise than predictions.json says: "
            "it is another one."
        )
        return cards
    for i, of in zip(asked, found):
        unknown = set(rows[i].get("unknown_words", ()))
        cards[i]["maps"] = [
            {
                "word": word,
                "unknown": word in unknown,
                "picture": overlay(pixels[i], heat),
                "peak": float(heat.max()),
                "place": place(heat),
            }
            for word, heat in zip(of["words"], of["where"])
        ]
        cards[i]["which"] = of["which"].tolist()
    return cards


def write_report(
    path,
    run,
    rows,
    results,
    *,
    log=(),
    settings=None,
    data=None,
    model=None,
    inputs=None,
    baselines=None,
    missing=None,
):
    """Write the page to `path`, atomically.

    run: its name; rows: predictions.json; results: results.json (data, split, epoch, model, checkpoint). What may be had beside these:
    log, the rows of log.jsonl; settings, run.json; data, RadData (images, majority baseline); model, a CMSA model, with the
    engine.Inputs that it sees; baselines, {name: rows} of other runs on the same questions; missing, {part: sentence} saying why
    "curves", "settings", "data", "maps" or "baselines" can't be shown.
    """
    missing = dict(missing or {})
    about, name = results.get("data") or {}, (results.get("data") or {}).get("name", "unknown data")
    majority = (
        {
            "majority": majority_baseline(
                training_questions(data, results.get("split", "official")), rows
            )
        }
        if data
        else {}
    )
    blanked = {
        title: [
            row | {"answer": row[field], "correct": int(row[field] == row["truth"])} for row in rows
        ]
        for title, field in BLANKED.items()
        if all(field in row for row in rows)
    }
    baselines = majority | blanked | (baselines or {})
    calibrated = calibration(rows)
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["sha256"] = lambda text: base64.b64encode(
        hashlib.sha256(str(text).encode()).digest()
    ).decode()
    cards = gallery(choose_gallery(rows), data, model, inputs, missing)
    page = environment.get_template("report.html.jinja").render(
        run=run,
        about=about,
        name=name,
        phantom=bool(data and data.phantom) or "phantom" in str(name).lower(),
        results=results,
        total=len(rows),
        scores=score_rows(rows, baselines),
        tables=group_tables(rows, baselines),
        baselines=list(baselines),
        few=FEW,
        protocols=list(PROTOCOLS.values()),
        charts=training_charts(log) if log else [],
        log=log,
        settings=flat(settings or {}),
        calibration=calibrated,
        calibration_chart=calibration_chart(calibrated),
        confusion=yes_no_confusion(rows),
        cards=cards,
        missing=missing,
        organ_names=ORGAN_NAMES,
        organs=sorted({card["row"]["organ"] for card in cards}),
        types=sorted({kind for card in cards for kind in card["row"]["question_types"]}),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")


def flat(settings, before="", depth=0):
    """run.json as (name, text) lines, without what is not set."""
    lines = []
    for key, value in settings.items():
        if isinstance(value, dict) and depth < 9:
            lines += flat(value, f"{before}{key}: ", depth + 1)
        elif value is not None and value != []:
            lines.append(
                (
                    f"{before}{key}",
                    " ".join(map(str, value)) if isinstance(value, list) else str(value),
                )
            )
    return lines


# ---------------------------------------------------------------- from a results folder


def read_results(folder):
    """(rows, content of results.json or {}) of a folder that test.py wrote. Raises UserError for any other."""
    if not (folder / "predictions.json").is_file():
        raise UserError(
            f"{folder} is not a results folder: there is no predictions.json in it; ./test.sh writes one"
        )
    rows = read_predictions(folder)
    if lacking := [field for field in sorted(WANTED) if not all(field in row for row in rows)]:
        raise UserError(
            f"{folder / 'predictions.json'} lacks {', '.join(lacking)}: it is of another version; run ./test.sh again"
        )
    results = read_json(folder / "results.json") if (folder / "results.json").is_file() else {}
    kinds = {
        "data": dict,
        "checkpoint": str,
        "epoch": int,
        "model": str,
        "split": str,
        "question_only": bool,
        "version": int,
    }
    if (
        not isinstance(results, dict)
        or any(
            type(results[key]) not in (kind, type(None))
            for key, kind in kinds.items()
            if key in results
        )
        or not all(
            isinstance(value, str) and "\0" not in value
            for value in [*(results.get("data") or {}).values(), results.get("checkpoint") or ""]
        )
        or results.get("split", "official") not in ("official", "clean")
    ):
        raise UserError(
            f"{folder / 'results.json'} is not one that test.py wrote: run ./test.sh again"
        )
    return rows, results


def read_run(folder):
    """(log rows, run.json or None) of a run's folder; of an epoch that was done twice the later row. Raises UserError."""
    log, file = {}, folder / "log.jsonl"
    for line in file.read_bytes().splitlines() if file.is_file() else ():
        try:
            row = json.loads(line)
            finite = all(
                type(value) in (int, float) and abs(value) < 1e12 for value in row.values()
            )
            if finite and type(row["epoch"]) is int and {"loss", "train_score"} <= set(row):
                log[row["epoch"]] = row
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
        ):  # the last line of a run that was killed
            continue
    settings = read_json(folder / "run.json") if (folder / "run.json").is_file() else None
    if not isinstance(settings, (dict, type(None))):
        raise UserError(f"{folder / 'run.json'} is not one that train.py wrote")
    return [log[epoch] for epoch in sorted(log)], settings


def data_of(results, rad_dir=None):
    """The data that were evaluated, or UserError saying why they can't be shown."""
    about = results.get("data", {})
    folder = rad_dir or about.get("folder")
    if not folder:
        raise UserError("results.json does not name the data")
    if not Path(folder).is_dir():
        raise UserError(
            f"the data are no longer in {folder} (python report.py --RAD_dir DIR names another place)"
        )
    data = find_data(folder, say=lambda _: None)
    if data.digest != about.get("digest"):
        raise UserError(f"the data in {folder} have changed since the evaluation")
    return data


def checkpoint_of(results):
    """The path of the evaluated checkpoint, which need not be there, or None."""
    path = results.get("checkpoint")
    return (
        next((place for place in (Path(path), HERE / path) if place.exists()), Path(path))
        if path
        else None
    )


def model_of(results, data):
    """(model, inputs, data with its question length) for the maps, or UserError saying why there are none."""
    if not results.get("checkpoint"):
        raise UserError("results.json does not name a checkpoint")
    path = checkpoint_of(results)
    kept = read_checkpoint(path)
    if kept.get("epoch") != results.get("epoch"):
        raise UserError(
            f"{path} now holds epoch {kept.get('epoch')}, and epoch {results.get('epoch')} was evaluated"
        )
    check_vocabulary(kept, data, path)
    model = make_model(kept, path)
    inputs = Inputs(data, torch.device("cpu"), distmodal=model.image.image_type is not None)
    return model.eval(), inputs, set_question_len(data, kept["question_len"])


def neighbours(folder, rows, results):
    """{name: rows} of the newest question-only and image-only results beside `folder`, of the same model, data, split and questions."""

    def same(other):
        return isinstance(other, dict) and all(
            other.get(key) == results.get(key) for key in ("model", "split", "data")
        )

    found, qids = {}, {row["qid"] for row in rows}
    for file in sorted(
        folder.resolve().parent.glob("*/results.json"), key=lambda file: file.stat().st_mtime
    ):
        try:
            kinds = [
                kind
                for kind in ("question_only", "image_only")
                if (other := read_json(file)) and same(other) and other.get(kind)
            ]
            if kinds and file.parent != folder.resolve():
                beside, _ = read_results(file.parent)
                found |= (
                    {kind.replace("_", " "): beside for kind in kinds}
                    if {row["qid"] for row in beside} == qids
                    else {}
                )
        except UserError:
            continue
    return found


def make_report(folder, data=None, model=None, inputs=None, rad_dir=None):
    """Write <folder>/report.html from a results folder and return its path. Raises UserError when it is none.

    data, model and inputs are what test.py has at hand; without them the data and the checkpoint that results.json names are used.
    """
    folder = Path(folder)
    rows, results = read_results(folder)
    missing, log, settings = {}, [], None
    try:
        data = data or data_of(results, rad_dir)
    except UserError as error:
        missing["data"] = sentence(error)
    try:
        if results.get("question_only") or results.get("image_only"):
            raise UserError(
                "this run saw blank images"
                if results.get("question_only")
                else "this run read no questions"
            )
        if results.get("model", "CMSA") != "CMSA":
            raise UserError(f"only CMSA has such maps, and this is {results['model']}")
        if data is None:
            raise UserError("the data are not at hand")
        model, inputs, data = (
            (model, inputs, data) if model is not None else model_of(results, data)
        )
    except UserError as error:
        missing["maps"], model = sentence(error), None
    checkpoint = checkpoint_of(results)
    try:
        log, settings = read_run(checkpoint.parent) if checkpoint else ([], None)
    except UserError as error:
        missing["settings"] = sentence(error)
    where = (
        f"in {checkpoint.parent}"
        if checkpoint
        else "to be found: results.json does not name the run's folder"
    )
    if not log:
        missing["curves"] = f"There is no log.jsonl {where}."
    if not settings:
        missing.setdefault("settings", f"There is no run.json {where}.")
    beside = neighbours(folder, rows, results)
    if not beside and not results.get("question_only") and not results.get("image_only"):
        missing["baselines"] = (
            "There are no results of the same model trained with --question_only or --image_only beside this folder to compare "
            "with: ./train.sh --question_only and ./test.sh make some."
        )
    write_report(
        folder / "report.html",
        folder.resolve().name,
        rows,
        results,
        log=log,
        settings=settings,
        data=data,
        model=model,
        inputs=inputs,
        baselines=beside,
        missing=missing,
    )
    return folder / "report.html"


def sentence(error):
    """An error's message as a sentence."""
    text = " ".join(str(error).split()).rstrip(".") + "."
    return text[0].upper() + text[1:]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="results folder, as test.py writes it")
    parser.add_argument(
        "--RAD_dir", type=Path, help="the data (default: where they were at the evaluation)"
    )
    args = parser.parse_args(arguments)
    say(f"written: {make_report(args.results, rad_dir=args.RAD_dir)}")


if __name__ == "__main__":
    run_main(main)
