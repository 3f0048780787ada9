"""ask.py --batch: lists of questions of all kinds, answers out, rows that fail."""

import csv
import io
import json
import sys

import pytest
from PIL import Image
from saved_runs import save_run, small_model

import ask
from readers import question_lists
from readers.images import read_image
from tools import ask_many
from utils import UserError, run_main

WORDS, ANSWERS = ["is", "there", "a", "mass"], ["yes", "no"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with two pictures beside it."""
    folder = tmp_path_factory.mktemp("many")
    model, made_with = small_model(len(WORDS), len(ANSWERS))
    about = {"name": "test", "digest": "0", "folder": "/"}
    save_run(folder / "run", model, made_with, dictionary=WORDS, answers=ANSWERS, about=about)
    for name, colour in (("a.png", 200), ("b.png", 90)):
        Image.new("L", (9, 9), colour).save(folder / name)
    return folder / "run"


@pytest.fixture
def call(run, monkeypatch, capfd):
    """ask.py --batch in this process: (exit code, stdout, stderr)."""

    def call_in_process(*arguments):
        line = ["ask.py", "--batch", *map(str, arguments), "--input", str(run), "--gpu", "-1"]
        monkeypatch.setattr(sys, "argv", line)
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            run_main(ask.main)
        return stop.value.code, *capfd.readouterr()

    return call_in_process


def test_csv(run, call, monkeypatch):
    """Answers as one by one, columns kept, each image encoded once, bad rows named."""
    file = run.parent / "q.csv"
    rows = [("a.png", "is there, a mass?"), ("none.png", "is it"), ("b.png", "a mass")]
    rows += [("a.png", "zyx"), ("a.png", "there"), ("", "is"), ("b.png", "")]
    text = io.StringIO()
    csv.writer(text).writerows([("ID", "Image", "question ", "answer")])
    csv.writer(text).writerows([(i, *row, f"y, {i}") for i, row in enumerate(rows)])
    file.write_text(text.getvalue() + "\n\n", encoding="utf-8-sig")
    encode, encoded = ask.encode_picture, []
    monkeypatch.setattr(ask, "encode_picture", lambda *a: encoded.append(1) or encode(*a))
    code, out, err = call(file)
    assert code == 2 and err.splitlines()[-1].startswith(f"error: 4 of 7 questions of {file} have")
    assert "epoch 2, trained on test" in err and len(encoded) == 2
    found = list(csv.DictReader(io.StringIO(out)))
    assert [(row["ID"], row["answer"]) for row in found] == [(str(i), f"y, {i}") for i in range(7)]
    assert [(row["image"], row["question"]) for row in found] == rows
    monkeypatch.undo()
    model, kept = ask.load(run / "best.pth")
    for index in (0, 2, 4):
        image = read_image(run.parent / rows[index][0])
        alone = ask.answer(model, kept, image, rows[index][1])
        assert json.loads(found[index]["model_top"]) == alone["answers"]
        assert found[index]["model_answer"] == alone["answers"][0][0]
        assert found[index]["error"] == "" != found[index]["model_image_type"]
    for index, why in ((1, "none.png can't be used"), (3, "zyx"), (5, "no image"), (6, "is empty")):
        assert why in found[index]["error"] and found[index]["model_answer"] == ""


def test_json_lines_out(run, call, tmp_path):
    """Numbers and lists of other keys stay what they are; the file is whole or as it was."""
    file, output = run.parent / "q.jsonl", tmp_path / "new" / "out.jsonl"
    rows = [{"image": "a.png", "question": "is there", "n": [1]}, {"question": "a", "image": 7}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = call(file, "--output", output, "--top", 1)
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert code == 2 and "1 of 2" in err and "written" in out
    assert found[0]["n"] == [1] and found[0]["error"] is None and len(found[0]["model_top"]) == 1
    assert found[1]["image"] == 7 and "7 can't be used" in found[1]["error"]
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl"]
    table = tmp_path / "out.csv"
    (run.parent / "one.json").write_text(json.dumps(rows[0]))
    code, out, _ = call(run.parent / "one.json", "--output", table)
    assert code == 0 and out.splitlines()[0].startswith("model: CMSA")
    [row] = csv.DictReader(table.open())
    assert row["n"] == "[1]" and row["model_answer"] in ANSWERS


def test_whatever_is_in_a_cell_stays_in_it():
    """Line ends of all kinds, marks and quotes; a line of the file ends with a plain one."""
    rows = [{"n": text} for text in ("a\rb", "a\nb", "\r\n", '"', ",;\t", "\u2028", "")]
    text = ask_many.csv_text(rows)
    assert list(csv.DictReader(io.StringIO(text, newline=""))) == rows
    assert text.startswith("n\n") and text.endswith("\n") and not text.endswith("\r\n")


def test_arguments(run, call):
    def line(*arguments):
        code, out, err = call(*arguments)
        assert code == 2 and not out and len(err.splitlines()) == 1
        return err

    file = run.parent / "p.csv"
    file.write_text("image,question\na.png,is\n")
    assert "takes no image" in line(file, "a.png", "is")
    assert "takes no image" in line(file, "--web") and "takes no" in line(file, "--show", "a.png")
    assert ".csv or .jsonl" in line(file, "--output", "a.txt")
    assert "no such file" in line(run.parent / "none.csv")


@pytest.mark.parametrize(
    "name, content, rows",
    [
        ("a.csv", b"image;question\r\nx.png;a, b?\r\n", [("x.png", "a, b?")]),
        ("a.csv", "question\timage\nwo?\tä.png".encode("utf-16"), [("ä.png", "wo?")]),
        ("a.csv", b'image,question\nx.png,"a ""b""\nc"\ny.png\n', None),
        ("a.csv", b"IMAGE,Question\nx.png\n", [("x.png", "")]),
        ("a.json", b'[{"image": "x", "question": null}]', [("x", "")]),
        ("a.JSONL", b'{"image": "x", "question": "a"}\n{"image": "y"}\n', [("x", "a"), ("y", "")]),
    ],
)
def test_kinds_of_files(name, content, rows, tmp_path):
    (tmp_path / name).write_bytes(content)
    found = question_lists.read_questions(tmp_path / name)
    rows = rows or [("x.png", 'a "b"\nc'), ("y.png", "")]
    assert [(row["image"], row["question"]) for row in found] == rows


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("a.csv", b"", "holds no question"),
        ("a.csv", b"image,question\n", "holds no question"),
        ("a.csv", b"picture,text\nx,y\n", "no columns image and question; it has: picture, text"),
        ("a.csv", b"image,question\nx,is it, or not\n", "row 2 has more cells"),
        ("a.csv", b"image,image,question\nx,y,z\n", "the same name"),
        ("a.csv", b'image,question\nx,"a\n', "check its quotes"),
        ("a.csv", b"image,question\nx,\xe4\n", "not UTF-8"),
        ("a.csv", b"image,question\nx,\0\n", "bytes of zero"),
        ("a.json", b"[1]", "not a list of objects"),
        ("a.json", b"[]", "holds no question"),
        ("a.jsonl", b"{", "not valid JSON"),
    ],
)
def test_files_that_are_none(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        question_lists.read_questions(tmp_path / name)
    with pytest.raises(UserError, match="is not a file"):
        (tmp_path / f"folder-{name}").mkdir()
        question_lists.read_questions(tmp_path / f"folder-{name}")
