"""Time and peak memory of CMSA, factored against the dense definition, forward and backward, in one interleaved run.

    python bench.py                     B = 32, 512 + 1024 + 8 channels, 49 cells, 12 words, two blocks, training mode
    python bench.py --device cuda --dtype bfloat16
"""
import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from attention import CMSA, spatial_features
from utils import UserError, run_main


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7, help="interleaved repeats; the median is reported")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64", "bfloat16"], help="bfloat16 runs under autocast")
    parser.add_argument("--blocks", type=int, default=2, choices=[1, 2])
    parser.add_argument("--memory_of", choices=["dense", "factored"], help=argparse.SUPPRESS)
    return parser.parse_args()


def make_step(args):
    """Return step(kind): one forward and backward of a CMSA of the paper's size on random input, kind "dense" or "factored"."""
    torch.manual_seed(0)
    dtype = torch.float64 if args.dtype == "float64" else torch.float32
    model = CMSA(blocks=args.blocks).to(args.device, dtype)
    for block in model.blocks:  # away from their start at 0, so that every gradient flows
        torch.nn.init.normal_(block.bn.weight, std=0.1)
    visual = torch.randn(args.batch_size, 49, 512, device=args.device, dtype=dtype, requires_grad=True)
    question = torch.randn(args.batch_size, 12, 1024, device=args.device, dtype=dtype, requires_grad=True)
    spatial = spatial_features(7, 7, dtype, args.device)

    def step(kind):
        model.zero_grad(set_to_none=True)
        visual.grad = question.grad = None
        with torch.autocast(args.device, torch.bfloat16, enabled=args.dtype == "bfloat16"):
            output = (model.forward_dense if kind == "dense" else model.forward)(visual, question, spatial)
        output.float().square().mean().backward()
        if args.device == "cuda":
            torch.cuda.synchronize()
    return step


def peak_memory(args):
    """MiB that one step takes above what stood before it. On the CPU a fresh process measures it, so that its peak is the step's."""
    step = make_step(args)
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(args.memory_of)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    torch.ones(64, 64) @ torch.ones(64, 64)  # let the libraries load first
    before = resident("VmRSS")
    step(args.memory_of)
    return resident("VmHWM") - before


def resident(field):
    """This process's resident size, MiB: now ("VmRSS") or its peak ("VmHWM"; ru_maxrss also counts the process it came from)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # the peak so far; bytes on macOS


def main():
    args = parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine has no CUDA GPU that PyTorch can use; leave --device out")
    if args.batch_size < 1 or args.repeats < 1:
        raise UserError("--batch_size and --repeats: at least 1 is wanted")
    if args.memory_of:
        print(peak_memory(args))
        return
    step = make_step(args)
    seconds = {"dense": [], "factored": []}
    for repeat in range(-1, args.repeats):  # the first round warms up
        for kind, times in seconds.items():
            start = time.perf_counter()
            step(kind)
            if repeat >= 0:
                times.append(time.perf_counter() - start)
    memory = {kind: float(subprocess.run([sys.executable, *sys.argv, "--memory_of", kind], check=True, capture_output=True,
                                         text=True).stdout) for kind in seconds}
    median = {kind: statistics.median(times) for kind, times in seconds.items()}
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"CMSA, {args.blocks} blocks, B = {args.batch_size}, 512+1024+8 channels, 49 cells, 12 words, training mode, {args.dtype}; "
          f"{where}; PyTorch {torch.__version__}; median of {args.repeats} interleaved repeats")
    print(f"{'':10} {'forward+backward':>18} {'peak memory':>14}")
    for kind in seconds:
        print(f"{kind:10} {median[kind] * 1000:>15.0f} ms {memory[kind]:>10.0f} MiB")
    print(f"{'ratio':10} {median['dense'] / median['factored']:>17.2f}x {memory['dense'] / memory['factored']:>13.2f}x")


if __name__ == "__main__":
    run_main(main)
