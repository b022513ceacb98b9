"""What each role may use, as the grid says it: the `resources:` section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Role = Literal["calibrate", "quantize", "evaluate"]

# Which role's actors run a kind of task. Requests and Score are light and go with evaluation.
ROLE_OF: dict[str, Role] = {
    "calibrate": "calibrate",
    "quantize": "quantize",
    "requests": "evaluate",
    "evaluate": "evaluate",
    "score": "evaluate",
}


class RoleResources(BaseModel):
    """Actors of one role: how many, and what one of them reserves. Fractional GPUs share a card."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    replicas: int = Field(2, ge=1, le=4096)
    cpus: float = Field(1, gt=0)
    gpus: float = Field(0, ge=0)

    @property
    def threads(self) -> int:
        """Torch threads of one actor. They decide how sums are split, so they are part of a task's identity."""
        return max(1, int(self.cpus))


class Resources(BaseModel):
    """Actors per role; `attempts` bounds how often a task is started before it counts as failed."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    calibrate: RoleResources = RoleResources()
    quantize: RoleResources = RoleResources()
    evaluate: RoleResources = RoleResources()
    attempts: int = Field(3, ge=1, le=20)

    @model_validator(mode="after")
    def _one_device(self) -> Resources:
        asked = {role: getattr(self, role).gpus > 0 for role in ("calibrate", "quantize", "evaluate")}
        if len(set(asked.values())) > 1:
            without = ", ".join(role for role, gpus in asked.items() if not gpus)
            raise ValueError(
                f"all roles compute on one kind of device: give gpus to {without} as well, or to none"
            )
        return self

    @property
    def device(self) -> str:
        """'cuda' where actors reserve GPUs, else 'cpu'."""
        return "cuda" if self.evaluate.gpus else "cpu"


@dataclass(frozen=True)
class Pool:
    """Actors that are alike. Roles with equal cpus and gpus share one, so a laptop starts two actors, not six."""

    cpus: float
    gpus: float
    size: int
    kinds: frozenset[str]


def pools(resources: Resources) -> list[Pool]:
    """The pools of a sweep, in the order of their first role; a pool is as large as its largest role."""
    merged: dict[tuple[float, float], Pool] = {}
    for role in ("calibrate", "quantize", "evaluate"):
        want: RoleResources = getattr(resources, role)
        kinds = frozenset(kind for kind, owner in ROLE_OF.items() if owner == role)
        have = merged.get((want.cpus, want.gpus), Pool(want.cpus, want.gpus, 0, frozenset()))
        size = max(have.size, want.replicas)
        merged[want.cpus, want.gpus] = Pool(want.cpus, want.gpus, size, have.kinds | kinds)
    return list(merged.values())
