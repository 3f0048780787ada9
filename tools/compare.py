"""Tables on the screen: the scores of a run, and two runs compared on the same questions."""

import argparse
import math
from pathlib import Path

import numpy as np

from readers.results import read_predictions
from scores import GROUPS, PROTOCOLS, in_group, interval, protocol
from utils import UserError


def format_table(results, uncertain):
    """The table that test.py prints: open, closed, all in percent, with interval and ceiling.

    results: {protocol's name: `table(...)`}; uncertain: {protocol's name: `intervals(...)`}.
    """
    order = ("OPEN", "CLOSED", "ALL")
    lines = [f"{'':18}    open  closed     all  ceiling   questions (open, closed)"]
    for name, scores in results.items():
        cells = [f"{scores[group]['score_percent']:>7.1f}" for group in order]
        opened, closed, every = (scores[group]["count"] for group in order)
        ceiling = scores["ALL"]["real_percent"]
        lines.append(f"{name:18} {' '.join(cells)} {ceiling:>8.1f}   {every} ({opened}, {closed})")
        spans = [uncertain[name][group] for group in order]
        cells = [f"{span[0]:.0f}-{span[1]:.0f}" if span else "" for span in spans]
        lines.append(f"{'  95% interval':18} {' '.join(f'{cell:>7}' for cell in cells)}")
    return "\n".join(lines)


def mcnemar(only_a, only_b):
    """Exact two-sided McNemar test: the probability of so uneven a split by chance.

    The counts are of the questions that only one of two runs gets right.
    """
    n, k = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)


def compare(ours, theirs):
    """Two runs on the same questions: {group: scores, difference, its interval, McNemar's test}.

    The difference is ours - theirs in percent points, its 95% interval by paired bootstrap over
    images. Raises UserError when the questions are not the same.
    """
    truths = [{p["qid"]: p["truth"] for p in run} for run in (ours, theirs)]
    if truths[0] != truths[1] or not len(ours) == len(theirs) == len(truths[0]):
        raise UserError(
            f"the two runs did not answer the same questions ({len(ours)} and {len(theirs)}): "
            "evaluate both on the same data"
        )
    other, out = {p["qid"]: p for p in theirs}, {}
    for group in GROUPS:
        if not (chosen := in_group(ours, group)):
            continue
        a = np.array([p["correct"] for p in chosen])
        b = np.array([other[p["qid"]]["correct"] for p in chosen])
        only_a, only_b = int((a > b).sum()), int((b > a).sum())
        low_high = interval(a - b, [p["image"] for p in chosen])
        out[group] = {
            "count": len(chosen),
            "scores": [round(100 * float(x.mean()), 1) for x in (a, b)],
            "difference": round(100 * float((a - b).mean()), 1),
            "interval": [round(value, 1) for value in low_high],
            "only first right": only_a,
            "only second right": only_b,
            "mcnemar p": round(mcnemar(only_a, only_b), 4),
        }
    return out


def compare_files(a, b):
    """Print the comparison of two results folders or predictions.json. Raises UserError."""
    runs = [read_predictions(path) for path in (a, b)]
    print(f"A: {a}\nB: {b}")
    print(
        f"{'':25} questions      A      B  A - B    95% interval  only A, only B right  McNemar p"
    )
    for name, title in PROTOCOLS.items():
        for group, row in compare(*(protocol(rows, name) for rows in runs)).items():
            (ours, theirs), (low, high) = row["scores"], row["interval"]
            print(
                f"{title:16} {group.lower():8} {row['count']:>9} {ours:>6.1f} {theirs:>6.1f} "
                f"{row['difference']:>+6.1f}  {f'{low:+.1f} to {high:+.1f}':>14}  "
                f"{row['only first right']:>10}, {row['only second right']:<8} "
                f"{row['mcnemar p']:>9.4f}"
            )


def main(arguments=None):
    """The command line of scores.py: compare two runs."""
    parser = argparse.ArgumentParser(description="Compare two runs on the same questions.")
    parser.add_argument("A", type=Path, help="results folder, or predictions.json")
    parser.add_argument("B", type=Path, help="the other one")
    args = parser.parse_args(arguments)
    compare_files(args.A, args.B)
