"""tools/bench.py: its tables and their JSON, the count of multiply-adds, wrong arguments."""

import contextlib
import io
import json
import sys
import time

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import adaptive_avg_pool2d
from torch.utils.flop_counter import FlopCounterMode

from attention import CMSA, spatial_features
from base_model import EfficientNetEncoder
from tools import bench, bench_cases, bench_growth, bench_rows
from utils import HERE, UserError, has_bf16


@pytest.fixture
def quick(monkeypatch):
    """A function: bench.py's settings with --quick and more options, which stay sys.argv."""

    def parse(*options):
        monkeypatch.setattr(sys, "argv", ["bench.py", "--quick", *map(str, options)])
        return bench.parse_args()

    return parse


@pytest.fixture
def fresh_here(monkeypatch):
    """In place of fresh processes their work is done in this one."""

    def fresh(part, *options):
        arguments = [*sys.argv, "--memory_of", part, *map(str, options)]
        with monkeypatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
            patch.setattr(sys, "argv", arguments)
            bench.main()
        return json.loads(printed.getvalue())

    monkeypatch.setattr(bench_growth, "fresh", fresh)


@pytest.fixture
def light_encoder(monkeypatch):
    """An encoder that costs next to nothing: these tests are not about its time."""

    def forward(self, images):
        return adaptive_avg_pool2d(images, 7).repeat(1, 427, 1, 1)[:, :1280]  # (B, 1280, 7, 7)

    monkeypatch.setattr(EfficientNetEncoder, "forward", forward)


def cells(markdown):
    """The lines of the one Markdown table in a text, as lists of cells, the header first."""
    lines = [line[1:-2] for line in markdown.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split(" | ")] for line in lines]


def test_table_and_json(tmp_path, quick, fresh_here, light_encoder, capsys):
    file = tmp_path / "bench.json"
    quick("--json", file)
    bench.main()
    printed = capsys.readouterr().out
    written, (header, rule, *table) = json.loads(file.read_text()), cells(printed)
    assert header == "what;result;against;its result;ratio;rounds;remark".split(";")
    assert set(rule) == {"---"}
    assert [line[0] for line in table] == [row["what"] for row in written["rows"]]
    assert all(len(line) == len(header) for line in table)
    assert written["quick"] and written["torch"] == torch.__version__ and written["threads"] >= 1
    dtypes = ["float32", "bfloat16"] if has_bf16("cpu") else ["float32"]
    why = {f"torch.compile, {dtype}": "--compile was not given" for dtype in dtypes}
    if not has_bf16("cpu"):
        why["bfloat16"] = "this cpu has no native bf16"
    assert written["not_measured"] == why
    assert all(f"Not measured: {name} ({text})." in printed for name, text in why.items())
    for row in written["rows"]:
        assert row["rounds"] == 1, row
        if row["unit"] == "MiB":  # this process may have been larger before
            continue
        assert row["value"] > 0, row
        if row["reference"] is not None:
            better = row["value"] / row["reference"]
            better = 1 / better if row["unit"] == "s" else better
            assert row["ratio"] == pytest.approx(better) and row["ratio"] > 0, row
        if row["unit"] == "s":
            assert row["value"] == pytest.approx(written["seconds"][row["what"]][0])
    alone = [row["what"] for row in written["rows"] if row["ratio"] is None]
    assert alone == [f"epoch, {dtypes[-1]}"]  # --quick has one precision of it
    for start in (
        *(f"CMSA forward+backward, {dtype}" for dtype in dtypes),
        "CMSA forward, float32",
        "rate of CMSA forward+backward",
        f"frozen step, {dtypes[-1]}",
        "a question of a frozen step, --recipe tuned",
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


def test_growth_table(tmp_path, quick, fresh_here, light_encoder):
    rows = bench_growth.growth_rows(quick("--growth", 1), tmp_path)
    assert len(rows) == 1 and rows[0]["images"] == 60
    assert rows[0]["questions"] > rows[0]["training"] > 400
    numbers = ("prepare", "encode", "epoch", "loop", "model", "data", "host", "encode_host")
    assert all(rows[0][key] > 0 for key in numbers)
    assert rows[0]["steps"] == 2 and rows[0]["of_steps"] == rows[0]["training"] // 2
    assert rows[0]["epoch"] > rows[0]["loop"] * rows[0]["of_steps"] > 0
    header, _, line = cells(bench.growth_table(rows))
    assert len(line) == len(header) and dict(zip(header, line))["epoch against the first"] == "1.00"
    assert not any(tmp_path.iterdir())


def test_growth_without_an_encoder(tmp_path, quick, fresh_here, monkeypatch):
    monkeypatch.setattr(EfficientNetEncoder, "forward", lambda *_: pytest.fail("it encoded"))
    monkeypatch.setattr(bench_growth, "MAX_JSON", 9)  # so its list is shortened
    rows = bench_growth.growth_rows(quick("--growth", 1, "--pooled"), tmp_path)
    assert rows[0]["images"] == 60 and rows[0]["encode"] > 0
    images = torch.rand(2, 3, 224, 224)
    maps = bench_growth.pooled_maps(images, 1280)
    assert maps.shape == (2, 1, 1280, 7, 7)
    assert torch.allclose(maps[1, 0, 4, 2, 3], images[1, 1, 64:96, 96:128].mean())


def test_seconds_of_the_processor_do_not_count_waiting(quick):
    for options, least, most in (([], 0.2, 60), (["--processor"], 0, 0.1)):
        quick(*options)
        start = bench_cases.clock("cpu")
        time.sleep(0.2)
        assert least <= bench_cases.clock("cpu") - start <= most


def test_a_fresh_process(tmp_path, quick):
    quick()
    found = bench_growth.fresh("ours", "--dtype", "float32", "--folder", tmp_path)
    assert found["host"] > found["above"] > 0 and found["gpu"] is None
    with pytest.raises(UserError, match="measuring epoch ended with code 2 .*no such folder"):
        bench_growth.fresh("epoch", "--folder", tmp_path / "none")


@pytest.mark.parametrize(
    "batch, blocks, visual, question, spatial",
    [(3, 1, 64, 128, 8), (3, 2, 64, 128, 8), (4, 2, 32, 64, 0), (2, 2, 512, 1024, 8)],
)
def test_multiply_adds(batch, blocks, visual, question, spatial):
    """PyTorch's own counter finds the same, forward and backward. It counts each as two."""
    model = CMSA(visual, question, spatial, blocks)
    sizes = {"visual": visual, "question": question, "spatial": spatial, "blocks": blocks}
    inputs = (
        torch.randn(batch, 49, visual, requires_grad=True),
        torch.randn(batch, 12, question, requires_grad=True),
        spatial_features(7, 7)[:, :spatial],
    )
    for dense, forward in ((False, model.forward), (True, model.forward_dense)):
        ahead, back = bench_rows.multiply_adds(batch, **sizes, dense=dense)
        with sdpa_kernel(SDPBackend.MATH):  # matrix products that the counter knows
            with FlopCounterMode(display=False) as counter:
                output = forward(*inputs)
            with FlopCounterMode(display=False) as backward:
                output.square().mean().backward()
        assert ahead == pytest.approx(counter.get_total_flops() / 2, rel=0.02)
        assert back == pytest.approx(backward.get_total_flops() / 2, rel=0.02)


@pytest.mark.parametrize("recipe", ["paper", "tuned"])
def test_dense_step(tmp_path, quick, monkeypatch, recipe):
    """A step with the dense definition takes that one, and leaves the model as it was."""
    args, taken = quick(), []
    made = bench_cases.make_model(args, True, bench_cases.real_sizes(tmp_path), recipe)
    for name in ("forward", "forward_dense"):

        def counted(*inputs, name=name, real=getattr(CMSA, name)):
            taken.append(name)
            return real(*inputs)

        monkeypatch.setattr(CMSA, name, counted)
    for dense in (True, False):
        bench_cases.step_case(args, made, "float32", dense=dense)()
    assert taken == ["forward_dense", "forward"]


def test_ratios():
    row, shown = bench_rows.row, bench_rows.shown
    assert row("time", 2.0, "other", 6.0, "s")["ratio"] == 3
    assert row("rate", 60.0, "limit", 100.0, "GFLOP/s")["ratio"] == pytest.approx(0.6)
    assert row("memory", 50.0, "other", 100.0, "MiB")["ratio"] == 2
    assert row("alone", 2.0)["ratio"] is None
    assert shown(0.0123, "s") == "12.3 ms" and shown(1234.5, "MiB") == "1,234 MiB"
    assert shown(None, "s") == "-"


@pytest.mark.parametrize(
    "options, word",
    [
        (["--batch_size", "1"], "--batch_size"),
        (["--repeats", "0"], "--repeats"),
        (["--growth", "0"], "--growth"),
        (["--steps", "0"], "--steps"),
        (["--growth", "--dtype", "float64"], "float64"),
        (["--json", HERE], "--json"),
    ],
)
def test_wrong_arguments(quick, options, word):
    with pytest.raises(UserError, match=word):
        quick(*options)


def test_without_gpu(quick, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA GPU"):
        quick("--device", "cuda")


def test_bf16_only_where_it_is_native(quick, monkeypatch):
    monkeypatch.setattr(bench, "has_bf16", lambda device: True)
    assert quick().dtype == ["float32", "bfloat16"] and not quick().skipped
    monkeypatch.setattr(bench, "has_bf16", lambda device: False)
    args = quick()
    assert args.dtype == ["float32"]
    assert args.skipped == {"bfloat16": "this cpu has no native bf16"}
    with pytest.raises(UserError, match="--dtype bfloat16.*no native bf16"):
        quick("--dtype", "bfloat16")
