"""The report: its numbers against cases counted by hand, its page, what it says of missing parts, and the page in a browser."""

import json
import re
import shutil
import subprocess
from collections import Counter

import numpy as np
import pytest
import torch

import engine
import report
from base_model import VQAModel
from dataset_RAD import ORGANS, find_data
from utils import UserError

EVIL, QUOTED = "<script>alert(1)</script>", 'it\'s "5" > 4 & <b>" onload="x'
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


def prediction(
    qid,
    correct=1,
    answer="yes",
    truth=None,
    probability=0.9,
    organ="HEAD",
    types=("PRES",),
    answer_type="CLOSED",
    phrase="freeform",
):
    truth = truth or (answer if correct else "no" if answer == "yes" else "yes")
    return {
        "qid": qid,
        "image": f"image{qid % 7}.jpg",
        "organ": organ,
        "question": f"is question {qid} answered?",
        "phrase_type": phrase,
        "answer_type": answer_type,
        "question_types": list(types),
        "truth": truth,
        "answer": answer,
        "probability": probability,
        "top5": [[answer, probability], ["other", 0.01]],
        "correct": correct,
        "known_answer": 1,
        "twin": qid % 2,
        "image_in_training": 1,
        "near_identical_in_training": 0,
        "unknown_words": [],
        "data": "VQA-RAD 0",
    }


def results_folder(folder, rows, **about):
    """A results folder as test.py leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions.json").write_text(json.dumps(rows))
    (folder / "results.json").write_text(
        json.dumps(
            {
                "data": {"name": "VQA-RAD", "digest": "0", "folder": "/nonexistent/data"},
                "split": "clean",
                "epoch": 3,
                "checkpoint": "/nonexistent/run/best.pth",
                "model": "CMSA",
                "question_only": False,
            }
            | about
        )
    )
    return folder


MANY = [
    prediction(
        i,
        i % 3 == 0,
        organ=ORGANS[i % 3],
        types=("PRES", "POS") if i % 5 else ("SIZE",),
        phrase="para" if i % 4 == 3 else "freeform",
    )
    for i in range(200)
]


def test_calibration():
    rows = [
        prediction(qid, correct, probability=probability)
        for qid, correct, probability in ((1, 1, 0.05), (2, 1, 0.95), (3, 0, 0.91), (4, 1, 1.0))
    ]
    table = report.calibration(rows)
    assert [row["count"] for row in table["bins"]] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 3]
    last = table["bins"][9]
    assert last["confidence"] == pytest.approx(2.86 / 3) and last["accuracy"] == pytest.approx(
        2 / 3
    )
    assert table["ece"] == pytest.approx(0.25 * 0.95 + 0.75 * (2.86 - 2) / 3)
    assert table["bins"][3]["accuracy"] is None and (
        table["bins"][3]["low"],
        table["bins"][3]["high"],
    ) == (0.3, 0.4)


def test_yes_no_confusion():
    rows = [
        prediction(1),
        prediction(2),
        prediction(3, 0, "no"),
        prediction(4, 0, "left", "yes"),
        prediction(5, 0, "yes", "no"),
        prediction(6, 1, "right lung"),
    ]
    assert report.yes_no_confusion(rows) == {
        "yes": {"yes": 2, "no": 1, "other": 1},
        "no": {"yes": 1, "no": 0, "other": 0},
    }


class Asked:
    """A training question, as far as the majority baseline looks."""

    def __init__(self, answer, types, answer_type="CLOSED"):
        self.answer, self.question_types, self.answer_type = answer, types, answer_type


def test_majority_baseline():
    training = [
        Asked("no", ("PRES",)),
        Asked("yes", ("PRES",)),
        Asked("yes", ("PRES",)),
        Asked("left", ("POS",), "OPEN"),
        Asked("no", ("POS", "PRES")),
        Asked("big", ("SIZE",), "OPEN"),
        Asked("big", ("SIZE",), "OPEN"),
    ]
    rows = [
        prediction(1, 0, "no", "yes"),  # PRES, closed: yes
        prediction(2, 0, "x", "y", types=("PRES", "POS")),  # exactly these two types: no
        prediction(3, 0, "x", "left", types=("POS",), answer_type="OPEN"),
        prediction(
            4, 0, "x", "y", types=("SIZE", "POS"), answer_type="OPEN"
        ),  # not seen together: one of them
        prediction(5, 0, "x", "y", types=("COLOR",), answer_type="OPEN"),
    ]  # not seen: any open question
    guessed = report.majority_baseline(training, rows)
    assert [row["answer"] for row in guessed] == ["yes", "no", "left", "big", "big"]
    assert [row["correct"] for row in guessed] == [1, 0, 1, 0, 0] and rows[0]["answer"] == "no"
    assert (
        report.majority_baseline(training[:2], rows[:1])[0]["answer"] == "no"
    )  # equally frequent: the first


def test_gallery_is_balanced_and_the_same_each_time():
    chosen = report.choose_gallery(MANY)
    assert len(chosen) == 48 and sum(row["correct"] for row in chosen) == 24
    assert chosen == report.choose_gallery(MANY[::-1]) and len({row["qid"] for row in chosen}) == 48
    assert {row["organ"] for row in chosen} == set(ORGANS) and min(
        Counter(row["question_types"][0] for row in chosen).values()
    ) > 8
    few = [row for row in MANY if not row["correct"] or row["qid"] < 10]
    assert (
        sum(row["correct"] for row in report.choose_gallery(few)) == 4
        and len(report.choose_gallery(few)) == 48
    )
    assert len(report.choose_gallery(MANY[:5])) == 5


def test_groups_are_those_of_the_scores():
    from scores import breakdown

    theirs = [
        {key: value["count"] for key, value in group.items()} for group in breakdown(MANY).values()
    ]
    ours = [
        {key: len(rows) for key, rows in group.items()} for group in report.groups(MANY).values()
    ]
    assert [sorted(group.values()) for group in ours] == [
        sorted(group.values()) for group in theirs
    ] and ours[0] == theirs[0]


def test_a_folder_without_its_run_says_what_is_missing(tmp_path):
    page = report.make_report(results_folder(tmp_path / "results" / "a run", MANY)).read_text(
        encoding="utf-8"
    )
    assert [path.name for path in (tmp_path / "results" / "a run").glob("*.html")] == [
        "report.html"
    ]
    for words in (
        "a run",
        "Research software, not for diagnosis",
        "There is no log.jsonl in /nonexistent/run",
        "There is no run.json in /nonexistent/run",
        "The data are no longer in /nonexistent/data",
        "The attention maps are left out. The data are not at hand.",
        "--question_only",
        "expected calibration error",
        "of the 200 test questions",
    ):
        assert words in page
    assert "PHANTOM" not in page and 'src="data:' not in page
    score = 100 * sum(row["correct"] for row in MANY) / 200
    assert f"{score:.1f}" in page


def test_everything_is_escaped_and_nothing_is_loaded(tmp_path):
    hostile = prediction(999, 0, QUOTED, EVIL, types=(EVIL,), organ=EVIL) | {
        "question": EVIL,
        "image": QUOTED,
        "top5": [[QUOTED, 0.4]],
    }
    rows = MANY[:30] + [hostile]
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"arguments": {"seed": EVIL}, "seed": 1}))
    (run / "log.jsonl").write_text(
        '{"epoch": 0, "loss": 2.5, "train_score": 0.5, "rate": 0.1, "val_score": 0.25}\n{"epoch": 1, "loss": 1.5}\n{"epo'
    )
    folder = results_folder(
        tmp_path / "results",
        rows,
        checkpoint=str(run / "best.pth"),
        split="official",
        data={"name": EVIL, "digest": EVIL, "folder": EVIL},
    )
    page = report.make_report(folder).read_text(encoding="utf-8")
    assert (
        EVIL not in page
        and "<b>" not in re.sub(r"<figcaption>.*?</figcaption>", "", page)
        and 'onload="' not in page
    )
    assert (
        page.count("<script>") == 1 == page.count("</script>")
        and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    )
    assert all(
        re.fullmatch(r"#.*|data:.*", target)
        for target in re.findall(r'\b(?:src|href)="([^"]*)"', page)
    )
    assert (
        "http:" not in page
        and "https:" not in page
        and "@import" not in page
        and "default-src 'none'" in page
    )
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert (
        page.count("<svg") == 3
        and len(ids) == len(set(ids))
        and set(re.findall(r'(?:href="|url\()#([^")]*)', page)) <= set(ids)
    )
    levels = [int(level) for level in re.findall(r"<h([1-6])", page)]
    assert (
        levels[0] == 1
        and levels.count(1) == 1
        and all(after <= before + 1 for before, after in zip(levels, levels[1:]))
    )
    assert "<td>2.5</td>" in page and '<html lang="en">' in page


def test_no_results_folder(tmp_path):
    with pytest.raises(UserError, match="not a results folder"):
        report.make_report(tmp_path)
    with pytest.raises(UserError, match="lacks top5"):
        report.make_report(
            results_folder(
                tmp_path,
                [{key: value for key, value in row.items() if key != "top5"} for row in MANY],
            )
        )
    with pytest.raises(UserError, match="damaged"):
        report.make_report(results_folder(tmp_path, [MANY[0] | {"probability": "high"}]))
    assert not (tmp_path / "report.html").exists()


@pytest.fixture(scope="module")
def phantom(tiny, tmp_path_factory):
    """A results folder of an untrained model on the tiny set, with its run's folder and a question-only neighbour: (folder, data, model)."""
    data, base = find_data(tiny, say=lambda _: None), tmp_path_factory.mktemp("report")
    torch.manual_seed(0)
    arguments = dict(
        fusion="CMSA",
        ntoken=data.ntoken,
        num_answers=data.num_answers,
        word_dim=8,
        hidden=16,
        encoder="efficientnet_lite0",
        shared=True,
        softmax=True,
        gate=True,
        prior=True,
        components=3,
    )  # as the default recipe has it
    model = VQAModel(**arguments).eval()
    model.prior.find_components(torch.randn(9, 1280))
    with torch.no_grad():
        for parameter in model.prior.classifier.parameters():
            parameter *= 30  # so that it decides on the answers
    run = base / "saved_models" / "run"
    run.mkdir(parents=True)
    torch.save(
        {
            "version": engine.VERSION,
            "epoch": 0,
            "model": model.state_dict(),
            "model_arguments": arguments,
            "dictionary": data.dictionary,
            "answers": data.answers,
            "question_len": 12,
            "data": data.about(),
            "split": "official",
        },
        run / "best.pth",
    )
    inputs = engine.Inputs(data, torch.device("cpu"))
    rows = engine.describe(
        data.test,
        engine.predict(model, data.test, inputs, torch.device("cpu")),
        data,
        "official",
        data.train,
    )
    rows = [
        row | {"answer_without_image": row["truth"], "answer_without_question": "nothing"}
        for row in rows
    ]
    about = {
        "data": data.about(),
        "split": "official",
        "epoch": 0,
        "checkpoint": str(run / "best.pth"),
    }
    blank = [row | {"correct": 0, "answer": "nothing"} for row in rows]
    results_folder(base / "results" / "blank", blank, **about, question_only=True)
    return results_folder(base / "results" / "run", rows, **about), data, model


def test_maps(phantom):
    _, data, model = phantom
    some = data.test[:3]
    found = report.maps_for(model, some, engine.Inputs(data, torch.device("cpu")), batch_size=2)
    best = engine.predict(
        model, some, engine.Inputs(data, torch.device("cpu")), torch.device("cpu")
    ).argmax(1)
    assert [of["label"] for of in found] == best.tolist()
    for question, of in zip(some, found):
        count = len(of["words"])
        assert (
            question.question.lower().startswith(of["words"][0])
            and of["where"].shape == (count, 7, 7)
            and of["which"].shape == (count, count + 1)
        )
        assert np.allclose(of["where"].sum((1, 2)), 1, atol=1e-5) and np.allclose(
            of["which"].sum(1), 1, atol=1e-5
        )
    heat = np.zeros((7, 7))
    heat[0, 6] = 1
    assert (
        report.place(heat) == "upper right"
        and report.place(np.eye(7) * (np.arange(7) == 3)) == "middle"
    )


def test_report_with_everything(phantom):
    folder, data, model = phantom
    report.main([str(folder)])
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert (
        "PHANTOM DATA" in page
        and "Where each word looks" in page
        and page.count('src="data:image/jpeg;base64,') > 48 * 4
    )
    assert (
        "The images are left out" not in page
        and "maps are left out" not in page
        and ">majority</th>" in page
        and ">question only</th>" in page
    )
    head = re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', page[page.index('id="scores"') :])
    line = re.findall(
        r"<td[^>]*>([^<]*)</td>", page[page.index('<tr class="all">') :].split("</tr>")[0]
    )  # as many, less protocol and type
    assert [
        line[head.index(title) - 2]
        for title in ("image blanked", "question blanked", "question only")
    ] == ["100.0", "0.0", "0.0"]
    assert len(page) < 8e6
    given = report.make_report(
        folder, data, model, engine.Inputs(data, torch.device("cpu"))
    ).read_text(encoding="utf-8")
    assert given == page  # what test.py has at hand gives the same


def test_another_checkpoint_gives_no_maps(phantom, tmp_path):
    folder, data, model = phantom
    results = json.loads((folder / "results.json").read_text())
    rows = json.loads((folder / "predictions.json").read_text())
    page = report.make_report(
        results_folder(tmp_path / "a", rows, **results | {"epoch": 7})
    ).read_text()
    assert (
        "holds epoch 0, and epoch 7 was evaluated" in page and "The images are left out" not in page
    )
    page = report.make_report(
        results_folder(tmp_path / "b", [row | {"answer": "nonsense"} for row in rows], **results)
    ).read_text()
    assert "it is another one" in page and "Where each word looks" not in page
    page = report.make_report(
        results_folder(tmp_path / "c", rows, **results | {"model": "BAN"})
    ).read_text()
    assert "Only CMSA has such maps, and this is BAN" in page


def browse(path, *arguments):
    """The page's document after its scripts ran in headless Chromium."""
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=3000",
            *arguments,
            "--dump-dom",
            path,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here to open the page in")
def test_in_a_browser(phantom, tmp_path):
    folder, _, _ = phantom
    page = report.make_report(folder)
    kept = f"--user-data-dir={tmp_path / 'profile'}"

    def shown(dom):
        return re.findall(
            r'<li class="card [^>]*data-result="(\w+)" data-organ="(\w+)"(?![^>]*hidden)[^>]*>', dom
        )

    dom = browse(page.as_uri(), kept)
    everything = shown(dom)
    rows = json.loads((folder / "predictions.json").read_text())
    assert (
        len(everything) == len(report.choose_gallery(rows))
        and 'form id="filters" hidden' not in dom
    )
    part = shown(browse(page.as_uri() + "#result=wrong&organ=HEAD", kept))
    assert part == [card for card in everything if card == ("wrong", "HEAD")] and 0 < len(
        part
    ) < len(everything)

    # The window can't be made narrower than 500 px, so a frame of 360 px tells its width. The page's own policy would refuse the script.
    probe = "<script>parent.postMessage([document.documentElement.scrollWidth, innerWidth].join(' of '), '*')</script>"
    opened = re.sub(
        r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8")
    ).replace("<details>", "<details open>")
    frame = "<script>onmessage = event => document.title = event.data</script><iframe src='{}' width=360 height=740></iframe>"
    for name, more, expected in (
        ("page", "", 360),
        ("wide", "<div style='width: 400px; height: 1px'></div>", 416),
    ):  # it would be noticed
        (tmp_path / f"{name}.html").write_text(
            opened.replace("<main>", "<main>" + more).replace("</body>", probe + "</body>"),
            encoding="utf-8",
        )
        (tmp_path / "frame.html").write_text(frame.format(f"{name}.html"), encoding="utf-8")
        dom = browse((tmp_path / "frame.html").as_uri(), kept, "--hide-scrollbars")
        assert f"<title>{expected} of 360</title>" in dom
