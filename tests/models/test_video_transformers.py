"""VideoMAE, TimeSformer, ViViT and V-JEPA 2 against transformers: every stage, attention, gradients and conversion.

All parameters are random, including biases, norms and positions, whose usual zeros and ones would hide omissions.
Tolerances are relative to the maximum value at the stage.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from vtcav_jax import tap
from vtcav_jax.attribution import attribute
from vtcav_jax.models import hub, parameters
from vtcav_jax.models.vit import blocks
from weights_conversion.convert import match_parameters
from weights_conversion.key_mapping import FAMILIES, our_tensors
from weights_conversion.transformers_reference import run_with_stages, transformers_network

SIZES = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40, num_labels=3)
PREDICTOR = dict(pred_hidden_size=12, pred_num_attention_heads=2, pred_num_hidden_layers=1)
CONFIGS: dict[str, dict[str, Any]] = {
    "videomae": SIZES | dict(model_type="videomae", image_size=16, patch_size=4, num_frames=4),
    "videomae_without_biases": SIZES
    | dict(model_type="videomae", image_size=24, patch_size=8, num_frames=6, tubelet_size=3, qv_bias=False)
    | dict(layer_norm_eps=1e-3),
    "timesformer": SIZES | dict(model_type="timesformer", image_size=16, patch_size=4, num_frames=3),
    "timesformer_without_biases": SIZES
    | dict(model_type="timesformer", image_size=24, patch_size=8, num_frames=5, qkv_bias=False, layer_norm_eps=1e-3),
    "vivit": SIZES | dict(model_type="vivit", image_size=16, tubelet_size=(2, 4, 4), num_frames=4),
    "vivit_exact_gelu": SIZES
    | dict(model_type="vivit", image_size=24, tubelet_size=(1, 8, 8), num_frames=3, hidden_act="gelu")
    | dict(layer_norm_eps=1e-3, qkv_bias=False),
    "vjepa2": SIZES
    | PREDICTOR
    | dict(model_type="vjepa2", crop_size=16, patch_size=4, frames_per_clip=4, mlp_ratio=2.5, num_pooler_layers=2),
    # 16 channels per head, of which four are not rotated
    "vjepa2_unrotated_channels": SIZES
    | PREDICTOR
    | dict(model_type="vjepa2", hidden_size=32, crop_size=24, patch_size=8, frames_per_clip=6, num_pooler_layers=1)
    | dict(layer_norm_eps=1e-3, qkv_bias=False),
}


def randomised(network: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            is_table = any(part in name for part in ("token", "position_embeddings", "time_embeddings"))
            scale = 0.3 if parameter.ndim == 1 or is_table else parameter[0].numel() ** -0.5
            is_norm = "norm" in name and name.endswith("weight")
            parameter.normal_(1.0 if is_norm else 0.0, scale, generator=generator)
    return network


def load_pair(config: dict[str, Any], dtype=jnp.float32) -> tuple[Any, Any, np.ndarray]:
    """Return the network of transformers, ours with the same weights, and a random video."""
    network = randomised(transformers_network(config)).to(getattr(torch, jnp.dtype(dtype).name))
    make_network, clip = hub.network_maker(config)

    def maker() -> Any:
        return make_network(num_classes=3, dtype=dtype, rngs=nnx.Rngs(0))

    tensors = our_tensors(FAMILIES[make_network.func], {k: v.numpy() for k, v in network.state_dict().items()})
    model = parameters.load(maker, match_parameters(config["model_type"], nnx.eval_shape(maker), tensors))
    video = np.random.default_rng(2).normal(size=(2, *clip, 3)).astype(np.dtype(dtype))
    return network, model, video


def assert_close(ours: Any, theirs: torch.Tensor, stage: str, tolerance: float) -> None:
    expected = theirs.detach().numpy()
    assert ours.shape == expected.shape and ours.dtype == expected.dtype
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * np.abs(expected).max(), err_msg=stage)


def compare_stages(config: dict[str, Any], dtype: Any, tolerance: float) -> None:
    network, model, video = load_pair(config, dtype)
    stages = tap.stages_of(model)
    with torch.no_grad():
        their_logits, theirs = run_with_stages(network, torch.from_numpy(video), stages)
    logits, ours = tap.activations(model, jnp.asarray(video), stages)
    assert ours.keys() == theirs.keys() and len(stages) >= 4
    for stage in stages:
        assert_close(ours[stage], theirs[stage], stage, tolerance)
        assert ours[stage].ndim == (2 if stage in (stages[-1],) or stage.endswith("class_token") else 5)
    assert_close(logits, their_logits, "logits", tolerance)


NAMES = ("videomae", "timesformer", "vivit", "vjepa2")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_stage_in_float32(name):
    compare_stages(CONFIGS[name], jnp.float32, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_every_stage_in_float64(name, float64):
    compare_stages(CONFIGS[name], jnp.float64, 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_by_video_and_stages_in_float64(name, float64):
    network, model, video = load_pair(CONFIGS[name], jnp.float64)
    tensor = torch.from_numpy(video).requires_grad_()
    their_logits, _ = run_with_stages(network, tensor, ())
    (expected,) = torch.autograd.grad(their_logits[:, 1].sum(), tensor)
    gradient = jax.jit(jax.grad(lambda video, model: model(video)[:, 1].sum()))(jnp.asarray(video), model)
    assert_close(gradient, expected, "video", 1e-10)
    stages = tap.stages_of(model)
    gradients = tap.activations_and_gradients(model, jnp.asarray(video), [1, 1], stages).gradients
    assert all(np.abs(gradients[stage]).max() > 0 for stage in stages)
    if name in NAMES:
        recomputed = jax.jit(jax.grad(lambda video, model: model(video)[:, 1].sum()))
        model.remat = True
        assert_close(recomputed(jnp.asarray(video), model), expected, "video, recomputed blocks", 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_attention_weights_of_blocks(name):
    network, model, video = load_pair(CONFIGS[name])
    if name != "timesformer":
        network.set_attn_implementation("eager")
    tensor = torch.from_numpy(video).permute(0, 1, 4, 2, 3)
    with torch.no_grad():
        expected = network(tensor, output_attentions=True).attentions[1]
    _, values = tap.activations(model, jnp.asarray(video), [s for s in model.stages if s.startswith("encoder.layer.0")])
    x, block = values["encoder.layer.0"], model.encoder.layer[1]
    token = values.get("encoder.layer.0.class_token")
    if name == "timesformer":
        along_time, weights = block.attention_weights(token, x)
        b, t, h, w, _ = x.shape
        assert along_time.shape == (b, h, w, 2, t, t)
        np.testing.assert_allclose(along_time.sum(-1), 1, rtol=1e-5)
        # The branch is linear in the weights: they must give its output
        places = x.transpose(0, 2, 3, 1, 4).reshape(b * h * w, t, -1)
        _, _, v = block.temporal_attention.attention(block.temporal_layernorm(places))
        mixed = blocks.join_heads(jnp.einsum("bhnm,bhmd->bhnd", along_time.reshape(-1, 2, t, t), v))
        added = block.temporal_dense(block.temporal_attention.output(mixed)).reshape(b, h, w, t, -1)
        np.testing.assert_allclose(x + added.transpose(0, 3, 1, 2, 4), block.add_temporal_attention(x), atol=1e-5)
        weights = weights.reshape(b * t, *weights.shape[2:])
    elif name == "vjepa2":
        weights = block.attention_weights(x)
    else:
        tokens = x.reshape(len(x), -1, x.shape[-1])
        tokens = tokens if token is None else jnp.concatenate([token[:, None], tokens], 1)
        weights = block.attention_weights(tokens)
    assert_close(weights, expected, "attention", 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", [True, False])
@pytest.mark.parametrize("scores_per_piece", [10, 40, 200, 10_000])
def test_attention_in_pieces_equals_the_formula(scores_per_piece, cpu, monkeypatch):
    """Queries in padded pieces of one head (10, 40), groups of heads (200), and all at once."""
    monkeypatch.setattr(blocks, "SCORE_BYTES_PER_CHUNK" if cpu else "SCORE_BYTES_ON_ACCELERATOR", 4 * scores_per_piece)
    monkeypatch.setattr(blocks, "on_cpu", lambda: cpu)
    monkeypatch.setattr(blocks, "cores", lambda: 1)
    random = np.random.default_rng(0)
    q, k, v = (jnp.asarray(random.normal(size=(2, 3, n, 4)), jnp.float32) for n in (7, 9, 9))

    def formula(q, k, v):
        return jax.nn.softmax(q @ k.swapaxes(2, 3) / 2) @ v

    expected, expected_pullback = jax.vjp(formula, q, k, v)
    values, pullback = jax.vjp(blocks.attend, q, k, v)
    np.testing.assert_allclose(values, expected, atol=1e-5)
    for gradient, expected_gradient in zip(pullback(v[:, :, :7]), expected_pullback(v[:, :, :7])):
        np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5)


def test_the_backward_pass_of_attention_recomputes_only_the_scores():
    q, k = jnp.ones((1, 2, 5, 4)), jnp.ones((1, 2, 6, 4))
    gradient = jax.grad(lambda q, k, v: blocks.attend(q, k, v).sum(), argnums=(0, 1, 2))
    trace = str(jax.make_jaxpr(gradient)(q, k, k))
    assert trace.count("dot_general") == 2 + 1 + 4  # forward, scores, gradients of both products
    assert trace.count("reduce_max") == 1


def test_chunks_of_a_prime_number_of_tokens(monkeypatch):
    monkeypatch.setattr(blocks, "MLP_BYTES_PER_CHUNK", 4 * 4 * 3 * 5)  # 5 tokens
    monkeypatch.setattr(blocks, "cores", lambda: 1)
    x = jnp.arange(39.0).reshape(1, 13, 3)
    np.testing.assert_array_equal(blocks.in_token_chunks(lambda x: 2 * x + 1, x), 2 * x + 1)


@pytest.mark.slow
def test_a_class_token_reads_patches_that_are_steered():
    direction = np.random.default_rng(3).normal(size=24)
    for name in ("timesformer", "vivit"):
        _, model, video = load_pair(CONFIGS[name])
        steered = tap.steered_logits(model, jnp.asarray(video), "encoder.layer.0", direction, 0.5)
        assert np.abs(steered - model(jnp.asarray(video))).min() > 1e-4


@pytest.mark.parametrize("name", ["videomae", "timesformer", "vivit"])
def test_clips_of_another_size_are_an_error(name):
    _, model, video = load_pair(CONFIGS[name])
    with pytest.raises(ValueError, match=r"reads clips of \(\d, 16, 16\), got \(\d, 16, 12\); change frames and size"):
        model(jnp.asarray(video[:, :, :, :12]))


@pytest.mark.slow
def test_v_jepa_2_reads_other_sizes_but_no_broken_patches():
    network, model, video = load_pair(CONFIGS["vjepa2"])
    longer = np.concatenate([video, video[:, ::-1]], 1)
    with torch.no_grad():
        expected = network(torch.from_numpy(longer).permute(0, 1, 4, 2, 3)).logits
    assert_close(model(jnp.asarray(longer)), expected, "logits", 1e-5)
    assert model(jnp.asarray(video[:, :, :, :8])).shape == (2, 3)
    with pytest.raises(ValueError, match=r"divisible by a patch of \(2, 4, 4\), got a clip of \(4, 16, 15\)"):
        model(jnp.asarray(video[:, :, :, :15]))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_relevance_passes_every_operation(name):
    _, model, video = load_pair(CONFIGS[name])
    for method in ("attn_lrp", "gradient_x_input"):
        result = attribute(model, video, np.array([1, 2]), method)
        assert np.isfinite(result.map).all() and (np.abs(result.map).max((1, 2, 3)) > 0).all()
