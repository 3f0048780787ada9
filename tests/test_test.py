"""test.py: the files that an evaluation writes, on our checkpoints and on an official one."""

import json
import pickle

import torch
from conftest import CHANGED, call, run_script

from dataset_RAD import find_data
from readers.records import convert_public
from text_rules import normalise_answer, tokenize


def test_evaluation(run, tiny, tmp_path):
    done = call("test.py", "--input", run, "--output", tmp_path, "--gpu", -1)
    assert done.returncode == 0, done.stderr
    assert "freeform + para" in done.stdout and "PHANTOM DATA" in done.stdout
    assert "recipe paper" in done.stdout
    files = ("results.json", "results_all.json", "predictions.json")
    results, both, rows = (json.loads((tmp_path / name).read_text()) for name in files)
    data = find_data(tiny, log=lambda _: None)
    assert len(rows) == len(data.test) == both["ALL"]["count"]
    for group, (low, high) in results["interval95_percent"].items():
        assert low <= results[group]["score_percent"] <= high
    page = (tmp_path / "report.html").read_text()
    assert "PHANTOM" in page and page.count("<img") > 40
    schema = {"count", "real", "true", "real_percent", "score", "score_percent"}
    assert set(results["ALL"]) == schema
    assert results["data"]["digest"] == data.digest and results["data"]["name"] == "phantom set"
    assert results["recipe"] == "paper" and results["changed"] == CHANGED
    freeform = [row for row in rows if row["phrase_type"] == "freeform"]
    assert results["ALL"]["true"] == sum(row["answer"] == row["truth"] for row in freeform)
    parts = results["OPEN"]["count"] + results["CLOSED"]["count"]
    assert parts == results["ALL"]["count"] == len(freeform)
    fields = {"qid", "image", "question", "truth", "answer", "probability", "top5", "correct"}
    assert fields | {"image_in_training"} <= set(rows[0])
    for blanked, seen in (("image", "question"), ("question", "image")):  # nothing else counts
        alike = [row for row in rows if row[seen] == rows[0][seen]]
        assert len({row[f"answer_without_{blanked}"] for row in alike}) == 1
    assert rows[0]["top5"][0] == [rows[0]["answer"], rows[0]["probability"]]
    assert len(rows[0]["top5"]) == 5


def test_an_official_checkpoint_on_the_authors_archive(tiny, parity, deterministic, tmp_path):
    """Their files' form and index order, with drawings for images: the archive's indices hold."""
    archive = tmp_path / "archive"
    (archive / "cache").mkdir(parents=True)
    public = json.loads((tiny / "VQA_RAD Dataset Public.json").read_text())
    train_records, test_records = convert_public(public)
    (archive / "trainset.json").write_text(json.dumps(train_records))
    (archive / "testset.json").write_text(json.dumps(test_records[:40]))
    (archive / "images").symlink_to(tiny / "VQA_RAD Image Folder")
    words = sorted({word for record in train_records for word in tokenize(record["question"])})
    words += [f"word{i}" for i in range(1177 - len(words))]
    answers = {normalise_answer(record["answer"]) for record in train_records}
    answers = sorted(answers, reverse=True)
    answers += [f"answer{i}" for i in range(458 - len(answers))]
    pickles = {
        "dictionary.pkl": [{word: i for i, word in enumerate(words)}, words],
        "cache/trainval_label2ans.pkl": answers,
        "cache/trainval_ans2label.pkl": {answer: i for i, answer in enumerate(answers)},
    }
    for name, value in pickles.items():
        (archive / name).write_bytes(pickle.dumps(value))
    names = sorted({record["image_name"] for record in train_records + test_records})
    index = {name: i for i, name in enumerate(names)}
    (archive / "imgid2idx.json").write_text(json.dumps(index))
    keys = json.loads((parity / "official_keys_CMSA_200d.json").read_text())
    state = deterministic.fill_state_dict(keys, 1)
    state["classifier.main.3.bias"][7] += 1e4  # this class always wins: whose index order is used?
    official = {"epoch": 79, "model_state": state, "optimizer_state": {"lr": 0.1}}
    torch.save(official, tmp_path / "official.pth")

    options = ["--RAD_dir", archive, "--output", tmp_path / "out", "--gpu", -1]
    run_script("test.py", "--input", tmp_path / "official.pth", *options)
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(rows) == 40 and {row["answer"] for row in rows} == {answers[7]}
    results = json.loads((tmp_path / "out" / "results_all.json").read_text())
    assert results["epoch"] == 79 and results["data"]["name"] == "VQA-RAD, authors' archive"
    assert results["recipe"] == "official code"
