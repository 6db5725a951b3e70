"""Joint training of all exits, resumable after every epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from offramp.errors import OfframpError
from offramp.images import ImageSet
from offramp.training.augment import normalise
from offramp.training.checkpoint import (
    CHECKPOINT_NAME,
    Checkpoint,
    EpochLog,
    load_checkpoint,
    save_checkpoint,
)
from offramp.training.lesson import Lesson, steps_of
from offramp.training.loss import joint_loss, rate_share
from offramp.training.networks import make_network, restore_model
from offramp.training.optimiser import Muon, split_parameters
from offramp.training.settings import TrainingSettings
from offramp.training.state_file import optimiser_tensors, restore_optimiser, weights_fingerprint
from offramp.training.teacher import Answer, Teacher, taught_answers
from offramp.training.wide import WideNetwork

Progress = Callable[[str, float, bool], None]
Optimisers = tuple[torch.optim.Optimizer, ...]
EVALUATION_BATCH = 1000
OTHER_WEIGHT_DECAY = 1e-4
WHITENING_IMAGES = 5000
"""So many images show the statistics of patches well enough."""


def train_model(
    train: ImageSet,
    test: ImageSet,
    folder: Path,
    settings: TrainingSettings,
    *,
    teacher: Teacher | None = None,
    start: Checkpoint | None = None,
    resume: bool | None = None,
    progress: Progress = lambda message, share, finished: None,
) -> Checkpoint:
    """Train the branchy AlexNet and leave a checkpoint in `folder` after each epoch.

    A run is a function of the settings, the images and the machine's arithmetic: every epoch draws from
    (seed, epoch), so a run that was interrupted and resumed ends with the weights of one that was not.

    Args:
        train, test: labelled images; `test` is only measured, nothing is chosen by it.
        teacher: what `settings.teacher` is the fingerprint of; its answers are kept in `folder`.
        start: the run whose weights this one begins with, `settings.start` their fingerprint; the rates rise anew.
        resume: True continues the run in `folder` and fails if there is none; False fails if there is
            one; None continues an unfinished one with these settings, or starts. The number of epochs may
            differ from the run's if neither number has had the rates fall yet: the weights so far are the same.
        progress: called with a line of text, the share of all steps done (0 to 1) and whether an epoch has
            just been finished and saved.

    Raises:
        OfframpError: images without labels, a teacher of other classes, a start of another network, or
            the folder holds a run with other settings.
    """
    assert settings.teacher == ("" if teacher is None else teacher.fingerprint)
    assert settings.start == ("" if start is None else weights_fingerprint(start.model))
    if train.labels is None or test.labels is None:
        raise OfframpError("data", train.source, "must have labels")
    state = _previous(folder, settings, resume)
    if state is not None and state.finished:
        return state
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OfframpError("-o", str(folder), f"cannot be a folder ({error.strerror})") from None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, labels = (torch.from_numpy(part).to(device) for part in (train.images, train.labels))
    if state is None:
        classes = int(max(train.labels.max(), test.labels.max())) + 1
        made = None if teacher is None else teacher.made
        begun = None if start is None else start.history()
        state = Checkpoint(settings, (), classes, train.source, {}, (), made, begun)
    answer = None if teacher is None else _answer(teacher, state.classes, device)
    model, optimisers = _start(state, images, start)
    for epoch in range(len(state.log), settings.epochs):
        start_s = time.perf_counter()
        taught = None if answer is None else _taught(settings, answer, images, epoch, folder, progress)
        lesson = Lesson(images, labels, state.classes, taught)
        loss, accuracy = _train_epoch(model, optimisers, lesson, settings, epoch, progress)
        measured = measure_accuracy(model, test)
        entry = EpochLog(epoch + 1, loss, accuracy, measured, time.perf_counter() - start_s)
        state = replace(
            state,
            log=(*state.log, entry),
            model=model.state_dict(),
            optimisers=tuple(optimiser_tensors(optimiser) for optimiser in optimisers),
        )
        save_checkpoint(folder, state)
        progress(describe(entry, settings.epochs), len(state.log) / settings.epochs, True)
    return state


def _start(state: Checkpoint, images: Tensor, start: Checkpoint | None) -> tuple[nn.Module, Optimisers]:
    """Network and optimisers as the checkpoint left them; if it has no epochs, as the seed makes them, with the
    weights of `start` if there is one."""
    settings = state.settings
    torch.manual_seed(settings.seed)
    model = make_network(settings.network, state.classes).to(images.device)
    if isinstance(model, WideNetwork):
        model.whiten(normalise(images[:WHITENING_IMAGES]))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
    filters, others = split_parameters(model)
    optimisers = (
        Muon(filters, settings.filter_lr, settings.momentum),
        torch.optim.AdamW(others, settings.other_lr, weight_decay=OTHER_WEIGHT_DECAY),
    )
    if state.log:
        restore_model(model, state)
        for optimiser, tensors in zip(optimisers, state.optimisers, strict=True):
            restore_optimiser(optimiser, tensors)
    elif start is not None:
        restore_model(model, start)
    return model, optimisers


def _answer(teacher: Teacher, classes: int, device: torch.device) -> Answer:
    teacher.model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def answer(x: Tensor) -> Tensor:
        with autocast(device):
            logits = teacher.answer(x)
        if logits.ndim != 2 or logits.shape[1] != classes:
            raise OfframpError("--teacher", list(logits.shape), f"must answer [images, {classes}]")
        return logits

    return answer


def _taught(
    settings: TrainingSettings, answer: Answer, images: Tensor, epoch: int, folder: Path, progress: Progress
) -> Tensor:
    def show(part: float) -> None:
        line = f"epoch {epoch + 1}/{settings.epochs}  teacher {part:.0%}"
        progress(line, epoch / settings.epochs, False)

    return taught_answers(settings, answer, images, epoch, folder, show)


@torch.no_grad()
def measure_accuracy(model: nn.Module, images: ImageSet) -> tuple[float, ...]:
    """Share of right labels of each exit, over all `images`; the model keeps its mode."""
    assert images.labels is not None
    device = next(model.parameters()).device
    was_training, right, labels = model.training, [], torch.from_numpy(images.labels)
    model.eval()
    for start in range(0, len(images), EVALUATION_BATCH):
        x = normalise(torch.from_numpy(images.images[start : start + EVALUATION_BATCH]).to(device))
        with autocast(device):
            answers = torch.stack([logits.argmax(1) for logits in model(x)])
        right.append((answers.cpu() == labels[start : start + EVALUATION_BATCH]).sum(1))
    model.train(was_training)
    return tuple(int(count) / len(images) for count in torch.stack(right).sum(0))


def describe(entry: EpochLog, epochs: int) -> str:
    """One line about an epoch: the log a person reads."""
    exits = " ".join(f"{a:.4f}" for a in entry.test_accuracy)
    return (
        f"epoch {entry.epoch}/{epochs}  loss {entry.loss:.4f}  train {entry.train_accuracy:.4f}  "
        f"test exits {exits}  {entry.duration_s:.0f} s"
    )


def _previous(folder: Path, settings: TrainingSettings, resume: bool | None) -> Checkpoint | None:
    exists = (folder / CHECKPOINT_NAME).is_file()
    if not exists:
        if resume:
            raise OfframpError("--resume", str(folder), "holds no run to continue", "leave --resume out")
        return None
    if resume is False:
        raise OfframpError("-o", str(folder), "holds a run already", "name another folder or resume it")
    state = load_checkpoint(folder)
    old, new = asdict(state.settings), asdict(settings)
    open_end = len(state.log) <= min(state.settings.constant_until, settings.constant_until)
    free = {"epochs", "cooldown"} if open_end else set()
    for name in new:
        if old[name] != new[name] and name not in free:
            raise OfframpError(
                name,
                new[name],
                f"the run in {folder} was started with {old[name]}",
                "use the same settings or another folder",
            )
    return replace(state, settings=settings)


def _train_epoch(
    model: nn.Module,
    optimisers: Optimisers,
    lesson: Lesson,
    settings: TrainingSettings,
    epoch: int,
    progress: Progress,
) -> tuple[float, float]:
    """One pass over the images; mean loss and the last exit's accuracy on the way."""
    steps = max(1, len(lesson.images) // settings.batch)
    rising, falling = (steps * phase for phase in settings.phases)
    losses: list[float] = []
    right = seen = 0
    model.train()
    for number, step in enumerate(steps_of(lesson, settings, epoch)):
        done = epoch * steps + number
        rate = rate_share(done, steps * settings.epochs, rising, falling)
        for optimiser, peak in zip(optimisers, (settings.filter_lr, settings.other_lr), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = peak * rate
        with autocast(step.x.device):
            outputs = [logits.float() for logits in model(step.x)]
        loss = joint_loss(
            outputs,
            step.targets,
            settings.exit_weights,
            smoothing=settings.smoothing,
            distillation=settings.distillation,
            temperature=settings.temperature,
            taught=step.taught,
        )
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        losses.append(float(loss.detach()))
        right += int((outputs[-1].argmax(1) == step.labels).sum())
        seen += len(step.labels)
        progress(
            f"epoch {epoch + 1}/{settings.epochs}  loss {losses[-1]:.3f}",
            (done + 1) / (steps * settings.epochs),
            False,
        )
    return sum(losses) / len(losses), right / seen


@contextmanager
def autocast(device: torch.device) -> Iterator[None]:
    """bfloat16 where the processor computes in it, else plain float32."""
    fast = device.type == "cuda" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast):
        yield
