"""From a trained module to one ONNX graph: normalisation inside, batch norm folded, plain names."""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise

import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from offramp.errors import OfframpError
from offramp.training.augment import CIFAR10_PIXELS, PixelScale
from offramp.training.hooks import plain_attention

OPSET = 18
IMAGE_INPUT, OTHER_INPUT = "image", "input"
_NETWORK = "network"
# Where the exporter records which module a node comes from.
_SCOPES = "pkg.torch.onnx.name_scopes"


class DeployedNetwork(nn.Module):
    """The network as it is shipped: what it reads in, logits [n, classes] of each exit out.

    With a scale it reads uint8 images [n, h, w, 3] and normalises them; without, what the network reads.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module, scale: PixelScale | None = CIFAR10_PIXELS) -> None:
        super().__init__()
        self.network = fold_batch_norm(network)
        self.reads_images = scale is not None
        if scale is not None:
            std = torch.tensor(scale.std).view(1, 3, 1, 1)
            self.register_buffer("scale", 1 / std)
            self.register_buffer("offset", -torch.tensor(scale.mean).view(1, 3, 1, 1) / std)

    @property
    def input_name(self) -> str:
        """What the exported graph calls its input."""
        return IMAGE_INPUT if self.reads_images else OTHER_INPUT

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Logits [n, classes] of each exit."""
        if self.reads_images:
            inputs = inputs.permute(0, 3, 1, 2).float() * self.scale + self.offset
        answers: tuple[Tensor, ...] = self.network(inputs)
        return answers


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """A copy for inference in which a batch norm that follows a convolution or a linear layer inside an
    `nn.Sequential` has become part of it."""
    folded = copy.deepcopy(module).eval()
    for parent in [m for m in folded.modules() if isinstance(m, nn.Sequential)]:
        children = list(parent.named_children())
        for (name, layer), (norm_name, norm) in pairwise(children):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(layer, norm))
            elif isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
                setattr(parent, name, fuse_linear_bn_eval(layer, norm))
            else:
                continue
            delattr(parent, norm_name)
    return folded


def to_onnx(network: DeployedNetwork, outputs: Sequence[str], example: Tensor) -> onnx.ModelProto:
    """The graph, with a free batch axis, each weight once, and nodes named after their modules.

    Args:
        network: put into evaluation mode.
        outputs: a name for each exit.
        example: one or more inputs of the network, [n, ...].

    Raises:
        OfframpError: the network has parts that cannot be exported, or fixes the size of a batch.
    """
    # From a batch of one the exporter would conclude that the batch is always one.
    example = example[[0, 0]]
    with _silence(), plain_attention():
        try:
            program = torch.onnx.export(
                network.eval(),
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("n")},),
                input_names=[network.input_name],
                output_names=list(outputs),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0][:160]
            raise OfframpError(
                "module", type(network.network).__name__, f"no ONNX export ({reason})"
            ) from None
    assert program is not None
    model = program.model_proto
    if not model.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise OfframpError(
            "module",
            type(network.network).__name__,
            "its forward pass fixes the number of inputs",
            "take it from x.shape[0], not from len(x) or a number",
        )
    _rename(model.graph)
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _rename(graph: onnx.GraphProto) -> None:
    """Name each node and its tensor after the module it comes from, weights without the wrapper's name."""
    fixed = {value.name for value in (*graph.input, *graph.output)}
    names: dict[str, str] = {
        tensor.name: tensor.name.removeprefix(f"{_NETWORK}.") for tensor in graph.initializer
    }
    taken = set(fixed) | set(names.values())
    for node in graph.node:
        name = _plain_name(node)
        if name in taken:
            name = next(f"{name}.{i}" for i in range(2, len(graph.node) + 2) if f"{name}.{i}" not in taken)
        taken.add(name)
        node.name = name
        names.update({output: name for output in node.output if output not in fixed})
    for node in graph.node:
        node.input[:] = [names.get(value, value) for value in node.input]
        node.output[:] = [names.get(value, value) for value in node.output]
    for value in (*graph.initializer, *graph.value_info):
        value.name = names.get(value.name, value.name)


def _plain_name(node: onnx.NodeProto) -> str:
    recorded = next((p.value for p in node.metadata_props if p.key == _SCOPES), "[]")
    scopes = [part.strip(" '\"") for part in recorded.strip("[]").split(",")]
    modules = [scope for scope in scopes[:-1] if scope.startswith(f"{_NETWORK}.")]
    if not modules:
        return node.op_type.lower()
    return modules[-1].removeprefix(f"{_NETWORK}.")


def _strip(model: onnx.ModelProto) -> None:
    """Take out what the exporter notes about its own run: stack traces, file paths, versions."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    for tensor in graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's notices about its own dependencies and plans from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
