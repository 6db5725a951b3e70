"""A branchy model as blocks: pieces of the graph, each run by one session, shared by the exits that need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from offramp.errors import OfframpError
from offramp.model.cuts import ExitPath, settle_cuts, trace_path
from offramp.model.graph import Graph, read_graph
from offramp.model.tensors import TensorSpec, bytes_per_input
from offramp.model.work import is_light


@dataclass(frozen=True, slots=True)
class Block:
    """Nodes that always run together. `inputs` and `outputs` are data tensors; `macs` is for one input."""

    index: int
    name: str
    nodes: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    macs: int


@dataclass(frozen=True, slots=True)
class Layer:
    """What lies between two neighbouring cuts of an exit: one block or a few, by index, in order."""

    name: str
    blocks: tuple[int, ...]
    macs: int


@dataclass(frozen=True, slots=True)
class BranchyExit:
    """One exit: the output that holds its logits, its l layers and what crosses at its cuts 0..l."""

    output: str
    layers: tuple[Layer, ...]
    cuts: tuple[tuple[TensorSpec, ...], ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates from the model's input to this exit, for one input."""
        return sum(layer.macs for layer in self.layers)

    @property
    def cut_bytes(self) -> tuple[int, ...]:
        """Uncompressed bytes per input at each cut 0..l."""
        return tuple(bytes_per_input(cut) for cut in self.cuts)

    @property
    def blocks(self) -> tuple[int, ...]:
        """Indices of all the exit's blocks, in order."""
        return tuple(block for layer in self.layers for block in layer.blocks)


@dataclass(frozen=True, slots=True)
class BranchyModel:
    """An ONNX file with an exit for each of its outputs. Exits are numbered from 1, as in a decision."""

    graph: Graph
    exits: tuple[BranchyExit, ...]
    blocks: tuple[Block, ...]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The model's inputs."""
        return self.graph.inputs

    @property
    def sha256(self) -> str:
        """Hash of the ONNX file, in hexadecimal."""
        return self.graph.source.sha256

    def exit(self, number: int) -> BranchyExit:
        """Exit 1..u. Raises OfframpError for another number."""
        if not 1 <= number <= len(self.exits):
            raise OfframpError("exit", number, f"must lie in 1..{len(self.exits)}")
        return self.exits[number - 1]

    def boundary(self, exit_number: int, cut: int) -> tuple[TensorSpec, ...]:
        """What crosses at cut 0..l of an exit. Raises OfframpError for another exit or cut."""
        cuts = self.exit(exit_number).cuts
        if not 0 <= cut < len(cuts):
            raise OfframpError("cut", cut, f"must lie in 0..{len(cuts) - 1} for exit {exit_number}")
        return cuts[cut]

    def tail(self, exit_number: int, cut: int) -> Block:
        """All that an exit has behind a cut 0..l-1, as one block. Raises OfframpError as `boundary` does."""
        entering = tuple(spec.name for spec in self.boundary(exit_number, cut))
        branch = self.exit(exit_number)
        parts = [self.blocks[index] for layer in branch.layers[cut:] for index in layer.blocks]
        return Block(
            parts[0].index,
            f"exit {exit_number} behind cut {cut}",
            tuple(node for part in parts for node in part.nodes),
            entering,
            (branch.output,),
            sum(part.macs for part in parts),
        )


def load_model(path: Path, outputs: Sequence[str] | None = None) -> BranchyModel:
    """Read an ONNX file and find its exits, cuts and blocks.

    `outputs` names the exits in order; without it every output is one, cheapest first. Raises OfframpError
    for a file that `read_graph` refuses, an output that the file lacks or names twice, and exits that
    share no trunk.
    """
    graph = read_graph(path)
    needs = {output: _needed(graph, output) for output in graph.outputs}
    if outputs is None:
        ordered = sorted(graph.outputs, key=lambda output: sum(graph.macs[n] for n in needs[output]))
    else:
        ordered = list(outputs)
    for output in ordered:
        if output not in needs:
            raise OfframpError("exit output", output, f"must be one of {', '.join(graph.outputs)}")
        if graph.spec(output) is None:
            raise OfframpError("exit output", output, "must be a numeric tensor with one axis for the batch")
    if len(set(ordered)) != len(ordered) or not ordered:
        raise OfframpError("exit outputs", ordered, "must be distinct, at least one")
    _check_trunk(graph, [needs[output] for output in ordered], ordered)
    return _assemble(graph, ordered, needs)


def _needed(graph: Graph, output: str) -> frozenset[int]:
    """Data nodes that the output depends on."""
    found: set[int] = set()
    stack = [output]
    while stack:
        node = graph.producer.get(stack.pop())
        if node is not None and node not in found:
            found.add(node)
            stack.extend(graph.data_inputs(node))
    return frozenset(found)


def _check_trunk(graph: Graph, needs: Sequence[frozenset[int]], outputs: Sequence[str]) -> None:
    common = frozenset.intersection(*needs)
    if len(needs) > 1 and all(is_light(graph.nodes[node]) for node in common):
        raise OfframpError(
            "exits",
            list(outputs),
            "share no trunk",
            "export one network whose exits branch off a common stem",
        )


def _depth_first(graph: Graph, outputs: Sequence[str]) -> dict[int, int]:
    """Rank of each data node in an order that finishes one branch before it starts the next.

    Few tensors are alive at a time in such an order, whatever order the exporter wrote the nodes in.
    """
    rank: dict[int, int] = {}
    for output in outputs:
        stack = [(graph.producer[output], False)]
        while stack:
            node, inputs_done = stack.pop()
            if node in rank:
                continue
            if inputs_done:
                rank[node] = len(rank)
                continue
            stack.append((node, True))
            before = (graph.producer.get(name) for name in reversed(graph.data_inputs(node)))
            stack.extend((n, False) for n in before if n is not None and n not in rank)
    return rank


Region = frozenset[int]  # the exits that need a node; nodes that the same exits need form a region


def _assemble(graph: Graph, outputs: Sequence[str], needs: dict[str, frozenset[int]]) -> BranchyModel:
    rank = _depth_first(graph, outputs)
    regions: dict[Region, list[int]] = {}
    for node in sorted(rank, key=rank.__getitem__):
        users = frozenset(i for i, output in enumerate(outputs) if node in needs[output])
        regions.setdefault(users, []).append(node)
    # An edge leads from a region to one that fewer exits need, so this order is executable for every exit.
    order = sorted(regions, key=lambda users: (-len(users), rank[regions[users][0]]))
    paths = [
        trace_path(graph, output, [node for users in order if i in users for node in regions[users]])
        for i, output in enumerate(outputs)
    ]
    ends = {nodes[-1] for nodes in regions.values()}
    cuts = settle_cuts(paths, ends)
    last_nodes = ends | {
        path.nodes[p - 1] for path, chosen in zip(paths, cuts, strict=True) for p in chosen[1:]
    }
    blocks = _blocks(graph, [regions[users] for users in order], last_nodes, outputs)
    exits = tuple(_exit(path, chosen, blocks) for path, chosen in zip(paths, cuts, strict=True))
    return BranchyModel(graph, exits, tuple(blocks))


def _blocks(
    graph: Graph, regions: Sequence[Sequence[int]], last_nodes: set[int], outputs: Sequence[str]
) -> list[Block]:
    pieces: list[list[int]] = [[]]
    for region in regions:
        for node in region:
            pieces[-1].append(node)
            if node in last_nodes:
                pieces.append([])
    pieces = [piece for piece in pieces if piece]
    home = {node: index for index, piece in enumerate(pieces) for node in piece}
    readers: dict[str, set[int]] = {output: {-1} for output in outputs}
    for node, index in home.items():
        for name in graph.data_inputs(node):
            readers.setdefault(name, set()).add(index)
    blocks = []
    for index, piece in enumerate(pieces):
        made = [name for node in piece for name in graph.nodes[node].output if name]
        used = dict.fromkeys(name for node in piece for name in graph.data_inputs(node))
        leaving = tuple(name for name in made if readers.get(name, set()) - {index})
        macs = sum(graph.macs[node] for node in piece)
        entering = tuple(name for name in used if name not in set(made))
        blocks.append(Block(index, _block_name(graph, piece), tuple(piece), entering, leaving, macs))
    return blocks


def _block_name(graph: Graph, nodes: Sequence[int]) -> str:
    main = max(nodes, key=lambda n: (graph.macs[n], not is_light(graph.nodes[n])))
    node = graph.nodes[main]
    return node.name.strip("/") or f"{node.op_type.lower()}:{node.output[0]}"


def _exit(path: ExitPath, chosen: Sequence[int], blocks: Sequence[Block]) -> BranchyExit:
    home = {node: block.index for block in blocks for node in block.nodes}
    layers, cuts = [], [path.crossing[0] or ()]
    for start, stop in pairwise(chosen):
        inside = tuple(dict.fromkeys(home[node] for node in path.nodes[start:stop]))
        macs = sum(blocks[i].macs for i in inside)
        name = blocks[max(inside, key=lambda i: blocks[i].macs)].name
        layers.append(Layer(name, inside, macs))
        cuts.append(path.crossing[stop] or ())
    return BranchyExit(path.output, tuple(layers), tuple(cuts))
