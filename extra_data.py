"""--extra_data: other sets' training questions beside a run's own (docs/TUNED.md)."""

from bisect import bisect_right

import torch

from dataset_RAD import find_data
from features import model_inputs
from readers.shared_images import find_shared
from text_rules import encode
from utils import UserError, log


def read(args, data):
    """(the sets of --extra_data, a list of RadData, and their questions for a run on `data`).

    The questions are those of training and validation whose answer is a class of `data` and
    whose image is not in `data`. Their rows go on where those of `data` and of the sets before
    end; words and classes are those of `data`. Raises UserError for a folder without a set, and
    for a set of which no question is left.
    """
    sets, questions, first = [], [], len(data.image_names)
    word2idx, label = ({key: i for i, key in enumerate(k)} for k in (data.dictionary, data.answers))
    for folder in args.extra_data:
        other = find_other(folder, "--extra_data")
        for question in _usable(other, data, label):
            words = () if args.image_only else question.words
            tokens, unknown = encode(words, word2idx, args.question_len)
            changes = {"tokens": tokens, "unknown_words": unknown, "weight": args.extra_weight}
            changes |= {"image": first + question.image, "label": label[question.answer]}
            questions.append(question._replace(**changes))
        sets.append(other)
        first += len(other.image_names)
    return sets, questions


def find_other(folder, argument, options=None):
    """dataset_RAD.find_data of a set beside the run's own. argument: names it in a UserError."""
    try:
        return find_data(folder, options, log=log)
    except UserError as error:  # it speaks of the run's own set
        raise UserError(str(error).replace("--RAD_dir", argument)) from None


def _usable(other, data, label):
    """The questions of another set that a run on `data` can train on; counts are logged.

    label: {class: its number}.
    """
    asked = other.train + other.validation
    fitting = [question for question in asked if question.answer in label]
    images = {question.image for question in asked}
    shared = images & find_shared(other.images_path, data.images_path)
    usable = [question for question in fitting if question.image not in shared]
    counts = (
        f"{len(fitting):,} of {len(asked):,} questions have an answer that is a class, "
        f"{len(shared):,} of {len(images):,} images are in {data.name} too"
    )
    if not usable:
        raise UserError(
            f"--extra_data {other.folder}: no question is left to train on ({counts}): leave it out"
        )
    log(f"extra data: {other.name} ({other.digest}): {counts}; {len(usable):,} questions train")
    return usable


def about(data, sets):
    """`data.about()` with {folder: digest} of the extra sets, as checkpoints keep it."""
    extra = {str(one.folder): one.digest for one in sets}
    return data.about() | ({"extra": extra} if extra else {})


def check_same(kept, now, output):
    """Raise UserError when a run goes on with other data. kept, now: what `about` gives."""
    if kept["digest"] != now["digest"]:
        raise UserError(f"{output} began with other data: name {kept['folder']}")
    extra = kept.get("extra", {})  # whose folders may have moved
    if not isinstance(extra, dict) or [*extra.values()] != [*now.get("extra", {}).values()]:
        raise UserError(
            f"{output} began with other content of --extra_data: put it back, or train anew"
        )


def joined_inputs(image_side, sets, device, frozen, blank=False):
    """features.model_inputs of several sets, whose rows follow one another."""
    inputs = [model_inputs(image_side, one, device, frozen, blank) for one in sets]
    return JoinedInputs(inputs, [len(one.image_names) for one in sets])


class JoinedInputs:
    """The model's inputs for rows of several sets that follow one another, as features.Inputs.

    parts: a callable a set; counts: the images of each.
    """

    def __init__(self, parts, counts):
        self.parts, self.firsts = parts, [sum(counts[:i]) for i in range(len(counts))]

    def __call__(self, rows):
        places = {}  # {number of a part: places of its rows}
        for place, row in enumerate(rows):
            places.setdefault(bisect_right(self.firsts, row) - 1, []).append(place)
        seen = [
            self.parts[part]([rows[place] - self.firsts[part] for place in at])
            for part, at in places.items()
        ]
        if len(seen) == 1:
            return seen[0]
        order = torch.tensor(sum(places.values(), [])).argsort()
        return {
            name: None if value is None else torch.cat([one[name] for one in seen])[order]
            for name, value in seen[0].items()
        }
