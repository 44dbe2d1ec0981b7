"""The conditions that answer the same items: which model, with what help, from which prompt."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Condition:
    """What a condition is made of.

    adapter  the fine-tuned adapter lies on the base model
    general  the adapter that training began with (`training.from`) lies on the base model
    fused    the model folder that rule `fuse` makes of both answers, without an adapter
    fewshot  the prompt holds an instruction and three examples (`evals.fewshot`)
    grammar  what may be said is constrained (`decoding.constrain`)
    threshold  calls from the fitted confidence on, and only then (`evals.threshold`), after what a tool encoder says
             where the run has one
    grounding  what the request says completes a call; one with a value that nobody said becomes the question for it
    tools    the prompt lists the tools
    own_rows rows of marker tokens are the base's own, where others were borrowed (`models.marker_rows`)
    about    one line for people
    """

    about: str
    adapter: bool = False
    general: bool = False
    fused: bool = False
    fewshot: bool = False
    grammar: bool = False
    threshold: bool = False
    grounding: bool = False
    tools: bool = True
    own_rows: bool = False

    def free(self) -> str | None:
        """The condition that asks the same model without a grammar; None for one that is free itself."""
        if not self.grammar:
            return None
        same = ("adapter", "general", "fused", "fewshot", "tools", "own_rows")
        return next(
            name
            for name, other in CONDITIONS.items()
            if not other.grammar and all(getattr(self, key) == getattr(other, key) for key in same)
        )

    @property
    def tuned(self) -> bool:
        """Whether it depends on a training; the other conditions are shared by runs with the same base model."""
        return self.adapter or self.fused or self.general


CONDITIONS: Mapping[str, Condition] = MappingProxyType(
    {
        "base": Condition("the base model, asked as the fine-tuned one is"),
        "base_own_rows": Condition("the base model without borrowed rows of marker tokens", own_rows=True),
        "base_fewshot": Condition("the base model with an instruction and three examples in the prompt", fewshot=True),
        "base_grammar": Condition("the base model, its answers constrained by a grammar", grammar=True),
        "general": Condition("the base model with the adapter that training began with", general=True),
        "tuned": Condition("the base model with the fine-tuned adapter", adapter=True),
        "tuned_grammar": Condition(
            "the fine-tuned model, its answers constrained by a grammar", adapter=True, grammar=True
        ),
        "tuned_threshold": Condition(
            "the fine-tuned model under the grammar, calling from the fitted confidence on",
            adapter=True,
            grammar=True,
            threshold=True,
        ),
        "tuned_served": Condition(
            "the same as `callwright serve --grounding ask` answers: what was said is filled in, the rest asked for",
            adapter=True,
            grammar=True,
            threshold=True,
            grounding=True,
        ),
        "fused": Condition("the fine-tuned model, fused and quantized again", fused=True),
        "no_tools": Condition("a control: the base model without the tools", tools=False),
    }
)
