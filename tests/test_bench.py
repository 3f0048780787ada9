"""bench.py runs and prints both ratios."""
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_bench_prints_ratios():
    done = subprocess.run([sys.executable, ROOT / "bench.py", "--batch_size", "8", "--repeats", "1"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    ratios = re.search(r"^ratio +([\d.]+)x +([\d.]+)x$", done.stdout, re.M)
    assert float(ratios[1]) > 1.5 and float(ratios[2]) > 1


def test_bench_without_gpu():
    import torch
    if torch.cuda.is_available():
        return
    done = subprocess.run([sys.executable, ROOT / "bench.py", "--device", "cuda"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
