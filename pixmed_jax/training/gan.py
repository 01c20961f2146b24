"""Adversarial training of a generator, conditioned on masks or on a label (paper, Section 3.3, Eq. 1-3).

Both players are updated at once from the same parameters. The discriminator runs over the generated images
once: its one forward pass is differentiated twice, with the cotangent of its own loss for its parameters and
with that of the generator's loss for the images.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from pixmed_jax import losses
from pixmed_jax.data.augment import seen_by_discriminator
from pixmed_jax.data.augment_settings import Settings, check_discriminator
from pixmed_jax.data.pipeline import Batch
from pixmed_jax.errors import PixmedError
from pixmed_jax.training.task import Metrics, Task, skip_if_not_finite

Params = Any


class GANState(NamedTuple):
    step: jax.Array
    skipped: jax.Array
    skipped_in_row: jax.Array
    key: jax.Array
    generator: Params  # {"params", "batch_stats"?}
    discriminator: Params  # {"params"}; what else its init makes, running averages, nobody reads
    generator_optimizer: optax.OptState
    discriminator_optimizer: optax.OptState
    ema: Params  # running average of `generator`, statistics included: what samples


def make_task(
    generator: nn.Module,
    discriminator: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    gan: str = "bce",
    bce: str = "adversarial",
    ssim: float = 1.0,
    l1: float = 0.0,
    mse: float = 0.0,
    ema_decay: float = 0.999,
    accumulate: int = 1,
    augment_discriminator: Settings | None = None,
    axis_name: str | None = None,
) -> Task:
    """Task of a generator `(condition, train, noise) -> images` against `(condition, images) -> logits`.

    gan: what both players make of the discriminator's logits, a name in `losses.ADVERSARIAL`.
    bce: what the generator minimises: "adversarial" (that loss), "pixel" (BCE of images), "both" or "none".
    ssim, l1, mse: weights of 1 - SSIM, L1 and MSE beside it; a term of weight 0 is not computed.
    accumulate: the batch is cut into so many equal parts whose gradients are averaged into one update. Batch
        norm then sees one part at a time, so its statistics are those of batch / accumulate images.
    augment_discriminator: what the discriminator sees, real or generated, is augmented by these settings.
    axis_name: for use under `jax.pmap`; gradients, statistics and metrics are averaged over that axis.
    """
    if bce not in ("adversarial", "pixel", "both", "none"):
        raise PixmedError(f"loss.bce={bce!r} is unknown; use one of adversarial, pixel, both, none")
    if gan not in losses.ADVERSARIAL:
        raise PixmedError(f"loss.gan={gan!r} is unknown; use one of {', '.join(losses.ADVERSARIAL)}")
    check_discriminator(augment_discriminator, "train.augment_discriminator")
    discriminator_loss, generator_loss = losses.ADVERSARIAL[gan]
    adversarial = bce in ("adversarial", "both")

    def image_loss(generated: jax.Array, real: jax.Array) -> tuple[jax.Array, Metrics]:
        terms = {
            "pixel_bce": (float(bce in ("pixel", "both")), losses.pixel_bce),
            "1-ssim": (ssim, lambda a, b: 1 - losses.ssim(a, b)),
            "l1": (l1, losses.l1),
            "mse": (mse, losses.mse),
        }
        values = {name: f(generated, real) for name, (weight, f) in terms.items() if weight}
        total = sum((terms[name][0] * value for name, value in values.items()), jnp.zeros(()))
        return total, {f"generator/{name}": value for name, value in values.items()}

    def gradients(
        state: GANState, stats: Mapping, batch: Batch, key: jax.Array
    ) -> tuple[tuple[Params, Params], Mapping, Metrics]:
        """((generator's, discriminator's) gradients, the generator's new statistics, metrics) of one part."""

        def generate(params: Params) -> tuple[jax.Array, Mapping]:
            return generator.apply(
                {"params": params, **stats},
                batch.condition,
                train=True,
                rngs=_streams(key),
                mutable=["batch_stats"],
            )

        def discriminate(params: Params, images: jax.Array) -> jax.Array:
            # Batch norm writes running averages that nobody reads; they are dropped here.
            images, condition = seen_by_discriminator(images, batch.condition, key, augment_discriminator)
            logits, _ = discriminator.apply({"params": params}, condition, images, mutable=["batch_stats"])
            return logits

        fake, pull_generator, stats = jax.vjp(generate, state.generator["params"], has_aux=True)
        params = state.discriminator["params"]
        fake_logits, pull_discriminator = jax.vjp(discriminate, params, fake)

        loss_fake, cotangent = jax.value_and_grad(discriminator_loss)(fake_logits, False)
        discriminator_gradient, _ = pull_discriminator(cotangent)
        loss_real, real_gradient = jax.value_and_grad(
            lambda params: discriminator_loss(discriminate(params, batch.images), True)
        )(params)
        discriminator_gradient = jax.tree.map(
            lambda a, b: (a + b) / 2, discriminator_gradient, real_gradient
        )  # the half of pix2pix, Section 3.3: slows the discriminator relative to the generator

        (_, parts), fake_gradient = jax.value_and_grad(image_loss, has_aux=True)(fake, batch.images)
        loss_adversarial, cotangent = jax.value_and_grad(generator_loss)(fake_logits)
        if adversarial:
            fake_gradient = fake_gradient + pull_discriminator(cotangent)[1]
        (generator_gradient,) = pull_generator(fake_gradient)

        metrics = {
            "generator/adversarial": loss_adversarial,
            **parts,
            "discriminator/real": loss_real,
            "discriminator/fake": loss_fake,
        }
        return (generator_gradient, discriminator_gradient), stats, metrics

    def accumulated(state: GANState, batch: Batch, key: jax.Array) -> tuple[Any, Mapping, Metrics]:
        stats = {name: value for name, value in state.generator.items() if name != "params"}
        if accumulate == 1:
            return gradients(state, stats, batch, key)
        parts = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), batch)
        keys = jax.random.split(key, accumulate)

        def body(carry: tuple, part: tuple[Batch, jax.Array]) -> tuple[tuple, None]:
            sums, stats = carry
            new, stats, metrics = gradients(state, stats, *part)
            return (jax.tree.map(jnp.add, sums, (new, metrics)), stats), None

        shapes = jax.eval_shape(lambda: gradients(state, stats, jax.tree.map(lambda x: x[0], parts), key))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (shapes[0], shapes[2]))
        (sums, stats), _ = jax.lax.scan(body, (zeros, stats), (parts, keys))
        means, metrics = jax.tree.map(lambda x: x / accumulate, sums)
        return means, stats, metrics

    def propose(state: GANState, batch: Batch) -> tuple[Any, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        grads, stats, metrics = accumulated(state, batch, key)
        if axis_name is not None:
            grads, stats, metrics = jax.lax.pmean((grads, stats, metrics), axis_name)
        metrics["generator/gradient_norm"] = optax.tree.norm(grads[0])
        metrics["discriminator/gradient_norm"] = optax.tree.norm(grads[1])
        metrics["generator/statistics_norm"] = optax.tree.norm(stats)
        return (grads, stats), metrics

    def apply(state: GANState, proposal: tuple[tuple[Params, Params], Mapping]) -> GANState:
        grads, stats = proposal

        def update(variables: Params, gradient: Params, opt: optax.OptState) -> tuple[Params, optax.OptState]:
            updates, opt = optimizer.update(gradient, opt, variables["params"])
            return optax.apply_updates(variables["params"], updates), opt

        g_params, g_opt = update(state.generator, grads[0], state.generator_optimizer)
        d_params, d_opt = update(state.discriminator, grads[1], state.discriminator_optimizer)
        new_generator = {"params": g_params, **stats}
        # A young average follows quickly, or the random start would show for 1 / (1 - decay) steps.
        decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
        return state._replace(
            generator=new_generator,
            discriminator={"params": d_params},
            generator_optimizer=g_opt,
            discriminator_optimizer=d_opt,
            ema=optax.incremental_update(new_generator, state.ema, 1 - decay),
        )

    def init(key: jax.Array, batch: Batch) -> GANState:
        key, generator_key, discriminator_key = jax.random.split(key, 3)
        one = jax.tree.map(lambda x: x[:1], batch)
        rngs = {"params": generator_key, **_streams(generator_key)}
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
            generator_optimizer=optimizer.init(generator_variables["params"]),
            discriminator_optimizer=optimizer.init(discriminator_params),
            ema=jax.tree.map(jnp.copy, generator_variables),  # a copy: the step donates its state
        )

    def predict(variables: Params, condition: jax.Array, keys: jax.Array) -> jax.Array:
        """Condition [N, S, S, K] or [N, K], keys [N] -> images [N, S, S, C]; none depends on another."""

        def one(condition: jax.Array, key: jax.Array) -> jax.Array:
            return generator.apply(variables, condition[None], train=False, rngs=_streams(key))[0]

        return jax.vmap(one)(condition, keys)

    def score(images: jax.Array, batch: Batch) -> Metrics:
        """How near each image is to the real one of its mask; a label does not determine an image."""
        return {"ssim": losses.ssim_of_each(images, batch.images)} if batch.condition.ndim == 4 else {}

    return Task(
        init,
        skip_if_not_finite(propose, apply),
        predict=predict,
        inputs=lambda batch: batch.condition,
        score=score,
        predicts="images",
    )


def _streams(key: jax.Array) -> dict[str, jax.Array]:
    """The random streams of a generator: where it drops features, and its latent vector and noise maps."""
    return {"dropout": key, "noise": jax.random.fold_in(key, 1)}
