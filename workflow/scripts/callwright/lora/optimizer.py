"""AdamW with decoupled weight decay, and clipping by the global norm.

Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101, with Adam's bias correction.
Moments and backend are float32 whatever the parameters are.
"""

from collections.abc import Collection, Mapping

import mlx.core as mx

Arrays = dict[str, mx.array]


class AdamW:
    """Updates named arrays; holds the step count and two moments per array.

        optimizer = AdamW(parameters, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
        parameters = optimizer.update(parameters, gradients, learning_rate=1e-3)

    The update of a parameter p with gradient g at step t, as in PyTorch:
    p <- p - lr * weight_decay * p - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps).
    """

    def __init__(
        self,
        parameters: Arrays,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        factors: Mapping[str, float] | None = None,
        undecayed: Collection[str] = (),
    ):
        """`factors`: by which an array's learning rate differs from the common one, by its name; 1 where absent.

        `undecayed`: names of arrays without weight decay.
        """
        self.factors, self.undecayed = dict(factors or {}), frozenset(undecayed)
        self.betas, self.eps, self.weight_decay = tuple(betas), eps, weight_decay
        self.step = 0
        self.first = {name: mx.zeros(value.shape, mx.float32) for name, value in parameters.items()}
        self.second = {name: mx.zeros(value.shape, mx.float32) for name, value in parameters.items()}

    def update(self, parameters: Arrays, gradients: Arrays, learning_rate: float) -> Arrays:
        """The parameters after one step; same names, shapes and dtypes. Lazy, like all of MLX."""
        self.step += 1
        b1, b2 = self.betas
        correction = (1 - b2**self.step) ** -0.5
        updated = {}
        for name, value in parameters.items():
            rate = learning_rate * self.factors.get(name, 1.0)
            gradient = gradients[name].astype(mx.float32)
            m = self.first[name] = b1 * self.first[name] + (1 - b1) * gradient
            v = self.second[name] = b2 * self.second[name] + (1 - b2) * gradient * gradient
            old = value.astype(mx.float32)
            if self.weight_decay and name not in self.undecayed:
                old = old * (1 - rate * self.weight_decay)
            updated[name] = (old - rate / (1 - b1**self.step) * m / (mx.sqrt(v) * correction + self.eps)).astype(
                value.dtype
            )
        return updated

    def state(self) -> tuple[Arrays, Arrays]:
        """The first and second moments, to be evaluated or saved beside `step`."""
        return self.first, self.second


def global_norm(gradients: Arrays) -> mx.array:
    """The 2-norm of all gradients as one vector (float32 scalar)."""
    return mx.sqrt(sum(mx.sum(mx.square(g.astype(mx.float32))) for g in gradients.values()))


def clip(gradients: Arrays, max_norm: float) -> tuple[Arrays, mx.array]:
    """(gradients scaled so that their global norm is at most `max_norm`, the norm before); 0 does not clip."""
    norm = global_norm(gradients)
    if not max_norm:
        return gradients, norm
    factor = mx.minimum(max_norm / (norm + 1e-6), 1.0)
    return {name: g * factor.astype(g.dtype) for name, g in gradients.items()}, norm
