"""Training and prediction: rates, batches, loss, the Trainer (step, epoch, save), predict.

Training, pre-training, evaluation and the benchmark use the same functions.
"""

import contextlib
import math
import time

import torch
from torch.nn import functional as F
from tqdm import tqdm

from features import send
from journal import Journal
from parallel import all_gather, is_first, world
from readers.checkpoints import save_checkpoint
from text_rules import allowed_answers
from utils import VERSION, Stopped, UserError, log, stop_signals

SAVE_SECONDS = 300  # between two checkpoints within an epoch


def step_rate(epoch, epochs, base):
    """The paper's: warm-up over four epochs; x 0.75 at 10, then each (epochs - 10) // 5 epochs."""
    if epoch < 4:
        return base * (0.5, 1.0, 1.5, 2.0)[epoch]
    step = max(1, (epochs - 10) // 5)
    return 2 * base * 0.75 ** max(0, (epoch - 10) // step + 1)


def cosine_rate(epoch, epochs, base):
    """The tuned recipe's: peak in epoch 4 or at a third, then half a cosine down to almost 0."""
    peak = min(3, (epochs - 1) // 3)
    if epoch <= peak:
        return 2 * base * (epoch + 1) / (peak + 1)
    return base * (1 + math.cos(math.pi * (epoch - peak) / (epochs - peak)))


RATES = {"steps": step_rate, "cosine": cosine_rate}


def warmup_steps(epochs, steps):
    """Steps of `Trainer`'s warm-up: all of a run of fewer than four epochs, else 0.

    Longer runs warm up by epochs (`RATES`). steps: of an epoch.
    """
    return epochs * steps if epochs < 4 else 0


def batches(items, size, seed, epoch):
    """Shuffled lists of items, the order drawn from (seed, epoch), without a last one of one."""
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    order = torch.randperm(len(items), generator=generator).tolist()
    lists = [[items[i] for i in order[s : s + size]] for s in range(0, len(order), size)]
    return [batch for batch in lists if len(batch) > 1]  # batch norm can't take one


def collate(questions, device):
    """tokens (B, 12), labels (B,) with -1 for no class, organs (B,): int64 on the device."""
    columns = zip(*((q.tokens, q.label, q.organ) for q in questions))
    return [send(torch.tensor(column), torch.device(device)) for column in columns]


def answer_loss(logits, labels, kind="bce", smoothing=0.0, reduction="sum"):
    """The loss of answer logits (B, answers), summed over samples; "none" gives one a sample.

    "bce": sigmoid cross-entropy summed over answers, the paper's. "ce": softmax cross-entropy
    with label smoothing. A label -1 has an all-zero target, and no softmax cross-entropy.
    """
    logits = logits.float()
    if kind == "ce":
        options = {"reduction": reduction, "ignore_index": -1, "label_smoothing": smoothing}
        return F.cross_entropy(logits, labels, **options)
    targets = F.one_hot(labels.clamp_min(0), logits.shape[1]).to(logits)
    targets = targets * (labels >= 0)[:, None]
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction=reduction)
    return loss if reduction == "sum" else loss.sum(1)


def vqa_loss(output, labels, organs, kind="bce", smoothing=0.0, weights=()):
    """(answer loss + 0.5 * cross-entropy of the image type, both summed) / B.

    docs/METHOD.md section 3. output: VQAOutput; labels, organs: (B,); kind: see `answer_loss`.
    weights: of the questions' losses, numbers; () for 1. An organ -1 has no cross-entropy.
    """
    reduction = "none" if set(weights) - {1.0} else "sum"  # () and (B,), whose bits may differ
    loss = answer_loss(output.logits, labels, kind, smoothing, reduction)
    if output.organ_logits is not None:
        options = {"reduction": reduction, "ignore_index": -1}
        loss = loss + 0.5 * F.cross_entropy(output.organ_logits.float(), organs, **options)
    if reduction == "none":
        loss = (loss * send(torch.tensor(weights), loss.device)).sum()
    return loss / len(labels)


def train_step(model, optimizer, loss, clip_norm):
    """Backward, clip the gradient norm over all parameters, step. Returns the norm, a tensor."""
    # of all parameters: a frozen part's old gradients would count in the norm
    model.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return norm


class Trainer:
    """Trains a model by steps and epochs, and keeps last.pth, best.pth and log.jsonl.

    kept: what goes into every checkpoint beside model, optimizer, progress and random states.
    warmup: steps over which the rate rises to its value. A parameter group's "scale" multiplies
    its rate. The attribute describe(batch) -> text may name a batch's questions in an error.
    A run that goes on after `restore` ends with the bits of one that was never stopped.
    """

    def __init__(self, model, optimizer, folder, kept, clip_norm, warmup=0):
        self.model, self.optimizer, self.folder, self.kept = model, optimizer, folder, kept
        self.clip_norm, self.warmup = clip_norm, warmup
        self.describe = lambda batch: ""
        self.on_gpu = next(model.parameters()).is_cuda
        self.epoch, self.best, self.history, self.usual = 0, -math.inf, [], 0.0
        self.sums = [0.0, 0, 0, 0]  # of this epoch: loss, right answers, answers, steps
        self.unread, self.stopped, self.journal = [], [], Journal(folder)
        # steps of this process, its begin, and the seconds of those before
        self.steps, self.started, self.before = 0, time.perf_counter(), 0.0
        self.last_save = f"{folder}/last.pth holds what was reached before"
        if not (folder / "last.pth").exists():
            self.last_save = "nothing was saved yet"

    @contextlib.contextmanager
    def running(self):
        """Within this block Ctrl-C and SIGTERM save and raise Stopped, and the journal is open."""
        try:
            with self.journal.open(self.history, self.kept.get("settings")):
                with stop_signals() as self.stopped:
                    yield
        finally:
            self.journal.write_seconds(self.seconds())

    def seconds(self):
        """The training time of the run so far, over all its processes one after another."""
        return self.before + time.perf_counter() - self.started

    def train_epoch(self, batches, loss_of, rate, title=""):
        """One epoch, or the rest of one that was stopped.

        batches: a sequence; loss_of(batch) -> (loss, right answers, both tensors () on one
        device, number of answers). Raises Stopped, and UserError for a loss that is not finite.
        """
        self.model.train()
        self.began = self.safe = time.perf_counter()
        done, count = self.sums[3], len(batches)
        self.count = count
        options = {"desc": title, "unit": "step", "leave": False, "disable": not is_first() or None}
        with tqdm(batches[done:], initial=done, total=count, **options) as bar:
            for batch in bar:
                factor = min(1, (self.epoch * count + self.sums[3] + 1) / max(self.warmup, 1))
                for group in self.optimizer.param_groups:
                    group["lr"] = rate * group.get("scale", 1) * factor
                self.step(batch, *loss_of(batch))
                if not self.unread:
                    bar.set_postfix(loss=f"{self.sums[0] / self.sums[3]:.3f}", rate=f"{rate:.4g}")
        self.read()
        self.rate = rate

    def step(self, batch, loss, right, answers):
        """One step of the optimizer; saves within the epoch when it is time or a signal came."""
        late = time.perf_counter() - self.safe > SAVE_SECONDS
        signal = self.stopped[0] if self.stopped else 0
        told = all_gather((answers, signal, late))  # so that all processes do the same
        part = 1.0 if len(told) == 1 else answers / sum(number for number, *_ in told)
        # gradients are averaged over the processes
        norm = train_step(self.model, self.optimizer, loss * part * world()[1], self.clip_norm)
        numbers = torch.stack([x.detach().double() for x in (loss, norm, right)])  # (3,)
        self.unread.append((numbers, part, answers, batch, self.sums[3]))
        self.sums[3] += 1
        self.steps += 1
        signal = max(number for _, number, _ in told)
        if signal or told[0][2] or len(self.unread) >= (25 if self.on_gpu else 1):
            self.read()  # a GPU is not made to wait after every step
        if signal or told[0][2]:
            sums = [sum(column) for column in zip(*all_gather(self.sums[:3]))]
            self.save("last.pth", self.epoch - 1, [*sums, self.sums[3]])
            self.safe = time.perf_counter()
            until = f"epoch {self.epoch + 1} up to step {self.sums[3]}"
            self.last_save = f"{self.folder}/last.pth holds {until}"
        if signal:
            raise Stopped(signal, f"{self.last_save}; --resume goes on from there")

    def read(self):
        """Add up the steps since the last reading.

        Raises UserError for a loss or gradient that is not finite; the steps after it are lost.
        """
        values = torch.stack([row[0] for row in self.unread]).tolist() if self.unread else ()
        for (loss, norm, right), (_, part, answers, batch, step) in zip(values, self.unread):
            if not math.isfinite(loss) or not math.isfinite(norm):
                at = f"epoch {self.epoch + 1}, step {step + 1}"
                raise UserError(
                    f"{at}: the loss or its gradient is not finite ({loss})"
                    f"{self.describe(batch)}: lower --lr or use --precision float32; "
                    f"{self.last_save}"
                )
            self.sums[0] += loss * part
            self.sums[1] += right
            self.sums[2] += answers
            where = f"step {step + 1} of {self.count}"
            self.watch(loss, where)
            at, mean = self.epoch * self.count + step, self.sums[0] / (step + 1)
            self.journal.step(at, loss, f"epoch {self.epoch + 1}, {where}: loss {mean:.4g}")
        self.unread = []

    def watch(self, loss, where):
        """Warn, once a run, of a loss above a thousand times the usual one.

        Usual is the first epoch's mean, and before that epoch ends its first step's loss.
        """
        self.usual = self.usual or loss
        if loss > 1000 * self.usual:
            log(
                f"WARNING: epoch {self.epoch + 1}, {where}: the loss explodes, from "
                f"{self.usual:.3g} to {loss:.3g}: lower --lr or warm up for longer; the run goes on"
            )
            self.usual = math.inf

    def end_epoch(self, epochs, validate=None, every=1, save_every=0):
        """Validate, log and save after every `every` epochs, and after the last of `epochs`.

        validate() -> (score or None, dictionary for the log). Without it the last epoch is also
        the best; with a score of None there is no best.pth. save_every: keep epoch_N.pth too.
        """
        total, right, answers = (sum(column) for column in zip(*all_gather(self.sums[:3])))
        epoch, steps = self.epoch, self.sums[3]
        row = {"epoch": epoch, "rate": self.rate, "loss": total / max(steps, 1)}
        row["train_score"] = right / max(answers, 1)
        self.watch(row["loss"], "on average")
        self.usual = row["loss"] if epoch == 0 and self.usual < math.inf else self.usual
        self.epoch, self.sums = epoch + 1, [0.0, 0, 0, 0]
        keep = save_every and (epoch + 1) % save_every == 0
        if (epoch + 1) % every and epoch + 1 < epochs and not keep:
            return
        # by process 0 alone, so that all do the same
        score, extra = all_gather(validate() if validate and is_first() else (None, {}))[0]
        row |= extra | {"seconds": round(time.perf_counter() - self.began, 2)}
        is_best = score is None or score >= self.best
        if score is not None and is_best:
            self.best = score
        self.history.append(row)
        # before last.pth: a run that is killed between the two does its epoch again
        if is_best and not (validate and score is None):
            self.save("best.pth", epoch, self.sums, with_optimizer=False)
        if keep:
            self.save(f"epoch_{epoch}.pth", epoch, self.sums, with_optimizer=False)
        self.save("last.pth", epoch, self.sums)
        self.last_save = f"{self.folder}/last.pth holds epoch {epoch + 1}"
        each = (time.perf_counter() - self.started) / max(self.steps, 1)
        left = (epochs - epoch - 1) * steps * each
        self.journal.epoch(self.history, epochs, is_best and score is not None, left)
        self.journal.write_seconds(self.seconds())
        signal = max(all_gather(self.stopped[0] if self.stopped else 0))
        if signal and epoch + 1 < epochs:
            raise Stopped(signal, f"{self.last_save}; --resume goes on from there")

    def save(self, name, epoch, sums, with_optimizer=True):
        """A checkpoint, by process 0; all processes give their random states to it."""
        gpu_state = torch.cuda.get_rng_state() if self.on_gpu else None
        random = all_gather([torch.get_rng_state(), gpu_state])
        if not is_first():
            return
        state = self.kept | {"version": VERSION, "epoch": epoch, "best": self.best}
        state |= {"history": self.history, "sums": list(sums), "random": random}
        state |= {"model": self.model.state_dict(), "usual": self.usual}
        state["seconds"] = self.seconds()
        if with_optimizer:
            state["optimizer"] = self.optimizer.state_dict()
        save_checkpoint(self.folder / name, state)

    def restore(self, state, path):
        """Put optimizer, random states and progress of a checkpoint back; the weights are loaded.

        Raises UserError naming `path` when it does not fit.
        """
        try:
            if "optimizer" in state:  # a run that has ended needs none
                self.optimizer.load_state_dict(state["optimizer"])
            rank, count = world()
            if len(state["random"]) == count:  # with other processes the bits differ anyway
                torch.set_rng_state(state["random"][rank][0])
                if self.on_gpu and state["random"][rank][1] is not None:
                    torch.cuda.set_rng_state(state["random"][rank][1])
            self.epoch, self.best = state["epoch"] + 1, state["best"]
            self.history, self.usual = list(state["history"]), float(state.get("usual", 0))
            self.before = float(state.get("seconds", 0))
            self.sums = list(state["sums"])
            if rank:  # the sums are added up over the processes
                self.sums[:3] = [0.0, 0, 0]
        except Exception as error:  # torch raises many types for values that were tampered with
            why = (str(error).splitlines() or [type(error).__name__])[0][:160]
            raise UserError(
                f"{path} does not fit this run ({why}): it is damaged or of another version; "
                "start anew with another --output"
            ) from None


@torch.inference_mode()
def predict(model, questions, inputs, device, precision="float32", batch_size=64, answers=None):
    """Class probabilities (questions, answers), float32 on the CPU. Each image is encoded once.

    After a sigmoid loss they need not sum to 1 (`VQAModel.probabilities`).
    answers: the classes, for the form rule (text_rules.allowed_answers); None for no rule.
    """
    model.eval()
    on_image = {}
    for index, question in enumerate(questions):
        on_image.setdefault(question.image, []).append(index)
    rows, order, probabilities = sorted(on_image), [], []
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for first in range(0, len(rows), batch_size):
            some = rows[first : first + batch_size]
            maps, organs = model.image.encode(**inputs(some))
            asked = [(place, index) for place, row in enumerate(some) for index in on_image[row]]
            order += [index for _, index in asked]
            for start in range(0, len(asked), batch_size):
                places, indices = zip(*asked[start : start + batch_size])
                at = torch.tensor(places, device=device)
                batch = [questions[index] for index in indices]
                tokens, _, _ = collate(batch, device)
                output = model(None, tokens, maps[at], None if organs is None else organs[at])
                allowed = answers and [allowed_answers(one.question, answers) for one in batch]
                probabilities.append(model.probabilities(output.logits, allowed).cpu())
    return torch.cat(probabilities)[torch.tensor(order).argsort()]
