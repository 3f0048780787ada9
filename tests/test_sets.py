"""One's own set: three fields a record, from the data to results; options and organs of sets."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import SMALL, call, run_script
from helpers import error_of, glove_line, prepare, processed, quiet, record
from saved_runs import save_run, small_model
from set_folders import own, path_vqa, save_pictures, slake, vqa_med

import ask
import dataset_RAD as rad
import export
from dataset_RAD import own_parts, training_questions
from features import to_float
from readers.checkpoints import read_checkpoint, save_checkpoint
from readers.images import read_image
from tools.compare import compare_runs, format_list, format_runs, list_runs
from tools.summary import summary
from utils import HERE, UserError

pytestmark = pytest.mark.usefixtures("no_real_folders")
OPTIONAL = ("qid", "image_organ", "question_type", "phrase_type", "answer_type")


def test_three_fields_are_enough(tmp_path):
    data = prepare(own(tmp_path / "d"))
    assert [q.qid for q in data.train] == list(range(1, 81)) and data.test[0].qid == 81
    assert {q.answer_type for q in data.train if q.answer in ("yes", "no")} == {"CLOSED"}
    assert {q.answer_type for q in data.train if q.answer in ("dark", "bright")} == {"OPEN"}
    first = data.train[0]
    assert (first.organ, first.organ_name, first.modality, first.phrase_type) == (-1, "", "", "")
    assert first.question_types == ("OTHER",) and first.image_name == "part 0/p0.png"
    assert not data.organs and not data.frames and data.name == "own set d"
    text = "\n".join(summary(data, None))
    assert "training   " in text and "clean" not in text and " split" not in text
    assert "highest possible score: 100.0 (all questions)" in text


@pytest.mark.parametrize("field", OPTIONAL)
def test_any_optional_field_may_be_absent_but_not_here_and_there(tmp_path, field):
    parts = [[record(1), record(2, answer="No")], [record(3)]]
    for part in parts:
        for one in part:
            del one[field]
    folder = processed(tmp_path / "d", *parts)
    data = prepare(folder)
    assert (len(data.train), len(data.test)) == (2, 1)
    assert data.organs == (field != "image_organ")
    parts[0].append(record(9))
    assert f"fields are missing: '{field}' (2 of 3 records" in error_of(
        processed(tmp_path / "e", *parts)
    )


def test_own_organs(tmp_path):
    """Names of organs as people write them; others mean one encoder, in VQA-RAD's form a slip."""
    parts = [[record(1, image_organ="brain")], [record(2, image_organ=" Abdomen")]]
    for one in parts[0] + parts[1]:
        del one["phrase_type"]
    data = prepare(processed(tmp_path / "d", *parts))
    assert data.organs and (data.train[0].organ, data.test[0].organ) == (1, 0)
    parts[0].append(parts[0][0] | {"qid": 5, "image_organ": "knee"})
    folder = processed(tmp_path / "e", *parts)
    data = prepare(folder)
    assert not data.organs and data.train[1].organ_name == "KNEE"
    data = rad.prepare(folder, {"organ_map": {"Knee": "CHEST"}}, log=quiet)
    assert data.organs and data.train[1].organ == 2


@pytest.mark.parametrize(
    "text, words",
    [
        ("[]", "a JSON object is wanted"),
        ("{}", "a JSON object is wanted"),
        ('{"a": "LEG", "b": "HEAD"}', "a must each be one of ABD, HEAD, CHEST"),
        ('{"a": 1}', "a must each be one of"),
        ("{", "is not valid JSON"),
    ],
)
def test_bad_organ_maps(tmp_path, text, words):
    folder, path = own(tmp_path / "d", 4, 2), tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(UserError, match="map.json") as caught:
        rad.prepare(folder, {"organ_map": path}, log=quiet)
    assert words in str(caught.value)


def test_an_option_of_another_set_is_refused(tmp_path):
    for options in ({"language": "zh"}, {"categories": "all"}):
        with pytest.raises(UserError, match="that has it: name one that does, or train without it"):
            rad.prepare(own(tmp_path / "d", 4, 2), options, log=quiet)
    with pytest.raises(UserError, match="damaged"):
        rad.prepare(tmp_path / "d", ["zh"], log=quiet)


def test_an_own_validation_part_chooses_the_epoch(tmp_path):
    folder = processed(tmp_path / "d", [record(1), record(2)], [record(3)])
    (folder / "valset.json").write_text(json.dumps([record(4, image_name="i2.jpg", answer="5")]))
    data = prepare(folder)
    train, validation = own_parts(data, 0.5, "official", 0)
    assert ([q.qid for q in train], [q.qid for q in validation]) == ([1, 2], [4])
    assert data.answers == ["yes"] and validation[0].label == -1
    assert rad.set_question_len(data, 2).validation[0].tokens == validation[0].tokens[:2]
    assert set(rad.without_questions(data).validation[0].tokens) == {data.ntoken}
    (folder / "valset.json").write_text(json.dumps([record(3)]))
    with pytest.raises(UserError, match="trainset.json and testset.json and valset.json.: qid 3"):
        prepare(folder)


def test_the_clean_split_needs_frame_records(tmp_path):
    data = prepare(own(tmp_path / "d", 4, 2))
    assert training_questions(data, "official") == data.train
    with pytest.raises(UserError, match="--split clean: own set d has no frame records"):
        training_questions(data, "clean")


def test_frame_records_need_their_qid_and_leave_with_a_validation_question(tmp_path):
    """The frame record 2 rewords question 1, which validates, and 4 question 3, which tests."""
    frames = [record(2, phrase_type="frame"), record(4, phrase_type="Frame"), record(7)]
    folder = processed(tmp_path / "d", train=frames)
    (folder / "valset.json").write_text(json.dumps([record(1)]))
    data = prepare(folder)
    assert [q.qid for q in training_questions(data, "clean")] == [7]
    assert len(training_questions(data, "official")) == 3
    for name in ("trainset", "testset", "valset"):
        path = folder / f"{name}.json"
        records = json.loads(path.read_text())
        path.write_text(json.dumps([{k: v for k, v in r.items() if k != "qid"} for r in records]))
    with pytest.raises(UserError, match="'qid' .all 3 records"):
        prepare(folder)


def test_nested_names_in_any_case(tmp_path):
    folder = tmp_path / "d"
    train = [record(1, image_name="A/B/x.png"), record(2, image_name="a\\y.png")]
    processed(folder, train, [record(3, image_name="./a/B/x.png")])
    save_pictures(folder / "images", ["a/b/X.PNG", "a/y.png"], 99)
    assert prepare(folder).image_names == ["A/B/x.png", "a/B/x.png", "a/y.png"]
    folder = processed(tmp_path / "e", [record(1, image_name="AB/x.png")])
    save_pictures(folder / "images", ["ab/x.png", "aB/X.png"])
    message = error_of(folder)
    assert "AB/x.png (either of aB/X.png, ab/x.png may be meant)" in message


def test_from_the_documented_example_to_results(tmp_path, capfd):
    """The set of data_RAD/README.md, made by the script that stands there."""
    text = (HERE / "data_RAD" / "README.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "make.py").write_text(script)
    subprocess.run([sys.executable, "make.py"], cwd=tmp_path, check=True)
    folder, run, results = tmp_path / "own_set", tmp_path / "run", tmp_path / "results"
    done = call("dataset_RAD.py", "--data_dir", folder)
    assert done.returncode == 0 and "own set own_set" in done.stdout, done.stderr
    options = [
        "--RAD_dir",
        folder,
        "--output",
        run,
        "--epochs",
        6,
        *SMALL,
        "--model",
        "SAN",
        "--batch_size",
        16,
    ]
    run_script("train.py", *options)
    out = capfd.readouterr().out
    assert "NOTE: one encoder, as by --no-distmodal: the set names" in out
    assert "\nown set own_set (" in out and " split" not in out
    kept = json.loads((run / "run.json").read_text())
    assert kept["settings"]["distmodal"] is False and "distmodal" not in kept["changed"]
    results.mkdir()
    (results / "results_all.json").write_text("{}")  # of another set
    run_script("test.py", "--input", run, "--output", results, "--gpu", -1)
    assert "; own set own_set (" in (out := capfd.readouterr().out) and " split" not in out
    names = {path.name for path in results.iterdir()}
    assert names == {"results.json", "predictions.json", "report.html"}
    content = json.loads((results / "results.json").read_text())
    assert content["protocol"] == "all questions" and content["ALL"]["count"] == 20
    assert content["ALL"]["score_percent"] >= 90
    assert set(content["groups"]) == {
        *("question_type", "image_in_training", "near_identical_in_training", "known_answer")
    }
    assert content["groups"]["image_in_training"]["unseen"]["count"] == 20
    report = (results / "report.html").read_text()
    assert "all questions" in report and "freeform" not in report
    assert "<dt>Split</dt>" not in report and "official" not in report
    listed = "\n".join(format_list(list_runs([tmp_path])))
    assert "all questions" in listed and "freeform" not in listed and "official" not in listed
    assert "all questions" in "\n".join(format_runs(compare_runs([results, results])))


def test_slake_goes_through_with_organs_and_modality(tmp_path, capfd):
    folder, run, results = slake(tmp_path / "d"), tmp_path / "run", tmp_path / "results"
    options = ["--RAD_dir", folder, "--output", run, "--epochs", 1, *SMALL, "--batch_size", 2]
    run_script("train.py", *options)
    assert "3 training and 1 validation questions" in capfd.readouterr().out
    run_script("test.py", "--input", run, "--output", results, "--gpu", -1)
    content = json.loads((results / "results.json").read_text())
    assert set(content["groups"]["organ"]) == {"HEAD"} and set(content["groups"]["modality"]) == {
        "MRI"
    }
    assert json.loads((run / "run.json").read_text())["settings"]["distmodal"] is True


def test_a_run_goes_on_without_the_file_of_its_organ_map(tmp_path, monkeypatch, fails):
    """Of the code of today and of before, which kept a relative path; another map is read."""
    folder, run = slake(tmp_path / "d"), tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    for name, organ in (("map", "CHEST"), ("same", "CHEST"), ("other", "HEAD")):
        Path(f"{name}.json").write_text(json.dumps({"Knee": organ}))
    options = ["--RAD_dir", folder, "--output", run, "--epochs", 1, *SMALL, "--batch_size", 2]
    options += ["--organ_map", "map.json", "--no-distmodal", "--keep_optimizer"]
    run_script("train.py", *options)
    state = read_checkpoint(run / "last.pth")
    assert state["changed"]["organ_map"] == str(tmp_path / "map.json")
    state["settings"]["organ_map"] = "map.json"
    torch.save(state, run / "last.pth")
    Path("map.json").unlink()
    monkeypatch.chdir(folder)
    again = ["train.py", "--resume", "--output", run]
    run_script(*again, "--epochs", 2)
    run_script(*again, "--epochs", 3, "--organ_map", "../same.json")
    assert "began with other data" in fails(*again, "--organ_map", "../other.json")
    state = read_checkpoint(run / "last.pth")
    assert state["epoch"] == 2 and state["data"]["options"] == {"organ_map": {"Knee": "CHEST"}}


def test_a_run_on_one_set_starts_one_on_another(tmp_path, capfd, fails):
    """Words and answers by their text; new words get their vectors; what can't match is refused."""
    first, second = own(tmp_path / "own"), slake(tmp_path / "slake")
    for folder in (first, second):
        lines = [glove_line(word, 3) for word in ("is", "dark", "modality")]
        (folder / "glove.6B.50d.txt").write_text("\n".join(lines))
    (second / "glove.6B.100d.txt").write_text(glove_line("modality", 5, 100))  # of another width
    one, other = tmp_path / "runs" / "one", tmp_path / "runs" / "other"
    options = ["--epochs", 1, *SMALL, "--model", "SAN", "--batch_size", 16, "--no-calibrate"]
    run_script("train.py", "--RAD_dir", first, "--output", one, *options)
    options += ["--RAD_dir", second, "--output", other, "--init", one]
    line = fails("train.py", *options)
    words = "can't go on with other settings: --no-distmodal (then) and --distmodal (now); give the"
    assert f"{one} {words}" in line
    three, kept = tmp_path / "runs" / "three.pth", read_checkpoint(one)
    kept["settings"]["distmodal"] = True
    save_checkpoint(three, kept)
    line = fails("train.py", "--RAD_dir", first, "--output", other, "--init", three)
    assert f"{three} has an encoder for each of three organs, which this set lacks" in line
    options.append("--no-distmodal")
    for more in (["--rnn", "GRU"], ["--model", "CMSA"], ["--encoder", "resnet34"]):
        assert more[0] in fails("train.py", *options, *more) and not (other / "last.pth").exists()
    capfd.readouterr()
    run_script("train.py", *options)
    start = f"{one} (own set own), 1 of 4 words and 1 of 2 answers; "
    assert f"encoders: {start}" in capfd.readouterr().out
    assert json.loads((other / "run.json").read_text())["start"].startswith(start)
    kept = [read_checkpoint(run) for run in (one, other)]
    table = kept[1]["model"]["w_emb.emb_.weight"]  # which training leaves
    words = kept[1]["dictionary"]
    assert (table[words.index("modality")] == 3).all() and table.shape[1] == 50
    row = kept[0]["model"]["w_emb.emb_.weight"][kept[0]["dictionary"].index("is")]
    assert torch.equal(table[words.index("is")], row)


@pytest.mark.parametrize("make", [own, slake, vqa_med, path_vqa])
def test_runs_on_any_set_answer_and_are_exported(make, tmp_path, capsys):
    """ask.py gives what the exported file gives, with organs or without."""
    data = prepare(make(tmp_path / "set"))
    model, made_with = small_model(data.ntoken, data.num_answers, distmodal=data.organs)
    about = {"dictionary": data.dictionary, "answers": data.answers, "about": data.about()}
    run = save_run(tmp_path / "run", model, made_with, **about)
    question = data.test[0]
    (picture,) = data.folder.rglob(question.image_name)
    asked = ask.answer(*ask.load(run), read_image(picture), question.question)
    assert (asked["image_type"] is not None) == data.organs == (make is slake)
    export.main(["--input", str(run)])
    served = torch.export.load(str(run / "model.pt2")).module()
    images = to_float(torch.tensor(read_image(picture))[None])
    probabilities = served(images, torch.tensor([question.tokens]))[0]
    assert asked["answers"][0][0] == data.answers[probabilities.argmax()]
    assert asked["answers"][0][1] == pytest.approx(probabilities.max().item(), abs=1e-5)
