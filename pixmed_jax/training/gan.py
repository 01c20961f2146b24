"""Adversarial training of a generator that is told a mask (paper, Section 3.3, Eq. 1-3), a label or an image.

Both players are updated at once from the same parameters. The discriminator runs over the generated images
once: its one forward pass is differentiated twice, with the cotangent of its own loss for its parameters and
with that of the generator's loss for the images.

A lazy term (lazy.py) makes an update of its own after the player's main one.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from pixmed_jax import losses
from pixmed_jax.data.augment import seen_by_discriminator
from pixmed_jax.data.augment_settings import Settings, check_discriminator
from pixmed_jax.data.pipeline import Batch
from pixmed_jax.errors import PixmedError
from pixmed_jax.models.layers import PREPARED
from pixmed_jax.training import lazy, settle
from pixmed_jax.training.task import Metrics, Task, averaged, follow, skip_if_not_finite, streams

Params = Any
_OF_STYLES = ("reconstruct", "repaint", "readings", "expected")  # methods, beside __call__


class GANState(NamedTuple):
    """All that a training is at a step: nothing else decides what comes after it."""

    step: jax.Array
    skipped: jax.Array
    skipped_in_row: jax.Array
    key: jax.Array
    generator: Params  # {"params", "batch_stats"?}
    discriminator: Params  # {"params"}; what else its init makes, running averages, nobody reads
    generator_optimizer: optax.OptState
    discriminator_optimizer: optax.OptState
    ema: Params  # running average of `generator`, statistics included: what samples
    lazy: Metrics  # what the lazy terms came to when they were last computed, path length's mean among it


class Losses(NamedTuple):
    """What both players minimise: the section `loss` of a config. A term of weight 0 is not computed."""

    gan: str = "bce"  # what both make of the discriminator's logits, a name in `losses.ADVERSARIAL`
    bce: str = "adversarial"  # the generator's: that loss, "pixel" (BCE of images), "both" or "none"
    adversarial: float = 1.0  # the weight of that loss in what the generator minimises
    ssim: float = 0.0  # of 1 - SSIM, and likewise:
    l1: float = 0.0
    mse: float = 0.0
    # Of the divergence of the styles that are read from those that are drawn: the first half of a batch is
    # painted in styles read off the real images and compared with them; the other half's are drawn, as in
    # sampling, and are the discriminator's alone to judge. For generators that have `_OF_STYLES`.
    kl: float = 0.0
    r1: float = 0.0  # gamma, of the discriminator's
    r1_every: int = 16
    path_length: float = 0.0  # the generator's, for those that have `styles` and `paint`
    path_every: int = 4

    def of_images(self) -> dict[str, float]:
        """Weights by the names of `losses.BETWEEN`."""
        pixel = float(self.bce in ("pixel", "both"))
        return {"pixel_bce": pixel, "1-ssim": self.ssim, "l1": self.l1, "mse": self.mse}

    def check(self, generator: nn.Module) -> None:
        """PixmedError for what does not exist, or what this generator cannot be trained by."""
        if self.bce not in ("adversarial", "pixel", "both", "none"):
            raise PixmedError(f"loss.bce={self.bce!r} is unknown; use one of adversarial, pixel, both, none")
        if self.gan not in losses.ADVERSARIAL:
            raise PixmedError(f"loss.gan={self.gan!r} is unknown; use one of {', '.join(losses.ADVERSARIAL)}")
        name = type(generator).__name__
        if self.path_length and not hasattr(generator, "paint"):
            raise PixmedError(f"loss.path_length={self.path_length:g}: {name} has no styles; set it to 0")
        if self.kl and not _reads_styles(generator):
            raise PixmedError(f"loss.kl={self.kl:g}: {name} reads no styles; set it to 0")
        if min(self.r1_every, self.path_every) < 1:
            raise PixmedError(
                f"loss.r1_every={self.r1_every}, loss.path_every={self.path_every}: give 1 or more"
            )


class Gradients(NamedTuple):
    """By player; `lazy` of those that have a lazy term."""

    generator: Params
    discriminator: Params
    lazy: dict[str, Params]


def make_task(
    generator: nn.Module,
    discriminator: nn.Module,
    optimizer: optax.GradientTransformation,
    aim: Losses,
    *,
    discriminator_optimizer: optax.GradientTransformation | None = None,
    ema_decay: float = 0.999,
    accumulate: int = 1,
    augment_discriminator: Settings | None = None,
    axis_name: str | None = None,
) -> Task:
    """Task of a generator `(condition, train) -> images` against `(condition, images) -> logits`.

    The generator draws from the random streams "noise" and "dropout", in training and in sampling.
    aim: what both minimise; PixmedError where it does not fit the generator.
    discriminator_optimizer: where it is not `optimizer`, as a lazy term asks for (see `adam`).
    accumulate: the batch is cut into so many equal parts whose gradients are averaged into one update. Batch
        norm then sees one part at a time, so its statistics are those of batch / accumulate images.
    augment_discriminator: what the discriminator sees, real or generated, is augmented by these settings.
    axis_name: for use under `jax.pmap`; gradients, statistics and metrics are averaged over that axis.
    """
    aim.check(generator)
    check_discriminator(augment_discriminator, "train.augment_discriminator")
    discriminator_loss, generator_loss = losses.ADVERSARIAL[aim.gan]
    weight = aim.adversarial if aim.bce in ("adversarial", "both") else 0.0
    weights, kl = aim.of_images(), aim.kl
    optimizers = {"generator": optimizer, "discriminator": discriminator_optimizer or optimizer}

    def image_loss(generated: jax.Array, real: jax.Array) -> tuple[jax.Array, Metrics]:
        total, values = losses.between(generated, real, weights)
        return total, {f"generator/{name}": value for name, value in values.items()}

    def discriminate(params: Params, batch: Batch, images: jax.Array, key: jax.Array) -> jax.Array:
        # Batch norm writes running averages that nobody reads; they are dropped here.
        images, condition = seen_by_discriminator(images, batch.condition, key, augment_discriminator)
        logits, _ = discriminator.apply({"params": params}, condition, images, mutable=["batch_stats"])
        return logits

    lazy_terms: dict[str, lazy.Term] = {}
    if aim.path_length:
        lazy_terms["generator"] = lazy.path_length(aim.path_length, aim.path_every, generator)
    if aim.r1:
        lazy_terms["discriminator"] = lazy.r1(aim.r1, aim.r1_every, discriminate)

    def gradients(
        state: GANState, stats: Mapping, batch: Batch, key: jax.Array
    ) -> tuple[Gradients, Mapping, Metrics]:
        """Gradients, the generator's statistics and metrics of a part of a batch."""
        read = -(-len(batch.images) // 2) if kl else len(batch.images)  # the others' styles are drawn

        def generate(params: Params) -> tuple[tuple[jax.Array, jax.Array], Mapping]:
            """Images, of which the first `read` are to be like the real ones; their styles' divergence."""
            apply = functools.partial(
                generator.apply, {"params": params, **stats}, batch.condition, mutable=["batch_stats"]
            )
            if kl:
                (images, divergence), new = apply(
                    batch.images[:read], rngs=streams(key), method="reconstruct"
                )
                return (images, divergence.mean()), new
            images, new = apply(train=True, rngs=streams(key))
            return (images, jnp.zeros(())), new

        of_lazy, lazy_values = lazy.gradients(lazy_terms, state, stats, batch, key)
        (fake, divergence), pull_generator, stats = jax.vjp(generate, state.generator["params"], has_aux=True)
        params = state.discriminator["params"]
        fake_logits, pull_discriminator = jax.vjp(
            lambda params, images: discriminate(params, batch, images, key), params, fake
        )

        loss_fake, cotangent = jax.value_and_grad(discriminator_loss)(fake_logits, False)
        discriminator_gradient, _ = pull_discriminator(cotangent)
        loss_real, real_gradient = jax.value_and_grad(
            lambda params: discriminator_loss(discriminate(params, batch, batch.images, key), True)
        )(params)
        discriminator_gradient = jax.tree.map(
            lambda a, b: (a + b) / 2, discriminator_gradient, real_gradient
        )  # the half of pix2pix, Section 3.3: slows the discriminator relative to the generator

        (_, parts), fake_gradient = jax.value_and_grad(image_loss, has_aux=True)(
            fake[:read], batch.images[:read]
        )
        fake_gradient = jnp.concatenate([fake_gradient, jnp.zeros_like(fake[read:])])
        loss_adversarial, cotangent = jax.value_and_grad(generator_loss)(fake_logits)
        if weight:
            fake_gradient = fake_gradient + weight * pull_discriminator(cotangent)[1]
        if kl:
            parts["generator/kl"] = divergence
        (generator_gradient,) = pull_generator((fake_gradient, jnp.full_like(divergence, kl)))

        metrics = {
            "generator/adversarial": loss_adversarial,
            **parts,
            "discriminator/real": loss_real,
            "discriminator/fake": loss_fake,
            **lazy_values,
        }
        return Gradients(generator_gradient, discriminator_gradient, of_lazy), stats, metrics

    def propose(state: GANState, batch: Batch) -> tuple[Any, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        stats = {name: value for name, value in state.generator.items() if name != "params"}
        grads, stats, metrics = averaged(
            functools.partial(gradients, state), stats, batch, key, accumulate, axis_name
        )
        metrics["generator/gradient_norm"] = optax.tree.norm(grads.generator)
        metrics["discriminator/gradient_norm"] = optax.tree.norm(grads.discriminator)
        metrics["generator/statistics_norm"] = optax.tree.norm(stats)
        for player, gradient in grads.lazy.items():
            metrics[f"{player}/lazy_gradient_norm"] = optax.tree.norm(gradient)
        return (grads, stats, {name: metrics[name] for name in state.lazy}), metrics

    def apply(state: GANState, proposal: tuple[Gradients, Mapping, Metrics]) -> GANState:
        grads, stats, values = proposal

        def update(player: str, gradient: Params, opt: optax.OptState) -> tuple[Params, optax.OptState]:
            def by(gradient: Params, params: Params, opt: optax.OptState) -> tuple[Params, optax.OptState]:
                updates, opt = optimizers[player].update(gradient, opt, params)
                return optax.apply_updates(params, updates), opt

            params, opt = by(gradient, getattr(state, player)["params"], opt)
            if player not in lazy_terms:
                return params, opt
            # An update of its own: added to the gradient, a term k times as large in every kth step would
            # leave Adam's second moment no measure of either.
            return jax.lax.cond(
                state.step % lazy_terms[player].every == 0,
                by,
                lambda _, params, opt: (params, opt),
                grads.lazy[player],
                params,
                opt,
            )

        g_params, g_opt = update("generator", grads.generator, state.generator_optimizer)
        d_params, d_opt = update("discriminator", grads.discriminator, state.discriminator_optimizer)
        new_generator = {"params": g_params, **stats}
        return state._replace(
            generator=new_generator,
            discriminator={"params": d_params},
            generator_optimizer=g_opt,
            discriminator_optimizer=d_opt,
            ema=follow(state.ema, new_generator, state.step, ema_decay),
            lazy=values,
        )

    def init(key: jax.Array, batch: Batch) -> GANState:
        key, generator_key, discriminator_key = jax.random.split(key, 3)
        one = jax.tree.map(lambda x: x[:1], batch)
        rngs = {"params": generator_key, **streams(generator_key)}
        generator_variables = generator.init(rngs, one.condition, train=True)
        discriminator_params = discriminator.init(discriminator_key, one.condition, one.images)["params"]
        zero = jnp.zeros((), jnp.int32)
        return GANState(
            step=zero,
            skipped=zero,
            skipped_in_row=zero,
            key=key,
            generator=generator_variables,
            discriminator={"params": discriminator_params},
            generator_optimizer=optimizers["generator"].init(generator_variables["params"]),
            discriminator_optimizer=optimizers["discriminator"].init(discriminator_params),
            ema=jax.tree.map(jnp.copy, generator_variables),  # a copy: the step donates its state
            lazy={name: jnp.zeros(()) for term in lazy_terms.values() for name in term.names},
        )

    def predict(variables: Params, condition: jax.Array, keys: jax.Array) -> jax.Array:
        """Condition [N, ...], keys [N] -> images [N, S, S, C]; none depends on another."""

        def one(condition: jax.Array, key: jax.Array) -> jax.Array:
            return generator.apply(variables, condition[None], train=False, rngs=streams(key))[0]

        return jax.vmap(one)(condition, keys)

    def prepare(variables: Params, condition: jax.Array) -> Any:
        rngs = streams(jax.random.key(0))  # of no consequence
        _, made = generator.apply(variables, condition[:1], train=False, rngs=rngs, mutable=[PREPARED])
        return made

    def repaint(variables: Params, condition: jax.Array, images: jax.Array) -> jax.Array:
        return cast(jax.Array, generator.apply(variables, condition, images, method="repaint"))

    def score(images: jax.Array, batch: Batch) -> Metrics:
        """How near each image is to the real one of its condition; a label does not determine an image."""
        return {"ssim": losses.ssim_of_each(images, batch.images)} if batch.condition.ndim == 4 else {}

    return Task(
        init,
        skip_if_not_finite(propose, apply),
        predict=predict,
        inputs=lambda batch: batch.condition,
        score=score,
        predicts="images",
        repaint=repaint if kl else None,
        prepare=prepare,
        settle=settle.styles_of(generator) if kl else None,
    )


def _reads_styles(generator: nn.Module) -> bool:
    """Whether it has what training by `kl` calls; with a `style` of length 0 it reads nothing by that."""
    return all(hasattr(generator, name) for name in _OF_STYLES) and bool(getattr(generator, "style", True))


def adam(every: int, *, learning_rate: float, b1: float, b2: float) -> optax.GradientTransformation:
    """Adam for a player with a lazy term in every kth step, or with none (0).

    The player has k + 1 updates where others have k, so rate and momenta are those that come to the same
    over k steps (StyleGAN2, Appendix B): c = k / (k + 1).
    """
    c = every / (every + 1) if every else 1.0
    return optax.adam(c * learning_rate, b1=b1**c, b2=b2**c)
