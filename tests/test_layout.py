"""tools/layout.py: the code keeps its own rules, and what breaks one of them is named."""

import json
import subprocess
import sys

from conftest import ROOT

from tools import layout

HELP = """
import contextlib, io, json, runpy, sys
sys.path.insert(0, {root!r})
sys.argv = ["train.py", "--help"]
page = io.StringIO()
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(page):
    runpy.run_path({root!r} + "/train.py", run_name="__main__")
assert "--recipe" in page.getvalue()
print(json.dumps(sorted(sys.modules)))
"""


def test_the_code_keeps_its_rules():
    found = layout.broken_rules(layout.code_files())
    assert not found, "\n".join(found)


def broken(root, files):
    """The broken rules of made-up files: {name: text}."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return layout.broken_rules(layout.code_files(root))


def test_what_breaks_a_rule_is_named(tmp_path):
    good = {"train.py": "import utils\n" * 400, "utils.py": "x = 1\n", "a.sh": "#" * 100}
    assert broken(tmp_path, good) == []
    found = broken(
        tmp_path,
        {
            "readers/long.py": "\n" * 401,
            "tests/fuzz/wide.py": "#" * 101,
            "tools/page.jinja": f"\n{'é' * 101}",
            "run.sh": "# see DESIG" + "N section 3\n",
            "tests/test_x.py": "# ABLATION" + "S.md\n",
            "test.py": "\n" * 400,
            "engine.py": "\n" * 400,
            "features.py": "\n" * 400,
            "scores.py": "\n" * 400,
            "attention.py": "\n" * 200,
        },
    )
    assert found == [
        "run.sh:1 cites DESIG" + "N, which is not shipped",
        "readers/long.py has 401 lines, more than 400",
        "tests/test_x.py:1 cites ABLATION" + "S, which is not shipped",
        "tools/page.jinja:2 has 101 columns, more than 100",
        "tests/fuzz/wide.py:1 has 101 columns, more than 100",
    ]
    assert broken(tmp_path, {"classifier.py": "\n"})[-1] == (
        "the files of the method have 2201 lines, more than 2200"
    )


def test_a_circle_of_imports_is_named(tmp_path):
    files = {
        "train.py": "from readers import images\nimport parts\n",
        "parts.py": "def later():\n    import train\n",
        "readers/images.py": "if True:\n    from tools.draw import line\n",
        "tools/draw.py": "import os\n",
        "tests/test_train.py": "import train\n",
    }
    assert broken(tmp_path, files) == []
    circle = "imports go in a circle: readers.images > tools.draw > train > readers.images"
    assert broken(tmp_path, {"tools/draw.py": "class A:\n    from train import x\n"}) == [circle]


def test_table_and_exit_code(tmp_path, capsys):
    assert broken(tmp_path, {"train.py": "ab\nabc\n", "tools/b.py": "a\n"}) == []
    assert layout.main(tmp_path) == 0
    rows = {line[:36].strip(): line[36:].split() for line in capsys.readouterr().out.splitlines()}
    assert rows["train.py"] == ["2", "3"] == rows["the root"] == rows["the method"]
    assert rows["tools/"] == ["1", "1"] and rows["tests/"] == ["0", "0"]
    assert rows["all files"] == ["3", "3"]
    broken(tmp_path, {"tools/b.py": "a" * 101})
    assert layout.main(tmp_path) == 1
    assert capsys.readouterr().err == "tools/b.py:1 has 101 columns, more than 100\n"


def test_the_help_of_train_imports_little():
    """So that a mistyped argument is answered in the time that torch takes to be imported."""
    command = [sys.executable, "-c", HELP.format(root=str(ROOT))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    imported = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert {"torch", "engine", "dataset_RAD"} <= imported
    heavy = "matplotlib jinja2 pydicom gradio tensorboard onnx onnxruntime torchvision torchmetrics"
    assert not imported & set(heavy.split()) and "tools" not in imported
