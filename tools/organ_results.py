"""Pre-training's results: evaluation, results.json, messages (docs/METHOD.md section 5.4)."""

import datetime
import shlex

import torch

from dataset_MTPT import to_device
from readers.json_files import read_json
from readers.weights import MTPT_FILES
from tools.plots import draw_confusion, draw_masks
from utils import HERE, ORGAN_ENCODERS, VERSION, UserError, write_json

MASKS_SHOWN = 6  # predicted masks in the picture


def evaluate(model, organ_set, held_out, questions, precision):
    """(results, confusion, predicted) of both tasks on held-out images.

    held_out: Loader of all held-out images in order; questions: {key of results: entries}.
    confusion: int64 (classes, classes), rows truth; predicted: the first MASKS_SHOWN predictions.
    """
    results, confusion, predicted, visual = evaluate_images(model, organ_set, held_out, precision)
    known = [row for row, organ in enumerate(held_out.images.organs) if organ >= 0]
    visual, organs = visual[known], [held_out.images.organs[row] for row in known]
    for name, entries in questions.items():
        if entries and known:  # in the phantom set no question is new
            results[name] = evaluate_compatibility(model, visual, entries, organs, precision)
    return results, confusion, predicted


@torch.inference_mode()
def evaluate_images(model, organ_set, held_out, precision):
    """(results, confusion, predicted, last maps (N, 512, 7, 7)) of the image task.

    Otherwise as `evaluate`.
    """
    model.eval()
    if organ_set.task == "labels":
        return evaluate_labels(model, organ_set, held_out, precision)
    device, count = held_out.device, len(organ_set.classes)
    confusion = torch.zeros(count**2, dtype=torch.long, device=device)
    predicted, visual, right = [], [], []
    for output, targets, last in _outputs(model, held_out, precision):
        prediction = output.argmax(1)  # (B,) or (B, 224, 224)
        pairs = (targets * count + prediction).flatten()
        confusion += torch.bincount(pairs, minlength=count**2)
        if targets.dim() == 1:
            right += (prediction == targets).tolist()
        predicted += prediction[: MASKS_SHOWN - len(predicted)].cpu()
        visual.append(last)
    confusion = confusion.view(count, count).cpu()
    if organ_set.task == "segmentation":
        results = segmentation_results(confusion, organ_set.classes)
    else:
        results = classification_results(confusion, right, organ_set.copies)
    results |= {"images": len(organ_set.val), "confusion": confusion.tolist()}
    return results, confusion, predicted, torch.cat(visual)


def _outputs(model, held_out, precision):
    """Of each batch of held-out images: the decoder's output, targets, last map in float32."""
    device = held_out.device
    for batch in held_out:
        images, targets, _, _ = to_device(batch, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            maps = model.maps(images)
            output = model.decoder(maps)
        yield output, targets, maps[-1].float()


def count_right(model, output, targets):
    """(how many first answers are right, of how many) of an image task's output and targets.

    Masks count by pixels. Of labels an image counts by the share of its tasks that are right.
    """
    if not targets.is_floating_point():
        return (output.argmax(1) == targets).sum(), targets.numel()
    # an image's share of right tasks, as the loss is a mean over images
    return label_hits(model, output, targets).nanmean(1).sum(), len(targets)


def label_hits(model, output, targets):
    """(B, tasks): 1 where a task's likeliest label is one of the image's, else 0; NaN without any.

    output, targets: (B, labels).
    """
    sizes = model.decoder.sizes
    columns = []
    for answers, truth in zip(output.split(sizes, 1), targets.split(sizes, 1)):
        hit = truth.gather(1, answers.argmax(1, keepdim=True))[:, 0] > 0
        columns.append(torch.where(truth.any(1), hit.float(), torch.nan))
    return torch.stack(columns, 1)


def evaluate_labels(model, organ_set, held_out, precision):
    """As `evaluate_images`, for the task "labels"; there is no confusion (None)."""
    hits, visual = [], []
    for output, targets, last in _outputs(model, held_out, precision):
        hits.append(label_hits(model, output, targets).cpu())
        visual.append(last)
    hits, tasks = torch.cat(hits), {}
    for name, column in zip(organ_set.classes, hits.T.tolist()):
        known = [value for value in column if value == value]  # no NaN
        tasks[name] = {"accuracy": rounded_mean(known), "images": len(known)}
    mean = rounded_mean([entry["accuracy"] for entry in tasks.values()])
    results = {"accuracy": mean, "tasks": tasks, "images": len(organ_set.val)}
    return results, None, [], torch.cat(visual)


def segmentation_results(confusion, classes):
    """IoU per class, its mean over classes that occur in held-out masks, and pixel accuracy.

    The IoU of a class that does not occur is None.
    """
    both = confusion.diagonal()
    either = confusion.sum(0) + confusion.sum(1) - both
    occurs = confusion.sum(1) > 0
    iou = [
        value if there else None
        for value, there in zip((both / either.clamp(min=1)).tolist(), occurs.tolist())
    ]
    return {
        "mean_iou": rounded_mean(iou),
        "mean_iou_without_background": rounded_mean(iou[1:]),
        "iou": {name: rounded_mean([value]) for name, value in zip(classes, iou)},
        "pixel_accuracy": round((both.sum() / confusion.sum()).item(), 4),
    }


def classification_results(confusion, right, copies):
    """Accuracy, with and without the rows that are `copies` of training images.

    right: of all held-out images in order, whether they are.
    """
    rest = [good for row, good in enumerate(right) if row not in copies]
    return {
        "accuracy": round((confusion.diagonal().sum() / confusion.sum()).item(), 4),
        "copies": len(copies),
        "accuracy_without_copies": rounded_mean(rest),
    }


def rounded_mean(values):
    """The mean of those that are not None; None where there are none, for NaN is no JSON."""
    values = [value for value in values if value is not None]
    return round(sum(values) / len(values), 4) if values else None


@torch.inference_mode()
def evaluate_compatibility(model, visual, entries, organs, precision, batch_size=64):
    """Accuracy, share of the larger label and number of pairs of entry and held-out image.

    Each entry gets one of the images, in turn. visual: the images' last maps (N, 512, 7, 7);
    organs: N places in ORGANS.
    """
    right, device = 0, visual.device
    labels = [int(organs[i % len(organs)] in entry.organs) for i, entry in enumerate(entries)]
    for start in range(0, len(entries), batch_size):
        rows = range(start, min(start + batch_size, len(entries)))
        tokens = torch.tensor([entries[row].tokens for row in rows], device=device)  # (B, 12)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = model.compatible(visual[[row % len(visual) for row in rows]], tokens)
        right += (
            (logits.argmax(1).cpu() == torch.tensor([labels[row] for row in rows])).sum().item()
        )
    share = sum(labels) / len(labels)
    return {
        "accuracy": round(right / len(entries), 4),
        "majority": round(max(share, 1 - share), 4),
        "pairs": len(entries),
    }


def read_results(folder):
    """results.json as other runs left it, or {}. Raises UserError when it is damaged."""
    path = folder / "results.json"
    results = read_json(path) if path.exists() else {}
    if not isinstance(results, dict):
        raise UserError(
            f"{path} is not a file of this program: remove it, or name another --results"
        )
    return results


def save_results(folder, key, value):
    """Put one organ's part into results.json, beside those of other runs."""
    dated = value | {"date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}"}
    write_json(folder / "results.json", read_results(folder) | {"version": VERSION, key: dated})


def save_organ(folder, organ_set, held_out, found, about):
    """Put an organ's results and `about` into results.json and draw its pictures.

    found: the result of `evaluate` on the Loader `held_out`.
    """
    results, confusion, predicted = found
    save_results(folder, organ_set.organ, about | {"results": results})
    if organ_set.task == "segmentation":
        pairs = [held_out.images[0, row][:2] for row in range(len(predicted))]
        draw_masks(folder / f"{organ_set.organ}_masks.png", organ_set, pairs, predicted, results)
    if confusion is not None:
        draw_confusion(folder / f"{organ_set.organ}_confusion.png", organ_set, confusion)


def describe(organ, results):
    """One line of an organ's results."""
    task = f"accuracy {_percent(results['accuracy'])}" if "accuracy" in results else None
    task = task or f"mean IoU {results['mean_iou']:.3f}"
    line = f"{organ}: {task} on {results['images']} held-out images"
    if "tasks" in results:
        line += f", the mean of {len(results['tasks'])} tasks"
    if results.get("copies"):
        rest = results["accuracy_without_copies"]
        rest = "nothing is left" if rest is None else _percent(rest)
        line += f" ({rest} without the {results['copies']} that are copies of training images)"
    for key, kind in (
        ("compatibility", "questions seen"),
        ("compatibility_new_questions", "new questions"),
    ):
        if key in results:
            accuracy, majority = (_percent(results[key][k]) for k in ("accuracy", "majority"))
            line += f"; compatibility, {kind}: {accuracy} (majority {majority})"
    return line


def _percent(share):
    return f"{100 * share:.1f}%"


def next_step(output, organs=ORGAN_ENCODERS, data=None):
    """The next step after a run of `organs`: one sentence.

    data: {argument: value or None} that name the data for which an encoder of --VQA_dir was made.
    """
    if set(organs) - set(ORGAN_ENCODERS):
        named = (data or {}) | {"encoder_path": output.resolve() / f"{organs[0]}.pth"}
        named = [f"--{name} {shlex.quote(str(value))}" for name, value in named.items() if value]
        return f"Next: {' '.join([str(HERE / 'train.sh'), *named])}"
    if missing := [name for name in ORGAN_ENCODERS if not (output / f"{name}.pth").exists()]:
        return (
            "train.sh takes the encoders of all three organs or none, and "
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not made yet: the "
            "same command with --resume, and without --organ, makes the rest"
        )
    files = {name: output.resolve() / file for name, file in MTPT_FILES.items()}
    if output.resolve() == (HERE / "saved_models" / "MTPT").resolve():
        files = {}  # train.py finds them by itself
    named = [f"--{name} {shlex.quote(str(path))}" for name, path in files.items() if path.exists()]
    return f"Next: {' '.join([str(HERE / 'train.sh'), *named])}"
