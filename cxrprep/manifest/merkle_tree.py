"""Merkle trees of RFC 9162, section 2.1: a root over hashes, and the path that proves that one of them is below it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def _node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class GrowingTree:
    """A tree whose leaves come one after another: of any size some sixty hashes are held.

    Two whole trees of one size become one: the same tree as the RFC's division by powers of two.
    """

    def __init__(self) -> None:
        """No leaf yet."""
        self.count = 0
        self._roots: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        """The hash of the next leaf."""
        self.count += 1
        place = self.count
        while not place & 1:
            leaf, place = _node_hash(self._roots.pop(), leaf), place >> 1
        self._roots.append(leaf)

    def root(self) -> bytes:
        """The root over all that came."""
        if not self._roots:
            return hashlib.sha256().digest()
        found = self._roots[-1]
        for left in reversed(self._roots[:-1]):
            found = _node_hash(left, found)
        return found


def inclusion_path(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """The hashes beside the way from a leaf to the root."""
    level, place, path = list(hashes), index, []
    while len(level) > 1:
        beside = place ^ 1
        if beside < len(level):
            path.append(level[beside])
        paired = [_node_hash(left, right) for left, right in zip(level[::2], level[1::2], strict=False)]
        level, place = paired + level[len(paired) * 2 :], place // 2
    return path


def root_by_path(leaf: bytes, index: int, size: int, path: Sequence[str]) -> bytes | None:
    """The root that a path leads to, by RFC 9162, section 2.1.3.2; ``None`` for a path that does not fit.

    Args:
        leaf: the leaf's hash.
        index: its place among all leaves, from 0.
        size: how many leaves there are.
        path: the hashes beside the way, hexadecimal, as of ``inclusion_path``.

    Returns:
        The root's hash of 32 bytes.
    """
    if not 0 <= index < size:
        return None
    place, last, found = index, size - 1, leaf
    for step in path:
        if last == 0:
            return None
        beside = bytes.fromhex(step)
        if place & 1 or place == last:
            found = _node_hash(beside, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = _node_hash(found, beside)
        place, last = place >> 1, last >> 1
    return found if last == 0 else None
