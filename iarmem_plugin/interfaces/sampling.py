"""How a model is asked for tokens."""

from __future__ import annotations

from dataclasses import dataclass

from iarmem_plugin.checks import check_integer, check_kind, check_number


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen after the prefix.

    Attributes:
        guidance: strength of classifier-free guidance; 0 turns it off and costs no second pass.
        guidance_power: exponent of the guidance schedule, for families that have one.
        temperature: positive number that divides the logits.
        top_k: number of likeliest tokens that are kept; 0 keeps all.
        top_p: probability that the kept, likeliest tokens reach together; 0 keeps all.
        greedy: whether the likeliest token is taken; then none is drawn at random.
        seed: seed for a generator of the call's own, or, as a tuple, for one of each image, whose
            tokens then do not depend on the other images; None draws from the global generator.
        logit_noise: standard deviation of normal noise that is added to the logits first, also
            where the likeliest token is taken; drawn by the seed.

    Raises:
        InputError: one of them is of another kind.
    """

    guidance: float = 0.0
    guidance_power: float = 0.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 0.0
    greedy: bool = True
    seed: int | tuple[int, ...] | None = 0
    logit_noise: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values of another kind; `check_sampling` refuses those out of range."""
        for name in ("guidance", "guidance_power", "temperature", "top_p", "logit_noise"):
            check_number(name, getattr(self, name))
        check_integer("top_k", self.top_k)
        check_kind("greedy", self.greedy, bool, "True or False")
        for seed in self.seed if isinstance(self.seed, tuple) else (self.seed,):
            if seed is not None:
                check_integer("the seed", seed, least=0)

    @property
    def draws(self) -> bool:
        """Whether anything is drawn at random."""
        return not self.greedy or self.logit_noise != 0
