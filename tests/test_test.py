"""test.py: the files that an evaluation writes, on our checkpoints and on an official one."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from conftest import CHANGED, call, run_script

import test as evaluation
from dataset_RAD import find_data
from readers.checkpoints import find_checkpoint
from readers.records import convert_public
from text_rules import normalise_answer, tokenize
from tools.equivalent import LENGTH
from utils import UserError


def test_evaluation(run, tiny, tmp_path):
    done = call("test.py", "--input", run, "--output", tmp_path, "--gpu", -1, "--form_rule")
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
    equal = [row["equivalent"] for row in freeform]
    assert results["equivalent"]["ALL"] == pytest.approx(100 * sum(equal) / len(equal), abs=0.05)
    assert results["equivalent"]["table"] == LENGTH
    retrieval = results["retrieval"]
    assert retrieval["equivalent"]["ALL"] >= retrieval["ALL"]
    assert f"count too (docs/RESULTS.md): freeform {results['equivalent']['ALL']}" in done.stdout
    parts = results["OPEN"]["count"] + results["CLOSED"]["count"]
    assert parts == results["ALL"]["count"] == len(freeform)
    fields = {"qid", "image", "question", "truth", "answer", "probability", "top5", "correct"}
    assert fields | {"image_in_training"} <= set(rows[0])
    for blanked, seen in (("image", "question"), ("question", "image")):  # nothing else counts
        alike = [row for row in rows if row[seen] == rows[0][seen]]
        assert len({row[f"answer_without_{blanked}"] for row in alike}) == 1
    assert results["form_rule"] is True
    form = [row for row in rows if row["question"].lower().startswith("is there ")]
    for field in ("answer", "answer_without_image", "answer_by_retrieval"):
        assert form and {row[field] for row in form if " or " not in row["question"]} <= {
            "yes",
            "no",
        }
    assert rows[0]["top5"][0] == [rows[0]["answer"], rows[0]["probability"]]
    assert len(rows[0]["top5"]) == 5


# with --input, --output and --RAD_dir the official command for the paper's model
OFFICIAL = "--split test --model CMSA --use_spatial --distmodal --rnn LSTM --seed 1204"
OFFICIAL += " --batch_size 64 --emb_init biowordvec --op c --gamma 2 --num_stacks 2"
OFFICIAL += " --question_len 12 --num_hid 1024 --clip_norm 0.25 --lr 0.005 --epochs 80"


def test_the_official_command_on_the_authors_archive(
    tiny, parity, deterministic, tmp_path, monkeypatch
):
    """Their files' form and index order, with drawings for images: the archive's indices hold."""
    archive = tmp_path / "data_RAD"
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
    official = {"epoch": 59, "model_state": state, "optimizer_state": {"lr": 0.1}}
    (tmp_path / "saved_models" / "CMSA-Bio-MTPT").mkdir(parents=True)
    torch.save(official, tmp_path / "saved_models" / "CMSA-Bio-MTPT" / "model_epoch59.pth")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation, "HERE", tmp_path)
    options = ["--gpu", -1, "--RAD_dir", "data_RAD", "--output", "results", *OFFICIAL.split()]
    run_script("test.py", "--input", "CMSA-Bio-MTPT", "--epoch", 59, *options)
    rows = json.loads((tmp_path / "results" / "predictions.json").read_text())
    assert len(rows) == 40 and {row["answer"] for row in rows} == {answers[7]}
    results = json.loads((tmp_path / "results" / "results_all.json").read_text())
    assert results["epoch"] == 59 and results["data"]["name"] == "VQA-RAD, authors' archive"
    assert results["recipe"] == "official code" and results["form_rule"] is False


def test_official_checkpoints_are_found_in_their_folder(tmp_path, monkeypatch, capsys):
    """The epoch asked for, else the last one by number, said; from either of two places."""
    runs, name = tmp_path / "saved_models", "CMSA-Bio-MTPT"
    folder = runs / name
    folder.mkdir(parents=True)
    for file in ("model_epoch9.pth", "model_epoch59.pth", "model_epoch_best.pth"):
        (folder / file).touch()
    monkeypatch.chdir(tmp_path)
    for given in (Path(name), Path("saved_models", name), folder, Path("saved_models", name, "")):
        path, run = find_checkpoint(given, 9, runs)
        assert path.samefile(folder / "model_epoch9.pth") and run == f"{name}_epoch_9"
    assert capsys.readouterr().out == ""
    path, run = find_checkpoint(Path(name), None, runs)
    assert path.samefile(folder / "model_epoch59.pth") and run == f"{name}_epoch_59"
    assert "model_epoch59.pth is taken, the last epoch" in capsys.readouterr().out
    with pytest.raises(UserError, match="no --epoch 60; counted from 0 there are: 9, 59$"):
        find_checkpoint(Path(name), 60, runs)
    for file in ("model_epoch9.pth", "model_epoch59.pth"):
        (folder / file).unlink()
    with pytest.raises(UserError, match="one of its files with --input: model_epoch_best.pth"):
        find_checkpoint(Path(name), None, runs)
    with pytest.raises(UserError, match="no such run folder or checkpoint: other"):
        find_checkpoint(Path("other"), None, runs)


def test_a_run_of_our_own_comes_before_official_files(run, tmp_path):
    for file in run.glob("*.pth"):
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "model_epoch1.pth").touch()
    assert find_checkpoint(tmp_path, None, tmp_path)[0].name == "best.pth"
    assert find_checkpoint(tmp_path, 1, tmp_path)[0].name != "model_epoch1.pth"


def test_a_run_that_was_stopped_in_its_first_epoch(tmp_path):
    """It has no best.pth. The message says how it goes on, with --input and without."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.pth").touch()
    for given in (None, Path("run")):
        with pytest.raises(
            UserError, match=f"not ended yet .train.py --resume --output {tmp_path}/run"
        ):
            find_checkpoint(given, None, tmp_path)


def test_the_official_split_argument_and_an_absent_gpu(fails, run):
    assert evaluation.parse_args(["--split", "test"]).split == "test"
    with pytest.raises(SystemExit):
        evaluation.parse_args(["--split", "val"])
    line = fails("test.py", "--input", run, "--split", "clean", "--gpu", -1)
    assert "best.pth was trained with --split official, not clean: leave it out" in line
    if not torch.cuda.is_available():
        message = "--gpu 0: this machine has 0 CUDA GPUs; --gpu -1 is the CPU"
        assert message in fails("test.py", "--input", run, "--gpu", 0)


def test_a_folder_that_is_read_only_is_refused_at_once(fails, run, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "load_model", lambda *_: pytest.fail("it read a model"))
    tmp_path.chmod(0o555)
    for output in (tmp_path, tmp_path / "new"):
        line = fails("test.py", "--input", run, "--output", output, "--gpu", -1)
        assert f"{output} can't be written: name another place with --output" in line
