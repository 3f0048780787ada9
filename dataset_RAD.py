"""VQA-RAD and other sets: records -> prepared files -> questions; the splits (docs/FORMATS.md).

python dataset_RAD.py [--RAD_dir DIR]    prepare the data set and print its content
python dataset_RAD.py --download         fetch the public release from OSF into data_RAD/public
python dataset_RAD.py --download_glove   fetch the GloVe word vectors into data_RAD
"""

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import text_rules
from readers.data_set import PARTS
from readers.find import data_home, find_folder
from readers.prepared import H5_NAME, cache_folder, prepare_files
from readers.records import DATA_RAD, question_types
from readers.sets import read_set
from text_rules import QUESTION_LEN, encode
from utils import ORGAN_CODES, PHANTOM_MARK, UserError, run_main

NO_ORGANS = (
    "the set names other organs than abdomen, head and chest, or none; --organ_map maps their names"
)


class Question(NamedTuple):
    """One question, ready for use.

    image: row of the prepared HDF5 file. words: all words, tokens: the ids of those kept,
    unknown_words: those kept that the dictionary lacks. answer: the normal form of raw_answer.
    label: its class, -1 when training lacks it. twin: True for a test or validation question
    whose frame record is in the official training split. organ: its place in ORGANS, or -1 and
    the set's own organ_name. organ_name, modality, phrase_type: "" where the set has none.
    weight: of its loss.
    """

    qid: int
    image: int
    image_name: str
    organ: int
    question: str
    words: tuple
    tokens: tuple
    unknown_words: tuple
    answer: str
    raw_answer: str
    label: int
    answer_type: str
    question_types: tuple
    phrase_type: str
    twin: bool
    organ_name: str = ""
    modality: str = ""
    weight: float = 1.0


@dataclass
class RadData:
    """A prepared data set. `train` is the official split; `training_questions` gives the clean.

    options: those of readers/sets.py by which its records were chosen. validation: the set's own.
    """

    name: str
    phantom: bool
    digest: str
    options: dict
    folder: Path
    prepared: Path
    dictionary: list
    answers: list
    image_names: list
    train: list
    validation: list
    test: list
    images_path: Path

    @property
    def ntoken(self):
        return len(self.dictionary)

    @property
    def num_answers(self):
        return len(self.answers)

    @property
    def organs(self):
        """True where every question has one of the three organs."""
        return all(q.organ >= 0 for q in self.train + self.validation + self.test)

    @property
    def frames(self):
        """True where training has frame records."""
        return any(q.phrase_type == "frame" for q in self.train)

    def titled(self, split):
        """Name and digest, and the split where there are two, for a line to read."""
        return f"{self.name} ({self.digest})" + f", {split} split" * self.frames

    def about(self):
        """Name, digest, folder and options, as checkpoints and results keep them."""
        about = {"name": self.name, "digest": self.digest, "folder": str(self.folder)}
        return about | {"options": self.options}

    @property
    def folders(self):
        """Two folders for files computed from the prepared ones: beside these, and the cache."""
        return [self.prepared, cache_folder(self.folder)]


def prepare(folder, options=None, *, log=print):
    """Read the data set in `folder` and return RadData; make its prepared files if need be.

    docs/FORMATS.md describes the forms (section 1) and the prepared files (section 2).
    options: see readers/sets.py. Dictionary and answers are the archive's own. Otherwise they are
    built from the official split's training records, for the clean split too, so that both have
    the same classes. Prepared files go to `<folder>/prepared/`. When this can't be written they go
    to the cache, ~/.cache/cmsa-mtpt or the environment variable CMSA_CACHE. Raises UserError for
    data that can't be used.
    """
    folder = Path(folder).resolve()
    found, options = read_set(folder, options or {}, log)
    dictionary = found.dictionary or text_rules.build_dictionary(found.train)
    answers = found.answers or text_rules.build_answers(found.train)
    home, digest = prepare_files(folder, found, options, dictionary, answers, log)
    phantom = (folder / PHANTOM_MARK).is_file()
    about, vocabulary = (found.title, phantom, digest, options, folder, home), (dictionary, answers)
    questions = _make_questions(found, *vocabulary)
    return RadData(*about, *vocabulary, found.names, *questions, home / H5_NAME)


def _make_questions(found, dictionary, answers):
    """Records of a DataSet -> (training, validation, test) lists of Question."""
    word2idx, label, row = (
        {key: i for i, key in enumerate(keys)} for keys in (dictionary, answers, found.names)
    )
    frames = {record["qid"] for record in found.train if record["phrase_type"] == "frame"}

    def make(record, twin):
        words = text_rules.tokenize(record["question"])
        tokens, unknown = encode(words, word2idx)
        answer, organ = text_rules.normalise_answer(record["answer"]), record["image_organ"]
        known = organ in ORGAN_CODES
        return Question(
            record["qid"],
            row[record["image_name"]],
            record["image_name"],
            ORGAN_CODES.index(organ) if known else -1,
            record["question"],
            tuple(words),
            tokens,
            unknown,
            answer,
            str(record["answer"]),
            label.get(answer, -1),
            record["answer_type"],
            question_types(record["question_type"]),
            record["phrase_type"],
            twin,
            "" if known else organ or "",
            record.get("modality", ""),
        )

    held = (found.validation, found.test)
    held = [[make(record, record["qid"] + 1 in frames) for record in part] for part in held]
    return [make(record, False) for record in found.train], *held


def _each_question(data, change):
    """The same data with change(question) in place of each question."""
    parts = {name: list(map(change, getattr(data, name))) for name in PARTS}
    return replace(data, **parts)


def set_question_len(data, length):
    """The same data with the first `length` words of each question in place of QUESTION_LEN."""
    word2idx = {word: index for index, word in enumerate(data.dictionary)}

    def cut(question):
        tokens, unknown = encode(question.words, word2idx, length)
        return question._replace(tokens=tokens, unknown_words=unknown)

    return data if length == QUESTION_LEN else _each_question(data, cut)


def without_questions(data):
    """The same data with all tokens replaced by padding: the image-only baseline."""

    def blank(question):
        return question._replace(tokens=(data.ntoken,) * len(question.tokens), unknown_words=())

    return _each_question(data, blank)


def training_questions(data, split):
    """The training questions of a split (docs/SPLIT.md).

    "official" has all. "clean" lacks the frame records of test questions, and of those of the
    set's own validation part. Raises UserError for another split, and for "clean" of a set
    without frame records.
    """
    if split not in ("official", "clean"):
        raise UserError(f"unknown split {split!r}: it is official or clean")
    if split == "clean" and not any(q.phrase_type == "frame" for q in data.train):
        raise UserError(f"--split clean: {data.name} has no frame records; leave it out")
    tested = {q.qid for q in data.test + data.validation} if split == "clean" else ()
    return [q for q in data.train if not (q.phrase_type == "frame" and q.qid - 1 in tested)]


def split_validation(questions, fraction, split, seed):
    """Draw about `fraction` of the freeform and para questions: (training, validation).

    The draw mirrors the test protocol (docs/METHOD.md section 3). Rewordings stay together:
    neighbours in qid order on one image are drawn together when they have the same answer or one
    of them is a para. Split "official" keeps the frame records of drawn questions in training,
    "clean" leaves them out. `twin` is set as for test questions. Raises UserError for a fraction
    outside [0, 1).
    """
    if not 0 <= fraction < 1:  # refuses nan too
        raise UserError(f"the validation fraction must be at least 0 and below 1, not {fraction}")
    if fraction == 0:
        return list(questions), []
    groups = []
    for question in sorted((q for q in questions if q.phrase_type != "frame"), key=lambda q: q.qid):
        last = groups[-1][-1] if groups else None
        if last and last.image == question.image:
            para = "para" in (last.phrase_type, question.phrase_type)
            if para or last.answer == question.answer:
                groups[-1].append(question)
                continue
        groups.append([question])
    random.Random(seed).shuffle(groups)
    wanted, drawn = max(1, round(fraction * sum(map(len, groups)))), set()
    for group in groups:
        if len(drawn) >= wanted:
            break
        drawn.update(question.qid for question in group)
    frames = {q.qid for q in questions if q.phrase_type == "frame"}
    validation = [q._replace(twin=q.qid + 1 in frames) for q in questions if q.qid in drawn]
    training = [q for q in questions if q.qid not in drawn]
    if split == "clean":
        training = [q for q in training if not (q.phrase_type == "frame" and q.qid - 1 in drawn)]
    return training, validation


def own_parts(data, fraction, split, seed):
    """(training, validation) questions: the set's own parts, or those of `split_validation`."""
    questions = training_questions(data, split)
    if data.validation:
        return questions, data.validation
    return split_validation(questions, fraction, split, seed)


def find_data(rad_dir=None, options=None, *, download=True, log=print):
    """Find a data set, prepare it at first use, and return RadData. Raises UserError.

    options: see readers/sets.py. Without `rad_dir` it looks in data_RAD/, then in
    data_RAD/public/. Then it downloads the public release into data_RAD/public/, unless `download`
    is False. Where this fails for want of a network, it takes the phantom set, with a banner.
    """
    folder = rad_dir or find_folder(download, log)
    if folder is None:
        from tools import phantom_RAD  # with real data nobody needs the drawings

        folder = phantom_RAD.find_or_draw(data_home())
    data = prepare(folder, options, log=log)
    if data.phantom:
        from tools.phantom_RAD import BANNER

        log(BANNER.format(folder=data.folder, home=DATA_RAD))
    return data


def main():
    from tools import summary

    summary.main()


if __name__ == "__main__":
    run_main(main)
