"""A prediction as one flat list of operations whose random numbers are inputs.

JAX draws random numbers from a seed by a cipher that no other runtime has. Here a traced prediction is
evaluated once more, operation by operation, and every array that it draws is handed out, or replaced by one
that is given. On the way calls are opened and, where a layer has forms for several platforms, its general
one is taken, so that what is left are plain operations: what export/graph.py turns into ONNX.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

# Functions of jax.random that draw, by the name that they are jitted under, and the distribution.
_DRAWS = {"_uniform": "uniform", "_normal": "normal"}
# Operations that call a function, and the parameter that holds it, in the versions of JAX that we support.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
    "custom_vmap_call": "call",
}


class Draw(NamedTuple):
    """One array drawn at random: "uniform" in [0, 1) or standard "normal", float32."""

    kind: str
    shape: tuple[Any, ...]


def draws(predict: Callable, *shapes: Any) -> list[Draw]:
    """What `predict(variables, stored, seeds)` draws for arguments of these shapes, in order."""
    found: list[Draw] = []

    def note(kind: str, shape: tuple[Any, ...], _: Any) -> jax.Array:
        found.append(Draw(kind, shape))
        return jnp.zeros(shape)

    jax.eval_shape(lambda *arguments: _replayed(predict, arguments, note), *shapes)
    return found


def drawn(predict: Callable, variables: Any, stored: Any, seeds: Any) -> tuple[jax.Array, list[jax.Array]]:
    """The prediction for these seeds, and the arrays that were drawn for it."""

    def run(*arguments: Any) -> tuple[jax.Array, list[jax.Array]]:
        found: list[jax.Array] = []

        def draw(kind: str, shape: tuple[Any, ...], key: jax.Array) -> jax.Array:
            of_one = {"uniform": jax.random.uniform, "normal": jax.random.normal}[kind]
            found.append(jax.vmap(lambda key: of_one(key, shape[1:]))(key))
            return found[-1]

        return _replayed(predict, arguments, draw), found

    return jax.jit(run)(variables, stored, seeds)


def with_noise(predict: Callable, seeds: Any) -> Callable:
    """(variables, stored, *drawn arrays) -> the prediction; `seeds` tells their number and type alone."""

    def run(variables: Any, stored: Any, *noise: jax.Array) -> jax.Array:
        given = iter(noise)
        return _replayed(predict, (variables, stored, seeds), lambda *_: next(given))

    return run


def _replayed(predict: Callable, arguments: Sequence[Any], draw: Callable) -> jax.Array:
    closed = jax.make_jaxpr(predict)(*arguments)
    leaves = jax.tree.leaves(arguments)
    (result,) = _run(closed.jaxpr, closed.consts, leaves, draw)
    return result


def _run(jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any], draw: Callable) -> list[Any]:
    values: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))

    def of(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        given = [of(atom) for atom in equation.invars]
        values.update(zip(equation.outvars, _one(equation, given, draw), strict=True))
    return [of(atom) for atom in jaxpr.outvars]


def _one(equation: Any, given: list[Any], draw: Callable) -> Sequence[Any]:
    params, primitive = equation.params, equation.primitive
    out = equation.outvars[0].aval
    if params.get("name") in _DRAWS and _is_key(equation.invars[0].aval):
        kind = _DRAWS[params["name"]]
        value = draw(kind, out.shape, given[0])
        if kind == "normal":
            return [value]
        # Called by keywords, as in `categorical`, the upper bound comes first.
        low, high = jnp.minimum(*given[1:]), jnp.maximum(*given[1:])
        return [value * (high - low) + low]
    if primitive.name == "platform_index":
        return [None]
    if primitive.name == "cond" and given[0] is None:  # the last branch is that of any platform
        return _inner(params["branches"][-1], given[1:], draw)
    if primitive.name in _CALLS:
        return _inner(params[_CALLS[primitive.name]], given, draw)
    result = primitive.bind(*given, **params)
    return result if primitive.multiple_results else [result]


def _inner(closed: Any, given: list[Any], draw: Callable) -> list[Any]:
    return _run(closed.jaxpr, closed.consts, given, draw)


def _is_key(aval: Any) -> bool:
    return jax.dtypes.issubdtype(aval.dtype, jax.dtypes.prng_key)


def live(jaxpr: Any) -> Iterator[Any]:
    """The operations of a jaxpr that its results need, in order."""
    needed = {atom for atom in jaxpr.outvars if not isinstance(atom, core.Literal)}
    kept = []
    for equation in reversed(jaxpr.eqns):
        if needed & set(equation.outvars):
            kept.append(equation)
            needed |= {atom for atom in equation.invars if not isinstance(atom, core.Literal)}
    return reversed(kept)
