"""bench.py: its tables and their JSON, the count of multiply-adds, and what it says to wrong arguments."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import bench
from attention import CMSA, spatial_features
from utils import UserError

ROOT = Path(__file__).parent.parent


def cells(markdown):
    """The lines of the one Markdown table in a text, as lists of cells, the header first."""
    return [
        [cell.strip() for cell in line[1:-2].split(" | ")]
        for line in markdown.splitlines()
        if line.startswith("| ")
    ]


def test_table_and_json(tmp_path):
    file = tmp_path / "bench.json"
    done = subprocess.run(
        [sys.executable, ROOT / "bench.py", "--quick", "--json", file],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    written, (header, rule, *table) = json.loads(file.read_text()), cells(done.stdout)
    assert header == [
        "what",
        "result",
        "against",
        "its result",
        "ratio",
        "rounds",
        "remark",
    ] and set(rule) == {"---"}
    assert [line[0] for line in table] == [row["what"] for row in written["rows"]] and all(
        len(line) == len(header) for line in table
    )
    assert written["quick"] and written["torch"] == torch.__version__ and written["threads"] >= 1
    assert written["not_measured"] == {
        f"torch.compile, {dtype}": "--compile was not given" for dtype in ("float32", "bfloat16")
    }
    assert "Not measured: torch.compile, float32 (--compile was not given)." in done.stdout
    for row in written["rows"]:
        assert row["value"] > 0 and row["rounds"] == 1, row
        if row["reference"] is not None:
            better = (
                row["reference"] / row["value"]
                if row["unit"] in ("s", "MiB")
                else row["value"] / row["reference"]
            )
            assert row["ratio"] == pytest.approx(better) and row["ratio"] > 0, row
    alone = [row["what"] for row in written["rows"] if row["ratio"] is None]
    assert alone == ["epoch, bfloat16"]  # --quick has one precision of it
    for row in written["rows"]:
        if row["unit"] == "s":
            assert row["value"] == pytest.approx(written["seconds"][row["what"]][0])
    for start in (
        "CMSA forward, float32",
        "CMSA forward+backward, float32",
        "CMSA forward+backward, bfloat16",
        "rate of CMSA forward+backward",
        "frozen step, bfloat16",
        "inputs of a frozen step",
        "epoch",
        "share of a step in the model",
        "evaluation",
        "peak memory",
        "start-up",
    ):
        assert any(line[0].startswith(start) for line in table), start
    share = next(row for row in written["rows"] if row["what"].startswith("share"))
    assert 0.2 < share["value"] < 1


def test_growth_table(tmp_path, monkeypatch):
    """One size, in this process: what the two fresh ones would find, and the table made of it."""

    def fresh(part, *options):
        printed = []
        monkeypatch.setattr(
            sys, "argv", ["bench.py", "--quick", "--memory_of", part, *map(str, options)]
        )
        monkeypatch.setattr("builtins.print", lambda *texts, **_: printed.extend(texts))
        bench.main()
        monkeypatch.undo()
        return json.loads(printed[-1])

    monkeypatch.setattr(sys, "argv", ["bench.py", "--quick", "--growth", "1"])
    args = bench.parse_args()
    monkeypatch.undo()
    original, bench.fresh = bench.fresh, fresh
    try:
        rows = bench.growth_rows(args, tmp_path)
    finally:
        bench.fresh = original
    assert (
        len(rows) == 1
        and rows[0]["images"] == 60
        and rows[0]["questions"] > rows[0]["training"] > 400
    )
    assert all(
        rows[0][key] > 0
        for key in ("prepare", "encode", "epoch", "loop", "model", "data", "host", "encode_host")
    )
    assert rows[0]["steps"] == 2 and rows[0]["of_steps"] == rows[0]["training"] // 2
    assert rows[0]["epoch"] > rows[0]["loop"] * rows[0]["of_steps"] > 0
    header, _, line = cells(bench.growth_table(rows))
    assert len(line) == len(header) and dict(zip(header, line))["epoch against the first"] == "1.00"
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "batch, blocks, visual, question, spatial",
    [(3, 1, 64, 128, 8), (3, 2, 64, 128, 8), (4, 2, 32, 64, 0), (2, 2, 512, 1024, 8)],
)
def test_multiply_adds(batch, blocks, visual, question, spatial):
    """PyTorch's own counter sees the same, forward and backward. It counts a multiply-add as two."""
    model = CMSA(visual, question, spatial, blocks)
    inputs = (
        torch.randn(batch, 49, visual, requires_grad=True),
        torch.randn(batch, 12, question, requires_grad=True),
        spatial_features(7, 7)[:, :spatial],
    )
    for dense, forward in ((False, model.forward), (True, model.forward_dense)):
        ahead, back = bench.multiply_adds(
            batch, visual=visual, question=question, spatial=spatial, blocks=blocks, dense=dense
        )
        with sdpa_kernel(SDPBackend.MATH):  # matrix products that the counter knows
            with FlopCounterMode(display=False) as counter:
                output = forward(*inputs)
            with FlopCounterMode(display=False) as backward:
                output.square().mean().backward()
        assert ahead == pytest.approx(counter.get_total_flops() / 2, rel=0.02)
        assert back == pytest.approx(backward.get_total_flops() / 2, rel=0.02)


def test_dense_step(monkeypatch):
    """A step with the dense definition takes that one, and leaves the model as it was."""
    monkeypatch.setattr(sys, "argv", ["bench.py", "--quick"])
    args, taken = bench.parse_args(), []
    model, optimizer = bench.make_model(args, frozen=True)
    for name in ("forward", "forward_dense"):
        monkeypatch.setattr(
            CMSA,
            name,
            lambda *inputs, name=name, real=getattr(CMSA, name): (
                taken.append(name) or real(*inputs)
            ),
        )
    for dense in (True, False):
        bench.step_case(args, model, optimizer, "float32", dense)()
    assert taken == ["forward_dense", "forward"]


def test_ratios():
    assert bench.row("time", 2.0, "other", 6.0, "s")["ratio"] == 3
    assert bench.row("rate", 60.0, "limit", 100.0, "GFLOP/s")["ratio"] == pytest.approx(0.6)
    assert bench.row("memory", 50.0, "other", 100.0, "MiB")["ratio"] == 2
    assert bench.row("alone", 2.0)["ratio"] is None
    assert (
        bench.shown(0.0123, "s") == "12.3 ms"
        and bench.shown(1234.5, "MiB") == "1,234 MiB"
        and bench.shown(None, "s") == "-"
    )


@pytest.mark.parametrize(
    "options, word",
    [
        (["--batch_size", "1"], "--batch_size"),
        (["--repeats", "0"], "--repeats"),
        (["--growth", "0"], "--growth"),
        (["--steps", "0"], "--steps"),
        (["--growth", "--dtype", "float64"], "float64"),
        (["--json", str(ROOT)], "--json"),
    ],
)
def test_wrong_arguments(monkeypatch, options, word):
    monkeypatch.setattr(sys, "argv", ["bench.py", *options])
    with pytest.raises(UserError, match=word):
        bench.parse_args()


def test_without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bench.py", "--device", "cuda"])
    with pytest.raises(UserError, match="no CUDA GPU"):
        bench.parse_args()
