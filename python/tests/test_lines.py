"""The JSON lines, cut into pieces of any size."""

from __future__ import annotations

import unittest

import support


class LinesTest(unittest.TestCase):
    def test_lines_are_understood_however_they_are_cut(self) -> None:
        lines = [b'{"event":"ok","id":%d}' % number for number in range(1, 2_000)]
        lines.insert(500, b'{"event":"aurora","text":"' + b"x" * 3_000_000 + b'"}')
        lines.insert(700, b"no JSON")
        expected: list[object] = list(range(1, 2_000))
        expected.insert(500, "aurora")
        expected.insert(700, "malformed")
        for seed, piece_max in enumerate([7, 5_000, 1_000_000]):
            told = support.told_in_pieces(b"\n".join(lines) + b"\n", "json", seed, piece_max)
            self.assertEqual(told, expected, (seed, piece_max))
