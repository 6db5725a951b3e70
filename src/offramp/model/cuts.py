"""Where one exit's path can be cut: few tensors, few bytes, and work on both sides worth dividing."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from offramp.model.graph import Graph
from offramp.model.tensors import TensorSpec, bytes_per_input
from offramp.model.work import is_light

MAX_CROSSING = 8  # tensors that may cross a cut
WEIGHT_WORK = 4  # reading a weight takes as long as about so many multiply-accumulates, at a middling size
# A session's call and the tensors at its ends take time as well: as much as CALL_WORK multiply-accumulates for
# one input and BYTE_WORK for each byte that crosses. All cuts of an exit together may cost OVERHEAD of its work;
# but there are always LEAST_LAYERS if the graph has them (for an exit within another's trunk, FEW_LAYERS).
CALL_WORK, BYTE_WORK, OVERHEAD = 2e5, 5.0, 0.08
FEW_LAYERS, LEAST_LAYERS, MOST_LAYERS = 3, 6, 24
# Share of an exit's work from which a stretch without a single-tensor cut is divided: where the cuts inside
# cross at most MORE_BYTES times the bytes at its ends, and where they may cross any number.
LONG_STRETCH, VERY_LONG_STRETCH, MORE_BYTES = 0.15, 0.35, 2
SMALL_STEP = 0.005  # share of an exit's work below which two neighbouring cuts save nothing over one


@dataclass(frozen=True, slots=True)
class ExitPath:
    """The nodes that one exit needs, in order. Position p lies before nodes[p]; len(nodes) is the end.

    `crossing[p]` holds the tensors that cross at position p, or None where one of them cannot. `work[p]` is
    the work of the nodes before p, `heavy[p]` how many of them are heavy.
    """

    output: str
    nodes: tuple[int, ...]
    crossing: tuple[tuple[TensorSpec, ...] | None, ...]
    work: tuple[float, ...]
    heavy: tuple[int, ...]

    def bytes_at(self, position: int) -> int:
        """Bytes per input that cross at a position where a cut is possible."""
        specs = self.crossing[position]
        assert specs is not None
        return bytes_per_input(specs)


def trace_path(graph: Graph, output: str, nodes: Sequence[int]) -> ExitPath:
    """The path of `nodes`, which must be all the data nodes that `output` needs, in executable order."""
    last_use = {name: i for i, node in enumerate(nodes) for name in graph.data_inputs(node)}
    last_use[output] = len(nodes)
    live = [spec.name for spec in graph.inputs if spec.name in last_use]
    crossing = [_specs(graph, live)]
    work, heavy = [0.0], [0]
    for i, node in enumerate(nodes):
        live = [name for name in live if last_use[name] > i]
        live += [name for name in graph.nodes[node].output if last_use.get(name, -1) > i]
        crossing.append(_specs(graph, live))
        work.append(work[-1] + node_work(graph, node))
        heavy.append(heavy[-1] + (not is_light(graph.nodes[node])))
    return ExitPath(output, tuple(nodes), tuple(crossing), tuple(work), tuple(heavy))


def node_work(graph: Graph, node: int) -> float:
    """Work of a node for one input: multiply-accumulates, elements that it writes, weights that it reads."""
    extents = (graph.extent.get(name) for name in graph.nodes[node].output)
    written = sum(math.prod(extent.at(1)) for extent in extents if extent is not None)
    read = graph.weight_elements(node)
    return float(graph.macs[node] + written + WEIGHT_WORK * read)


def _specs(graph: Graph, names: Sequence[str]) -> tuple[TensorSpec, ...] | None:
    specs = tuple(graph.spec(name) for name in names)
    return None if None in specs else tuple(spec for spec in specs if spec is not None)


def settle_cuts(paths: Sequence[ExitPath], ends: Collection[int]) -> list[list[int]]:
    """Positions of the cuts of each path, from 0 to its end, such that exits agree about the trunk.

    `ends` are nodes after which a block ends in any case, since exits part there. The deepest exit chooses
    first, since it has to spread its cuts furthest; the others take over its cuts in the trunk and add some
    there only if they would be left with too few. At last each exit also cuts where blocks end for another.
    """
    block_ends: set[int] = set()
    passed: set[int] = set()
    result: list[list[int]] = [[] for _ in paths]
    deepest_first = sorted(range(len(paths)), key=lambda i: -paths[i].work[-1])
    for i in deepest_first:
        path = paths[i]
        inner = list(enumerate(path.nodes[:-1], start=1))
        free = {p for p, node in inner if node in ends}
        settled = {p: node in block_ends for p, node in inner if node in passed and node not in ends}
        result[i] = _choose(path, settled, free, LEAST_LAYERS)
        if len(result[i]) - 1 < FEW_LAYERS:
            result[i] = sorted({*result[i], *_choose(path, {}, free, FEW_LAYERS)})
        block_ends |= {path.nodes[p - 1] for p in result[i][1:]}
        passed |= set(path.nodes)
    for path, chosen in zip(paths, result, strict=True):
        _add_block_ends(path, chosen, block_ends | set(ends))
    return result


def _choose(path: ExitPath, settled: Mapping[int, bool], free: Collection[int], least: int) -> list[int]:
    """Cuts of one path. `settled` says where in the trunk there is a cut or none; cuts at `free` cost nothing."""
    end = len(path.nodes)
    open_ = [p for p in range(1, end) if _possible(path, p) and settled.get(p, True)]
    fixed = {p for p in open_ if settled.get(p)}
    candidates = _least_of_each_stretch(path, open_)
    chosen = [0, *(p for p in candidates if len(path.crossing[p] or ()) <= 1 or p in fixed), end]
    chosen = _divide_long_stretches(path, chosen, candidates)
    chosen = _drop_small_steps(path, chosen, fixed)
    return _limit(path, chosen, fixed | (set(open_) & set(free)), least)


def _add_block_ends(path: ExitPath, chosen: list[int], block_ends: Collection[int]) -> None:
    """Add in place the positions where blocks end in any case, if a cut there is as good as one nearby."""
    possible = [p for p in range(1, len(path.nodes)) if _possible(path, p)]
    at_ends = {p for p in _least_of_each_stretch(path, possible) if path.nodes[p - 1] in block_ends}
    chosen[:] = _drop_small_steps(path, sorted({*chosen, *at_ends}), set(chosen))


def _possible(path: ExitPath, position: int) -> bool:
    specs = path.crossing[position]
    return specs is not None and len(specs) <= MAX_CROSSING


def _least_of_each_stretch(path: ExitPath, positions: Sequence[int]) -> list[int]:
    """Of positions with the same heavy nodes before them, the one with the fewest tensors, then bytes.

    The latest of equals, so that light nodes stay with the heavy one that they follow (and the runtime can
    fuse them). None before the first or after the last heavy node: cut 0 and the end do as well there.
    """
    best: dict[int, int] = {}
    for p in positions:
        if not 0 < path.heavy[p] < path.heavy[-1]:
            continue
        rival = best.get(path.heavy[p])
        if rival is None or _burden(path, p) <= _burden(path, rival):
            best[path.heavy[p]] = p
    return sorted(best.values())


def _burden(path: ExitPath, position: int) -> tuple[bool, int]:
    specs = path.crossing[position] or ()
    return len(specs) > 1, bytes_per_input(specs)


def _divide_long_stretches(path: ExitPath, chosen: list[int], candidates: Sequence[int]) -> list[int]:
    """Add the cuts with the fewest bytes inside stretches that hold a large share of the work."""
    result = [chosen[0]]
    for start, stop in pairwise(chosen):
        result += [*_divide(path, start, stop, candidates), stop]
    return result


def _divide(path: ExitPath, start: int, stop: int, candidates: Sequence[int]) -> list[int]:
    work = path.work[stop] - path.work[start]
    if work <= LONG_STRETCH * path.work[-1]:
        return []
    margin = 0.2 * work
    limit = math.inf
    if work < VERY_LONG_STRETCH * path.work[-1]:
        limit = MORE_BYTES * max(path.bytes_at(start), path.bytes_at(stop))
    inside = [
        p
        for p in candidates
        if start < p < stop
        and path.work[start] + margin <= path.work[p] <= path.work[stop] - margin
        and path.bytes_at(p) <= limit
    ]
    if not inside:
        return []
    cut = min(inside, key=lambda p: (path.bytes_at(p), p))
    return [*_divide(path, start, cut, candidates), cut, *_divide(path, cut, stop, candidates)]


def _drop_small_steps(path: ExitPath, chosen: list[int], fixed: set[int]) -> list[int]:
    """Of two neighbouring cuts with almost no work between them, keep the one with fewer bytes."""
    kept = [chosen[0]]
    for p in chosen[1:]:
        while len(kept) > 1 and kept[-1] not in fixed and _step(path, kept[-1], p):
            if path.bytes_at(kept[-1]) < path.bytes_at(p) and p != chosen[-1]:
                break
            kept.pop()
        small = p != chosen[-1] and p not in fixed and _step(path, kept[-1], p)
        if not (small and path.bytes_at(kept[-1]) <= path.bytes_at(p)):
            kept.append(p)
    return kept


def _step(path: ExitPath, start: int, stop: int) -> bool:
    return path.work[stop] - path.work[start] < SMALL_STEP * path.work[-1]


def _limit(path: ExitPath, chosen: list[int], kept: set[int], least: int) -> list[int]:
    """Join layers until they are few enough; first where that joins little work or drops a cut of many bytes."""
    chosen = list(chosen)

    def worth(i: int) -> float:
        return (path.work[chosen[i + 1]] - path.work[chosen[i - 1]]) / path.bytes_at(chosen[i])

    def cost() -> float:
        return sum(CALL_WORK + BYTE_WORK * path.bytes_at(p) for p in chosen[1:-1] if p not in kept)

    while len(chosen) - 1 > least and (len(chosen) - 1 > MOST_LAYERS or cost() > OVERHEAD * path.work[-1]):
        free = [i for i in range(1, len(chosen) - 1) if chosen[i] not in kept]
        if not free:
            break
        del chosen[min(free, key=worth)]
    return chosen
