"""The report's page: its parts, what it says of missing ones, and the page in a browser."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from saved_runs import MANY, prediction, save_results, save_run, small_model

from dataset_RAD import find_data
from engine import predict
from features import Inputs, model_inputs
from scores import prediction_rows
from tools import report
from tools.report_gallery import choose_gallery
from tools.report_tables import TYPES
from utils import UserError

CPU = torch.device("cpu")
EVIL, QUOTED = "<script>alert(1)</script>", 'it\'s "5" > 4 & <b>" onload="x'
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(autouse=True)
def quick_maps(monkeypatch):
    """The 49 passes of a card's map take seconds; test_report_gallery.py tests the cards."""

    def blank(model, tokens, labels, maps, organs):
        return np.zeros((len(tokens), 7, 7), np.float32), np.zeros(len(tokens), np.float32)

    monkeypatch.setattr("tools.report_gallery.occlusion_maps", blank)


def read_page(folder, **given):
    return report.make_report(folder, **given).read_text(encoding="utf-8")


def test_a_folder_without_its_run_says_what_is_missing(tmp_path):
    folder = save_results(tmp_path / "results" / "a run", MANY)
    page = read_page(folder)
    assert [path.name for path in folder.glob("*.html")] == ["report.html"]
    for words in (
        "a run",
        "Research software, not for diagnosis",
        "There is no log.jsonl in /nonexistent/run",
        "There is no run.json in /nonexistent/run",
        "The data are no longer in /nonexistent/data",
        "The maps of the answers are left out. The data are not at hand.",
        "--question_only",
        "expected calibration error",
        "of the 200 test questions",
    ):
        assert words in page
    assert "PHANTOM" not in page and 'src="data:' not in page
    score = 100 * sum(row["correct"] for row in MANY) / 200
    assert f"{score:.1f}" in page


def test_the_head_names_the_recipe(tmp_path):
    page = read_page(save_results(tmp_path / "a", MANY[:20]))
    assert "<dt>Recipe</dt><dd>paper</dd>" in page
    changed = {"blocks": 1, "loss": "ce"}
    page = read_page(save_results(tmp_path / "b", MANY[:20], changed=changed, epoch=None))
    assert "<dt>Recipe</dt><dd>paper, changed: blocks 1, loss ce</dd>" in page
    assert "<dt>Epoch</dt><dd>unknown</dd>" in page
    about = {"name": "own set phantom limb", "digest": "0", "folder": "/nonexistent"}
    assert "PHANTOM" not in read_page(save_results(tmp_path / "c", MANY[:20], data=about))


def test_everything_is_escaped_and_nothing_is_loaded(tmp_path):
    hostile = prediction(999, 0, QUOTED, EVIL, organ=EVIL, question_types=[EVIL])
    hostile |= {"question": EVIL, "image": QUOTED, "top5": [[QUOTED, 0.4]]}
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"settings": {"seed": EVIL}, "seed": 1}))
    log = '{"epoch": 0, "loss": 2.5, "train_score": 0.5, "rate": 0.1, "val_score": 0.25}\n'
    later = log.replace('"epoch": 0', '"epoch": 2').replace("0.25", "0.75")
    (run / "log.jsonl").write_text(log + later + '{"epoch": 1, "loss": 1.5}\n{"epo')
    page = read_page(
        save_results(
            tmp_path / "results",
            MANY[:30] + [hostile],
            checkpoint=str(run / "best.pth"),
            split="official",
            recipe=EVIL,
            changed={EVIL: EVIL},
            data={"name": EVIL, "digest": EVIL, "folder": EVIL},
        )
    )
    assert EVIL not in page and 'onload="' not in page
    assert "<b>" not in re.sub(r"<figcaption>.*?</figcaption>", "", page, flags=re.DOTALL)
    assert page.count("<script>") == 1 == page.count("</script>")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    targets = re.findall(r'\b(?:src|href)="([^"]*)"', page)
    assert all(re.fullmatch(r"#.*|data:.*", target) for target in targets)
    assert "http:" not in page and "https:" not in page and "@import" not in page
    assert "default-src 'none'" in page
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert page.count("<svg") == 3 and len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', page)) <= set(ids)
    levels = [int(level) for level in re.findall(r"<h([1-6])", page)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:]))
    assert "<td>2.5</td>" in page and '<html lang="en">' in page


def run_folder(folder, log, **facts):
    """A run's folder with log.jsonl, of these rows, and run.json."""
    folder.mkdir()
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    (folder / "run.json").write_text(json.dumps(facts))
    return str(folder / "best.pth")


def test_the_head_says_when_and_where(tmp_path):
    """Only what run.json and results.json know."""
    began = {"began": "2026-11-26T23:46:32+01:00", "seconds": 11250.2, "commit": "590c345"}
    checkpoint = run_folder(tmp_path / "run", [], host="<b>", **began)
    evaluated = {"evaluated": "2026-11-27T00:05:00", "seconds": 61.5, "commit": None}
    page = read_page(
        save_results(tmp_path / "a", MANY[:20], checkpoint=checkpoint, host="here", **evaluated)
    )
    trained = "2026-11-26 23:46 UTC+01:00, took 3 h 7 min, commit 590c345, on &lt;b&gt;"
    assert f"<dt>Trained</dt><dd>{trained}</dd>" in page
    assert "<dt>Evaluated</dt><dd>2026-11-27 00:05, took 1 min 2 s, on here</dd>" in page
    assert "11250" not in page
    wrong = {"evaluated": "yesterday", "seconds": -1, "commit": 7, "host": ["x"]}
    page = read_page(save_results(tmp_path / "b", MANY[:20], **wrong))
    assert "<dt>Questions</dt>" in page
    assert "<dt>Trained</dt>" not in page and "<dt>Evaluated</dt>" not in page


def test_changed_settings_stand_first(tmp_path):
    settings = {"recipe": "tuned", "lr": 0.5, "blocks": 1, "input": None}
    facts = {"settings": settings, "recipe": "tuned", "changed": {"blocks": 1}, "device": "cpu"}
    checkpoint = run_folder(tmp_path / "run", [], model_arguments={"hidden": 32}, **facts)
    about = {"recipe": "tuned", "changed": {"blocks": 1}, "checkpoint": checkpoint}
    page = read_page(save_results(tmp_path / "a", MANY[:20], **about))
    part = page[page.index("<h3>Settings</h3>") : page.index('id="calibration"')]
    rows = re.findall(r'<th scope="row">(.*?)</th>\s*<td class="text">(.*?)</td>', part)
    mark = ' <span class="mark">changed</span>'
    assert rows == [
        *(("recipe", "tuned"), ("blocks" + mark, "1")),
        *(("lr", "0.5"), ("hidden", "32"), ("device", "cpu")),
    ]
    assert part.index("<details>") > part.index(mark) and part.index("0.5") > part.index(
        "<details>"
    )
    page = read_page(save_results(tmp_path / "b", MANY[:20], **about | {"changed": {}}))
    assert "The recipe is tuned, and no setting was changed." in page and mark not in page


def test_no_table_has_one_row(tmp_path):
    """A sentence stands in place of a table with one line."""
    rows = [prediction(qid, qid % 2, truth="yes", twin=0) for qid in range(20)]
    row = {"epoch": 4, "loss": 2.5, "train_score": 0.5, "val_score": 0.25}
    checkpoint = run_folder(tmp_path / "run", [row], recipe="paper")
    page = read_page(save_results(tmp_path / "a", rows, checkpoint=checkpoint))
    for part in page.split("<table")[1:]:
        table = part.split("</table>")[0]
        assert len(re.findall(r"<tr", table[table.index("<tbody>") :])) > 1
    for group in ("PRES", "head", "no twin", "there is none", "known"):
        assert f"All 20 test questions are in one group,\n“{group}”" in page
    assert "log has one epoch, 5: loss 2.5, training\nscore 50.0, validation score 25.0." in page
    assert "No true answer is no. Of the\n20 questions whose true answer is yes" in page
    assert page.count("<svg") == 1  # calibration
    assert "There is no run.json" in page  # it says no more than results.json
    rows = [prediction(qid, 1, "left") for qid in range(20)]
    assert "No true answer is yes or no." in read_page(save_results(tmp_path / "b", rows))


def test_the_companion_s_curves_and_the_error_before_calibration(tmp_path):
    """Eight of ten answers of 90% are right; without the temperature they were said at 99%."""
    rows = [row | {"probability": 0.9, "uncalibrated": 0.99, "correct": int(i % 5 > 0)}
            for i, row in enumerate(MANY[:20])]  # fmt: skip
    log = [{"epoch": epoch, "loss": 2.0, "train_score": 0.5} for epoch in range(2)]
    checkpoint = run_folder(tmp_path / "run", log, recipe="tuned")
    scored = [row | {"val_score": 0.25} for row in log]
    run_folder(tmp_path / "run" / "companion", scored, recipe="tuned")
    results = {"temperature": 1.5, "ece_percent": 10.0, "ece_percent_before": 19.0}
    folder = save_results(tmp_path / "a", rows, checkpoint=checkpoint, calibration=results)
    page = " ".join(read_page(folder).split())
    assert "error is <strong>10.0%</strong>. Without the run's temperature of 1.50" in page
    assert "had not seen, it was 19.0%." in page
    assert "those of the companion run" in page and "validation score 25.0" in page
    for bad in ("1.5", {"temperature": "x"}, {"temperature": float("nan")}, {}):
        folder = save_results(tmp_path / "a", rows, checkpoint=checkpoint, calibration=bad)
        assert "Without the run's temperature" not in read_page(folder)
    (tmp_path / "run" / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scored))
    assert "companion run" not in read_page(folder)


def test_the_question_types_are_explained(tmp_path):
    page = read_page(save_results(tmp_path / "a", MANY[:20]))
    legend = page[page.index('<dl class="types') :].split("</dl>")[0]
    assert re.findall(r"<dt>(\w+)</dt>\s*<dd>(.*?)</dd>", legend) == [
        (kind, TYPES[kind][1]) for kind in ("POS", "PRES", "SIZE")
    ]
    assert re.search(r'<option value="PRES">PRES, presence\s*</option>', page)


def test_no_results_folder(tmp_path):
    with pytest.raises(UserError, match="not a results folder"):
        report.make_report(tmp_path)
    without = [{key: value for key, value in row.items() if key != "top5"} for row in MANY]
    with pytest.raises(UserError, match="lacks top5"):
        report.make_report(save_results(tmp_path, without))
    with pytest.raises(UserError, match="damaged"):
        report.make_report(save_results(tmp_path, [MANY[0] | {"probability": "high"}]))
    with pytest.raises(UserError, match="is of version 4"):
        report.make_report(save_results(tmp_path, MANY, version=4))
    assert not (tmp_path / "report.html").exists()


def test_a_run_without_settings(tmp_path):
    """Nothing to show of run.json is as good as none."""
    (tmp_path / "run.json").write_text('{"seed": null, "command": []}')
    folder = save_results(tmp_path / "results", MANY[:20], checkpoint=str(tmp_path / "best.pth"))
    assert "The settings are left out. There is no run.json" in read_page(folder)


@pytest.fixture(scope="module")
def phantom(tiny, tmp_path_factory):
    """Results of an untrained model on the tiny set, with run and question-only neighbour.

    (folder, data, model, rows).
    """
    data, base = find_data(tiny, log=lambda _: None), tmp_path_factory.mktemp("report")
    # as the tuned recipe has it
    model, made_with = small_model(
        data.ntoken, data.num_answers, prior=True, softmax=True, gate=True
    )
    with torch.no_grad():
        model.prior.weights *= 30  # so that it decides on the answers
    run = base / "saved_models" / "run"
    about = {"dictionary": data.dictionary, "answers": data.answers, "about": data.about()}
    save_run(run, model, made_with, **about, epoch=0)
    probabilities = predict(model, data.test, Inputs(data, CPU), CPU)
    rows = prediction_rows(data.test, probabilities, data, "official", data.train)
    for row in rows:
        row |= {"twin": row["qid"] // 2 % 2}  # the drawings have none
        row |= {"answer_without_image": row["truth"], "answer_without_question": "nothing"}
    about = {"data": data.about(), "split": "official", "epoch": 0, "recipe": "tuned"}
    about["checkpoint"] = str(run / "best.pth")
    blank = [row | {"correct": 0, "answer": "nothing"} for row in rows]
    save_results(base / "results" / "blank", blank, **about, question_only=True)
    return save_results(base / "results" / "run", rows, **about), data, model, rows


def test_report_with_everything(phantom):
    folder, data, model, rows = phantom
    report.main([str(folder)])
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "PHANTOM DATA" in page and "where each word looks" in page and "Blanking " in page
    assert page.count('src="data:image/jpeg;base64,') > 48 * 4
    assert "The images are left out" not in page and "maps are left out" not in page
    assert ">majority</th>" in page and ">question only</th>" in page
    head = re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', page[page.index('id="scores"') :])
    line = page[page.index('<tr class="all">') :].split("</tr>")[0]
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", line)  # as many, less protocol and type
    titles = ("image blanked", "question blanked", "question only")
    assert [cells[head.index(title) - 2] for title in titles] == ["100.0", "0.0", "0.0"]
    assert len(page) < 8e6
    # what test.py has at hand gives the same, and the files are then not read
    results = json.loads((folder / "results.json").read_text())
    inputs = model_inputs(model.image, data, CPU, frozen=True)
    (folder / "predictions.json").rename(folder / "away.json")
    try:
        at_hand = dict(data=data, model=model, inputs=inputs, rows=rows, results=results)
        assert read_page(folder, **at_hand) == page
    finally:
        (folder / "away.json").rename(folder / "predictions.json")


def test_baselines_of_other_runs_are_not_shown(tmp_path):
    """Results beside the folder of another recipe, on other questions, or of another version."""
    save_results(tmp_path / "run", MANY)
    save_results(tmp_path / "a", MANY, question_only=True, recipe="tuned")
    save_results(tmp_path / "b", MANY[1:], question_only=True)
    save_results(tmp_path / "c", MANY, question_only=True, version=4)
    page = read_page(tmp_path / "run")
    assert ">question only</th>" not in page and "There are no results of the same model" in page
    save_results(tmp_path / "d", MANY, question_only=True)
    assert ">question only</th>" in read_page(tmp_path / "run")


def test_another_checkpoint_gives_no_maps(phantom, tmp_path):
    folder, _, _, rows = phantom
    results = json.loads((folder / "results.json").read_text())
    page = read_page(save_results(tmp_path / "a", rows, **results | {"epoch": 7}))
    assert "holds epoch 1, and another one was evaluated" in page
    assert "The images are left out" not in page
    other = [row | {"answer": "nonsense"} for row in rows]
    page = read_page(save_results(tmp_path / "b", other, **results))
    assert "it is another one" in page and "where each word looks" not in page
    page = read_page(save_results(tmp_path / "c", rows, **results | {"model": "BAN"}))
    assert "maps of the answers are left out" not in page
    page = read_page(save_results(tmp_path / "d", rows, **results | {"question_only": True}))
    assert "This run saw blank images." in page


def test_data_that_moved_or_changed(phantom, tmp_path):
    folder, data, _, rows = phantom
    results = json.loads((folder / "results.json").read_text())
    moved = {"data": results["data"] | {"folder": "/nonexistent"}}
    folder = save_results(tmp_path / "a", rows[:20], **results | moved)
    assert "The data are no longer in /nonexistent" in read_page(folder)
    assert "The images are left out" not in read_page(folder, rad_dir=data.folder)
    changed = {"data": results["data"] | {"digest": "0"}}
    page = read_page(save_results(tmp_path / "b", rows[:20], **results | changed))
    assert f"The data in {data.folder} have changed since the evaluation." in page


def browse(path, *arguments):
    """The page's document after its scripts ran in headless Chromium."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += ["--disable-quic", "--virtual-time-budget=3000", *arguments, "--dump-dom", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here to open the page in")
def test_in_a_browser(phantom, tmp_path):
    folder, _, _, rows = phantom
    page = report.make_report(folder)
    profile = f"--user-data-dir={tmp_path / 'profile'}"

    def shown(dom):
        return [
            re.search(r'result="(\w+)" data-organ="(\w+)"\s+data-twin="(\d)"', card).groups()
            for card in re.findall(r'<li class="card [^>]*>', dom)
            if "hidden" not in card
        ]

    dom = browse(page.as_uri(), profile)
    everything = shown(dom)
    assert len(everything) == len(choose_gallery(rows))
    assert 'form id="filters" hidden' not in dom
    part = shown(browse(page.as_uri() + "#result=wrong&organ=HEAD", profile))
    assert part == [card for card in everything if card[:2] == ("wrong", "HEAD")]
    assert 0 < len(part) < len(everything)
    for twin in "01":
        part = shown(browse(page.as_uri() + f"#twin={twin}", profile))
        assert part == [card for card in everything if card[2] == twin] != []
    # a table that does not fit says that it scrolls
    assert "scroll wide" not in browse(page.as_uri(), profile, "--window-size=2000,900")
    assert '<div class="scroll wide"' in browse(page.as_uri(), profile, "--window-size=600,900")

    # The window can't be made narrower than 500 px, so a frame of 360 px tells its width. The
    # page's own policy would refuse the script.
    width = "[document.documentElement.scrollWidth, innerWidth].join(' of ')"
    probe = f"<script>parent.postMessage({width}, '*')</script>"
    policy = r'<meta http-equiv="Content-Security-Policy"[^>]*>'
    opened = re.sub(policy, "", page.read_text(encoding="utf-8"))
    opened = opened.replace("<details>", "<details open>").replace("</body>", probe + "</body>")
    frame = "<script>onmessage = event => document.title = event.data</script>"
    frame += "<iframe src='{}' width=360 height=740></iframe>"
    too_wide = "<div style='width: 400px; height: 1px'></div>"  # it would be noticed
    for name, more, expected in (("page", "", 360), ("wide", too_wide, 416)):
        changed = opened.replace("<main>", "<main>" + more)
        (tmp_path / f"{name}.html").write_text(changed, encoding="utf-8")
        (tmp_path / "frame.html").write_text(frame.format(f"{name}.html"), encoding="utf-8")
        dom = browse((tmp_path / "frame.html").as_uri(), profile, "--hide-scrollbars")
        assert f"<title>{expected} of 360</title>" in dom
