"""What the report says of a run's training: its epochs, its loss, and whether it overfits."""

import json

from saved_runs import MANY, save_results
from test_report import read_page, run_folder


def test_overfitting_is_shown(tmp_path):
    log = [
        {"epoch": epoch, "loss": 2.0, "train_score": training, "val_score": val}
        for epoch, training, val in ((0, 0.25, 0.5), (1, 0.5, 0.75), (2, 0.875, 0.625))
    ]
    checkpoint = run_folder(tmp_path / "run", log, settings={"epochs": 3})
    folder = save_results(tmp_path / "a", MANY[:20], checkpoint=checkpoint, epoch=2)
    page = " ".join(read_page(folder).split())
    assert "<dt>Epoch</dt><dd>3 of 3</dd>" in page and ">epoch, from 1</text>" in page
    assert "epochs 1 to 3: the numbers" in page and '<th scope="row">0</th>' not in page
    assert "In epoch 3 of 3, which was evaluated, the training score is 87.5" in page
    assert "validation score 62.5: training is 25.0 points ahead." in page
    assert " The best validation score is 75.0, of epoch 2 of 3." in page
    shade = 'PolyCollection_1"> <defs> <path'
    assert page.count(shade) == 1  # of the score, where training is ahead
    assert ">validation loss</th>" not in page
    log = [row | {"val_loss": 3.25} for row in log]
    (tmp_path / "run" / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    page = read_page(folder)
    assert ">validation loss</th>" in page and page.count("<td>3.25</td>") == 3
    assert " ".join(page.split()).count(shade) == 2  # and of the loss, where training's is lower
    behind = [row | {"train_score": row["val_score"] - 0.125, "val_loss": 1.0} for row in log]
    (tmp_path / "run" / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in behind))
    page = " ".join(read_page(folder).split())
    assert "training is 12.5 points behind." in page and shade not in page
    blind = [{key: row[key] for key in ("epoch", "loss", "train_score")} for row in log]
    (tmp_path / "run" / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in blind))
    page = read_page(folder)
    assert "no validation part" in page and "PolyCollection" not in page


def test_the_calibration_speaks_of_the_run_s_own_loss(tmp_path):
    for softmax, words in ((True, "by a softmax"), (False, "by a sigmoid"), (None, "")):
        place = tmp_path / str(softmax)
        place.mkdir()
        checkpoint = run_folder(place / "run", [], model_arguments={"softmax": softmax})
        page = read_page(save_results(place / "results", MANY[:20], checkpoint=checkpoint))
        part = page[page.index('id="calibration"') : page.index('id="confusion"')]
        found = [word for word in ("by a softmax", "by a sigmoid") if word in part]
        assert found == [words] * bool(words) and "--loss" not in part


def test_resumptions_count_epochs_from_one(tmp_path):
    resumed = [{"command": ["train.py"], "time": "2026-11-26T23:46:32", "host": "h", "epoch": 3}, 7]
    checkpoint = run_folder(tmp_path / "run", [], resumed=resumed, device="cpu")
    page = read_page(save_results(tmp_path / "a", MANY[:20], checkpoint=checkpoint))
    assert '<td class="text">2026-11-26 23:46, on h, with epoch 4</td>' in page
