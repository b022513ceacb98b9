"""The scheduler under an executor that reorders, delays, duplicates and kills: its invariants over 1,000 seeds."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from pipeline.executor import Outcome, Slot
from pipeline.scheduler import PRIORITY, Scheduler, State, drive
from pipeline.tasks import Task

KINDS = frozenset(PRIORITY)


@dataclass(frozen=True)
class Node(Task):
    """A task of the simulation."""

    kind: ClassVar[str] = "evaluate"
    name: str
    needs: tuple[str, ...] = ()

    @property
    def key(self) -> str:  # type: ignore[override]
        return self.name

    def spec(self) -> dict[str, Any]:
        return {"name": self.name}

    def inputs(self) -> dict[str, str]:
        return {str(i): key for i, key in enumerate(self.needs)}


def random_graph(rng: random.Random) -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    for i in range(rng.randint(1, 25)):
        needs = rng.sample(sorted(nodes), k=min(len(nodes), rng.choice([0, 0, 1, 1, 2, 3])))
        nodes[f"{i:02d}"] = Node(f"{i:02d}", tuple(needs))
    return nodes


@dataclass
class Storm:
    """A fake executor with a store of its own. It breaks whatever the protocol allows to break."""

    rng: random.Random
    nodes: dict[str, Node]
    poisoned: set[str]
    committed: set[str] = field(default_factory=set)
    slots: int = 3
    flying: list[tuple[Slot, Node, int]] = field(default_factory=list)
    late: list[Outcome] = field(default_factory=list)
    starts: Counter[str] = field(default_factory=Counter)

    def idle(self) -> Sequence[Slot]:
        used = {slot.name for slot, _, _ in self.flying}
        return [Slot(str(i), KINDS) for i in range(self.slots) if str(i) not in used]

    def submit(self, slot: Slot, task: Task, attempt: int) -> None:
        assert isinstance(task, Node)
        assert set(task.needs) <= self.committed, "started before its inputs were committed"
        assert task.key not in {node.key for _, node, _ in self.flying}, "two attempts at once"
        assert slot.name not in {s.name for s, _, _ in self.flying}, "two tasks in one slot"
        self.starts[task.key] += 1
        assert attempt == self.starts[task.key]
        self.flying.append((slot, task, attempt))

    def wait(self) -> Sequence[Outcome]:
        told = [self.late.pop(self.rng.randrange(len(self.late)))] if self.late and self.rng.random() < 0.4 else []
        if not told or self.rng.random() < 0.7:
            index = self.rng.randrange(len(self.flying))  # any order, so others are delayed
            _, node, attempt = self.flying.pop(index)
            told += self._end(node, attempt)
        return told

    def _end(self, node: Node, attempt: int) -> list[Outcome]:
        if node.key in self.poisoned:
            outcome = Outcome(node.key, attempt, "failed", "poisoned")
        elif self.rng.random() < 0.2:  # killed, half of the time after it had committed
            outcome = Outcome(node.key, attempt, "lost", "killed")
            if self.rng.random() < 0.5:
                self.committed.add(node.key)
                if self.rng.random() < 0.5:
                    self.late.append(Outcome(node.key, attempt, "done"))
        else:
            self.committed.add(node.key)
            outcome = Outcome(node.key, attempt, "done")
        if self.rng.random() < 0.3:
            self.late.append(outcome)  # delivered a second time, later
        return [outcome]

    def close(self) -> None:
        """Nothing is held."""


def simulate(seed: int) -> tuple[Scheduler, Storm]:
    rng = random.Random(seed)
    nodes = random_graph(rng)
    storm = Storm(rng, nodes, {k for k in nodes if rng.random() < 0.05}, slots=rng.randint(1, 4))
    storm.committed = {k for k in nodes if rng.random() < 0.1}
    targets = [k for k in nodes if rng.random() < 0.5] or list(nodes)[-1:]
    scheduler = Scheduler(nodes, targets, lambda key: key in storm.committed, attempts=3)
    drive(scheduler, storm, lambda *_: None)
    return scheduler, storm


@pytest.mark.parametrize("start", range(0, 1000, 100))
def test_invariants_hold_in_any_storm(start: int) -> None:
    for seed in range(start, start + 100):
        scheduler, storm = simulate(seed)
        for key, state in scheduler.state.items():
            inputs = {scheduler.state[i] for i in storm.nodes[key].needs if i in scheduler.state}
            assert storm.starts[key] <= 3, seed
            if state is State.DONE:
                assert key in storm.committed, seed
            elif state is State.FAILED:
                assert key in storm.poisoned or storm.starts[key] == 3, seed
            else:
                assert state is State.BLOCKED, seed
                assert inputs & {State.FAILED, State.BLOCKED}, seed
                assert storm.starts[key] == 0, seed


def test_storms_reach_every_verdict() -> None:
    """The simulation is worth something only if it really kills, fails, blocks and repeats."""
    verdicts: Counter[State] = Counter()
    retried = 0
    for seed in range(1000):
        scheduler, storm = simulate(seed)
        verdicts.update(scheduler.state.values())
        retried += sum(count > 1 for count in storm.starts.values())
    assert min(verdicts[State.DONE], verdicts[State.FAILED], verdicts[State.BLOCKED], retried) > 100


def test_same_completions_same_decisions() -> None:
    first, second = simulate(7), simulate(7)
    assert first[0].state == second[0].state
    assert first[1].starts == second[1].starts


def test_committed_targets_need_no_inputs() -> None:
    nodes = {"a": Node("a"), "b": Node("b", ("a",))}
    scheduler = Scheduler(nodes, ["b"], lambda key: key == "b")
    assert scheduler.state == {"b": State.DONE}
    assert scheduler.ready() == []


def test_a_failure_blocks_only_what_needs_it() -> None:
    nodes = {"a": Node("a"), "b": Node("b", ("a",)), "c": Node("c"), "d": Node("d", ("c",))}
    storm = Storm(random.Random(3), nodes, {"a"}, slots=1)
    scheduler = Scheduler(nodes, list(nodes), lambda key: False, attempts=20)
    drive(scheduler, storm, lambda *_: None)
    verdicts = {key: state.value for key, state in scheduler.state.items()}
    assert verdicts == {"a": "failed", "b": "blocked", "c": "done", "d": "done"}


def test_a_late_success_frees_what_was_blocked() -> None:
    nodes = {"a": Node("a"), "b": Node("b", ("a",))}
    scheduler = Scheduler(nodes, ["b"], lambda key: False, attempts=1)
    scheduler.started("a")
    scheduler.finished(Outcome("a", 1, "lost", "killed"))
    assert scheduler.state["b"] is State.BLOCKED
    scheduler.finished(Outcome("a", 1, "done"))
    assert scheduler.ready() == ["b"]


def test_an_old_attempt_cannot_fail_a_new_one() -> None:
    scheduler = Scheduler({"a": Node("a")}, ["a"], lambda key: False)
    scheduler.started("a")
    scheduler.finished(Outcome("a", 1, "lost", "killed"))
    scheduler.started("a")
    scheduler.finished(Outcome("a", 1, "failed", "the first attempt, late"))
    assert scheduler.state["a"] is State.RUNNING


def test_an_input_found_damaged_is_made_again() -> None:
    """a was committed; b finds it broken (it is gone from the store), is lost once, and a comes first again."""
    nodes = {"a": Node("a"), "b": Node("b", ("a",))}
    committed = {"a"}
    scheduler = Scheduler(nodes, ["b"], lambda key: key in committed)
    scheduler.started("b")
    committed.clear()
    scheduler.finished(Outcome("b", 1, "lost", "input damaged"))
    assert scheduler.ready() == ["a"]
    scheduler.started("a")
    committed.add("a")
    scheduler.finished(Outcome("a", 1, "done"))
    assert scheduler.ready() == ["b"]
    assert scheduler.reused == set()


def test_a_full_store_stops_the_sweep() -> None:
    nodes = {str(i): Node(str(i)) for i in range(9)}

    class Full(Storm):
        def _end(self, node: Node, attempt: int) -> list[Outcome]:
            return [Outcome(node.key, attempt, "fatal", "no space")]

    full = Full(random.Random(0), nodes, set(), slots=1)
    scheduler = Scheduler(nodes, list(nodes), lambda key: False)
    drive(scheduler, full, lambda *_: None)
    assert scheduler.fatal == "no space"
    assert sum(full.starts.values()) == 1
    assert scheduler.count(State.WAITING) == 8


def test_stopping_drains_what_is_in_flight() -> None:
    nodes = {str(i): Node(str(i)) for i in range(9)}
    storm = Storm(random.Random(0), nodes, set(), slots=2)
    scheduler = Scheduler(nodes, list(nodes), lambda key: False, attempts=99)
    drive(scheduler, storm, lambda *_: None, stopping=lambda: sum(storm.starts.values()) >= 4)
    assert not scheduler.running
    assert sum(storm.starts.values()) <= 5
