"""Several processes, one training: `torchrun --nproc_per_node N train.py`.

Each process takes its shard of every batch. Batch-norm statistics and gradients are those of the
whole batch, so that N processes do what one does with the same batch size. Process 0 alone
writes. Without torchrun every function here does nothing.
"""

import contextlib
import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from attention import count_over_all, sum_over_all
from utils import UserError


def environment_number(name):
    """A number that torchrun sets in the environment, or 1. Raises UserError for another text."""
    text = os.environ.get(name, "1")
    if not text.isdecimal():
        raise UserError(
            f"{name} is {text[:40]!r} in the environment: a number is wanted, as torchrun sets it"
        )
    return int(text)


def begin(gpu):
    """Join the processes that torchrun started, if any.

    Returns --gpu for this process: its own GPU, or -1 for the CPU (gloo). Raises UserError when
    there are fewer GPUs than processes, or when a part of torchrun's environment is missing.
    """
    if environment_number("WORLD_SIZE") == 1 or dist.is_initialized():
        return gpu
    wanted = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if lacking := [name for name in wanted if name not in os.environ]:
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} and {lacking[0]} is not set: "
            "start several processes with torchrun, or unset WORLD_SIZE"
        )
    local, here = environment_number("LOCAL_RANK"), environment_number("LOCAL_WORLD_SIZE")
    on_gpu = gpu != -1 and torch.cuda.is_available()
    if on_gpu and torch.cuda.device_count() < here:
        raise UserError(
            f"{here} processes and {torch.cuda.device_count()} GPUs on this machine: lower "
            "--nproc_per_node, or --gpu -1 for CPUs"
        )
    if on_gpu:
        torch.cuda.set_device(local)
    # gloo beside NCCL: `all_gather` then waits for no GPU.
    # Two hours: the first process may download data and encode images alone.
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        timeout=timedelta(hours=2),
        device_id=torch.device("cuda", local) if on_gpu else None,
    )
    return local if on_gpu else -1


def end():
    """Leave the other processes, when all have come so far."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def own_random_numbers(seed):
    """From here on each process draws its own random numbers, for dropout.

    Process 0 draws those that a single one would.
    """
    if not is_first():
        torch.manual_seed(seed + 1_000_003 * world()[0])


def world():
    """(this process's number, how many there are): (0, 1) without torchrun."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def is_first():
    """True in the process that writes and prints."""
    return world()[0] == 0


@contextlib.contextmanager
def first_alone():
    """The block runs in process 0 first and then, when its files are there, in the others."""
    if not is_first():
        dist.barrier()
    yield
    if is_first() and world()[1] > 1:
        dist.barrier()


def shard(lists):
    """This process's part of each batch, a list.

    All leave out a batch that has fewer members than there are processes.
    """
    rank, count = world()
    return lists if count == 1 else [batch[rank::count] for batch in lists if len(batch) >= count]


def all_gather(value):
    """The values of all processes, in order: a list."""
    if world()[1] == 1:
        return [value]
    values = [None] * world()[1]
    dist.all_gather_object(values, value)
    return values


class SyncedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the batches of all processes, for CPUs, which nn.SyncBatchNorm lacks.

    x: (B, C) or (B, C, ...).
    """

    def _check_input_dim(self, x):
        pass

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        dims = [0, *range(2, x.dim())]
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = count_over_all(x.numel() // x.shape[1], x.device)
        mean = sum_over_all(wide.sum(dims)) / count  # (C,)
        centred = wide - mean.view(shape)
        variance = sum_over_all(centred.square().sum(dims)) / count  # (C,)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.detach().to(self.running_mean), self.momentum)
            self.running_var.lerp_(
                (variance.detach() * (count / max(count - 1, 1))).to(self.running_var),
                self.momentum,
            )
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)


def synchronise_norms(module):
    """Replace BN layers by ones over all processes, in place; returns the model.

    Names and weights stay.
    """
    if any(p.is_cuda for p in module.parameters()):
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            new = SyncedBatchNorm(child.num_features, child.eps, child.momentum).train(
                child.training
            )
            new.weight, new.bias = child.weight, child.bias
            new.running_mean, new.running_var, new.num_batches_tracked = (
                child.running_mean,
                child.running_var,
                child.num_batches_tracked,
            )
            setattr(module, name, new)
        else:
            synchronise_norms(child)
    return module


def wrap(model, compile=False):
    """What to call in place of the model in training: itself, or a wrapper around it.

    With several processes it is a DistributedDataParallel. With `compile` torch.compile speeds
    it up; a machine that can't compile gets a UserError.
    """
    if world()[1] > 1:
        device = next(model.parameters()).device
        # a BN right behind a bias cancels it: some parameters have no part in the loss
        model = nn.parallel.DistributedDataParallel(
            model,
            [device.index] if device.type == "cuda" else None,
            find_unused_parameters=True,
        )
    if not compile:
        return model
    step = torch.compile(model)

    def run(**inputs):
        try:
            return step(**inputs)
        except torch._dynamo.exc.TorchDynamoException as error:
            why = str(error).splitlines()[0][:160]
            raise UserError(f"--compile fails on this machine ({why}): leave it out") from None

    return run
