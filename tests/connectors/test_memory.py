"""What connectors know is bounded, and what is used is kept."""

from __future__ import annotations

from connectors._memory import Memory


def test_what_was_used_longest_ago_is_forgotten() -> None:
    memory: Memory[int, bool] = Memory(3)
    for number in range(3):
        memory[number] = True
    assert memory.recall(0)
    memory[3] = True
    assert list(memory) == [2, 0, 3]
    assert memory.recall(1) is None
    memory.update(dict.fromkeys(range(10), False))
    assert memory.setdefault(20, True)
    assert len(memory) == 3
