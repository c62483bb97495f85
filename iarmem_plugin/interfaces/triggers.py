"""Ways to bring a picture back that a model was made to forget, and what each may spend."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterator
from typing import Any, ClassVar, NamedTuple, TypeAlias

from jaxtyping import Shaped

from iarmem_plugin.interfaces.condition import Condition
from iarmem_plugin.interfaces.edits import EditData
from iarmem_plugin.interfaces.plugin import Plugin
from iarmem_plugin.typing import Tensor


class Attempt(NamedTuple):
    """What a trigger made of some pictures, having spent so much on each.

    Attributes:
        spent: what was spent so far, in the trigger's unit.
        tokens: completions, one row a picture, with what was given at the beginning.
        given: how many true tokens each completion was given.
    """

    spent: int
    tokens: Shaped[Tensor, "image token *rest"]
    given: int


class _Spends(Plugin):
    """What both kinds of triggers have; options go to ``__init__``.

    Attributes:
        unit: what is spent, in the plural, such as ``"steps"``.
        budgets: what may be spent, rising, of the class or of an instance.
        needs: names of the parts of `EditData` that it cannot do without.
    """

    kind = "trigger"
    unit: ClassVar[str]
    budgets: tuple[int, ...]
    needs: frozenset[str] = frozenset()

    @property
    def passes(self) -> float:
        """Return how many passes of all tokens it takes a picture, roughly, for an estimate.

        A pass with a gradient counts as three. By default one a budget.
        """
        return float(len(self.budgets))


class Trigger(_Spends):
    """Tries to bring pictures back, spending on each of them; the model stays as it is.

    The attacker knows the picture: its tokens, and what the model is told of it.
    """

    @abstractmethod
    def attempts(
        self,
        model: Any,
        tokens: Shaped[Tensor, "image token *rest"],
        condition: Condition,
        *,
        given: int,
        seed: int,
    ) -> Iterator[Attempt]:
        """Yield attempts on some pictures at once, what was spent never falling.

        What a picture gets does not depend on the others. The model is in evaluation mode and
        records no gradients; whoever wants some asks for them, and leaves no flag changed.

        Args:
            model: an `ImageARModel`, edited or not, or what completes and predicts like one.
            tokens: true tokens of each picture.
            condition: what the model is told of each picture, its global id among it.
            given: true tokens that a completion is given, where the trigger itself gives none.
            seed: seed for whatever is drawn at random, together with a picture's global id.

        Raises:
            InputError: the model has not what the trigger needs, or its prefixes end elsewhere.
        """


class ModelTrigger(_Spends):
    """Changes a model, edited before or not, so that it may complete pictures again.

    All pictures are completed by each model it yields, from the same prefix.
    """

    @abstractmethod
    def models(
        self, model: Any, data: EditData, *, seed: int
    ) -> Generator[tuple[int, Any], None, None]:
        """Yield what was spent so far, and the model that it made; put the model back at the end.

        It is put back exactly when the iterator is closed, also before it is exhausted.

        Args:
            model: an `ImageARModel`, edited or not.
            data: images that it may use.
            seed: seed for whatever is drawn at random.
        """


AnyTrigger: TypeAlias = Trigger | ModelTrigger
"""What a plugin may provide as a trigger."""
