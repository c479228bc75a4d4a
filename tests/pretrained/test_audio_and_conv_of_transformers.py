"""Audio encoders, convolutional networks and token tables equal the libraries they come from."""

import functools
import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import RecurrentEncoder
from mmjax.masks import pad_ragged
from mmjax.pretrained import backbones, weights
from mmjax.pretrained.backbones import ConvNeXt, ResNet, Wav2Vec2, WhisperEncoder, token_table
from mmjax.pretrained.renaming import recurrent_names
from tests.pretrained.test_backbones_of_transformers import (
    make_images,
    normalize_for_torch,
    save_model,
)

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore")]

WAVES = np.random.default_rng(0).normal(0.5, 2.0, (3, 400)).astype(np.float32)
WAVE_LENGTHS = np.array([400, 333, 61])
FRAMES = np.random.default_rng(1).normal(size=(3, 40, 10)).astype(np.float32)


def load_variables(encoder, names, path, *x):
    """Fills all variables from a file; `weights` refuses what does not fit or stays empty."""
    init = functools.partial(encoder.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), *x)
    empty = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return {name: weights(path, names).apply(tree, name) for name, tree in empty.items()}


def apply(encoder, variables, *x):
    return jax.jit(functools.partial(encoder.apply, train=False))(variables, *x)


def assert_close(values, expected):
    """Compares relative to the largest entry."""
    expected = expected.detach().numpy() if hasattr(expected, "detach") else np.asarray(expected)
    assert values.shape == expected.shape
    np.testing.assert_allclose(
        values / np.abs(expected).max(), expected / np.abs(expected).max(), atol=1e-5
    )


def list_pixels(maps):
    """Brings a map of PyTorch [b c h w] into the order of tokens [b n c]."""
    return maps.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
@pytest.mark.parametrize("size, batch", [((37, 50), 3), ((16, 17), 1)])
def test_resnet_with_its_statistics(tmp_path, kind, size, batch):
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    widths = (8, 16, 24)
    config = ResNetConfig(
        embedding_size=6, hidden_sizes=list(widths), depths=[2, 1, 3], layer_type=kind
    )
    model = ResNetForImageClassification(config).train()
    model(torch.randn(4, 3, 40, 40))  # moves the running averages
    model = save_model(model, tmp_path).resnet
    encoder = ResNet((2, 1, 3), widths, kind == "bottleneck", stem=6, output="all")
    images = make_images(size, "uint8", batch)
    variables = load_variables(encoder, backbones.resnet_names(), tmp_path, jnp.asarray(images))
    result = model(normalize_for_torch(images, encoder))
    assert_close(apply(encoder, variables, images).values, list_pixels(result.last_hidden_state))
    mean = apply(encoder.clone(output="mean", norm="frozen"), variables, images).values[:, 0]
    assert_close(mean, result.pooler_output[:, :, 0, 0])


def test_batch_norm_in_training_normalizes_as_torch_does(tmp_path):
    from transformers import ResNetConfig, ResNetModel

    sizes = {"embedding_size": 6, "hidden_sizes": [8, 16], "depths": [1, 2]}
    model = save_model(ResNetModel(ResNetConfig(**sizes, layer_type="basic")), tmp_path).train()
    encoder = ResNet((1, 2), (8, 16), stem=6)
    images = jnp.asarray(make_images((37, 50), "float32"))
    variables = load_variables(encoder, backbones.resnet_names(), tmp_path, images)
    call = functools.partial(encoder.apply, train=True, mutable=["batch_stats"])
    tokens, updated = jax.jit(call)(variables, images)
    result = model(normalize_for_torch(np.asarray(images), encoder))
    assert_close(tokens.values[:, 0], result.pooler_output[:, :, 0, 0])
    stem = updated["batch_stats"]["stem"]["norm"]
    norm = model.embedder.embedder.normalization
    assert_close(stem["mean"], norm.running_mean)
    # PyTorch averages the unbiased variance: of 3 * 19 * 25 pixels here.
    count = 3 * 19 * 25
    unbiased = (stem["var"] - 0.9) * count / (count - 1) + 0.9
    assert_close(unbiased, norm.running_var)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("size, batch", [((37, 50), 3), ((16, 17), 1)])
def test_convnext(tmp_path, version, size, batch):
    import transformers

    prefix = {1: "ConvNext", 2: "ConvNextV2"}[version]
    config = getattr(transformers, f"{prefix}Config")(
        hidden_sizes=[8, 12, 16], depths=[2, 1, 3], num_stages=3
    )
    model = getattr(transformers, f"{prefix}ForImageClassification")(config)
    model = getattr(save_model(model, tmp_path), prefix.lower())
    encoder = ConvNeXt((2, 1, 3), (8, 12, 16), response_norm=version == 2)
    images = make_images(size, "float32", batch)
    variables = load_variables(encoder, backbones.convnext_names(), tmp_path, jnp.asarray(images))
    result = model(normalize_for_torch(images, encoder))
    assert_close(apply(encoder, variables, images).values[:, 0], result.pooler_output)
    pixels = apply(encoder.clone(output="all"), variables, images).values
    assert_close(pixels, model.layernorm(list_pixels(result.last_hidden_state)))


WAVE_MODELS = {
    "base": ("Wav2Vec2Model", {"num_conv_pos_embeddings": 8}),
    "large": (
        "Wav2Vec2ForCTC",
        {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True},
    ),
    "hubert base": ("HubertModel", {"num_conv_pos_embeddings": 7}),
    "hubert without a norm before the projection": (
        "HubertModel",
        {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "feat_proj_layer_norm": False},
    ),
}


def save_wave_model(name, folder):
    """Returns (model, encoder, variables) of one row of the table."""
    import transformers

    kind, options = WAVE_MODELS[name]
    family = "Hubert" if kind.startswith("Hubert") else "Wav2Vec2"
    config = getattr(transformers, f"{family}Config")(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=24,
        conv_dim=(8, 8, 8),
        conv_kernel=(10, 3, 2),
        conv_stride=(5, 2, 2),
        num_conv_pos_embedding_groups=2,
        **{"num_conv_pos_embeddings": 8, **options},
    )
    model = save_model(getattr(transformers, kind)(config), folder)
    encoder = Wav2Vec2(
        16,
        3,
        4,
        24,
        (8, 8, 8),
        (10, 3, 2),
        (5, 2, 2),
        conv_norm=config.feat_extract_norm,
        conv_bias=config.conv_bias,
        projection_norm=getattr(config, "feat_proj_layer_norm", True),
        position_kernel=config.num_conv_pos_embeddings,
        position_groups=2,
        pre_norm=config.do_stable_layer_norm,
        output="all",
    )
    variables = load_variables(encoder, backbones.wav2vec2_names(), folder, jnp.asarray(WAVES))
    return getattr(model, family.lower(), model), encoder, variables


@pytest.mark.parametrize("name", WAVE_MODELS)
def test_waveforms_of_different_lengths_are_those_alone(tmp_path, name):
    from transformers import Wav2Vec2FeatureExtractor

    model, encoder, variables = save_wave_model(name, tmp_path)
    spoilt = np.where(np.arange(400) < WAVE_LENGTHS[:, None], WAVES, 1e3).astype(np.float32)
    values, mask = apply(encoder, variables, spoilt, jnp.asarray(WAVE_LENGTHS))
    prepare = Wav2Vec2FeatureExtractor(do_normalize=True)
    for i, length in enumerate(WAVE_LENGTHS):
        inputs = prepare(WAVES[i, :length], sampling_rate=16000, return_tensors="pt")
        expected = model(inputs.input_values).last_hidden_state
        count = expected.shape[1]
        assert mask[i].sum() == count
        assert_close(values[i : i + 1, :count], expected)
        alone = apply(encoder, variables, WAVES[i : i + 1, :length]).values
        assert_close(alone, expected)


def test_padding_is_masked_as_by_the_models_that_were_trained_so(tmp_path):
    """Models with layer norms get an attention mask, so a batch of theirs is comparable too."""
    from transformers import Wav2Vec2FeatureExtractor

    model, encoder, variables = save_wave_model("large", tmp_path)
    waves = [wave[:length] for wave, length in zip(WAVES, WAVE_LENGTHS, strict=True)]
    options = {"padding": True, "return_attention_mask": True, "return_tensors": "pt"}
    inputs = Wav2Vec2FeatureExtractor()(waves, sampling_rate=16000, **options)
    expected = model(inputs.input_values, attention_mask=inputs.attention_mask).last_hidden_state
    values, mask = apply(encoder, variables, WAVES, jnp.asarray(WAVE_LENGTHS))
    real = np.asarray(mask)[:, :, None]
    assert_close(np.where(real, values, 0), np.where(real, expected.detach(), 0))


def test_names_of_weight_norm_in_files_of_older_versions(tmp_path):
    from safetensors.numpy import load_file, save_file

    model, encoder, variables = save_wave_model("base", tmp_path)
    del model
    arrays = load_file(tmp_path / "model.safetensors")
    prefix = "encoder.pos_conv_embed.conv."
    for i, old in enumerate(("weight_g", "weight_v")):
        arrays[prefix + old] = arrays.pop(f"{prefix}parametrizations.weight.original{i}")
    save_file(arrays, tmp_path / "old.safetensors")
    names = backbones.wav2vec2_names()
    old = load_variables(encoder, names, tmp_path / "old.safetensors", jnp.asarray(WAVES))
    jax.tree.map(np.testing.assert_array_equal, old, variables)


def test_the_gradient_of_a_waveform_encoder(tmp_path):
    import torch

    model, encoder, variables = save_wave_model("base", tmp_path)
    encoder = encoder.clone(standardize=False)
    model(torch.as_tensor(WAVES)).last_hidden_state.sin().sum().backward()

    def loss(params):
        return jnp.sin(
            encoder.apply({"params": params}, jnp.asarray(WAVES), train=False).values
        ).sum()

    gradient = jax.jit(jax.grad(loss))(variables["params"])
    conv, layer = model.feature_extractor.conv_layers[0].conv, model.encoder.layers[1]
    assert_close(gradient["conv_0"]["kernel"], conv.weight.grad.permute(2, 1, 0))
    dense = layer.feed_forward.intermediate_dense
    assert_close(gradient["layers"]["mlp_in"]["kernel"][1], dense.weight.grad.T)
    position = model.encoder.pos_conv_embed.conv.parametrizations.weight
    assert_close(gradient["positions"]["gain"], position.original0.grad.permute(2, 1, 0))
    assert_close(gradient["positions"]["direction"], position.original1.grad.permute(2, 1, 0))


@pytest.mark.parametrize("kind", ["WhisperModel", "WhisperForConditionalGeneration"])
def test_whisper(tmp_path, kind):
    import torch
    import transformers

    sizes = {"d_model": 16, "encoder_layers": 3, "encoder_attention_heads": 4, "decoder_layers": 1}
    sizes |= {"encoder_ffn_dim": 64, "decoder_attention_heads": 4, "decoder_ffn_dim": 8}
    sizes |= {"vocab_size": 20, "max_target_positions": 5, "pad_token_id": 0, "bos_token_id": 1}
    config = transformers.WhisperConfig(**sizes, num_mel_bins=10, max_source_positions=20)
    model = getattr(transformers, kind)(config)
    encoder = WhisperEncoder(16, 3, 4, 20, output="all")
    call = functools.partial(encoder.init, train=False)
    initial = jax.jit(call)(jax.random.key(0), FRAMES)["params"]["positions"]
    whole = model.get_encoder()
    assert_close(initial, whole.embed_positions.weight)
    save_model(model, tmp_path)
    variables = load_variables(encoder, backbones.whisper_names(), tmp_path, jnp.asarray(FRAMES))
    expected = whole(torch.as_tensor(FRAMES.transpose(0, 2, 1))).last_hidden_state
    assert_close(apply(encoder, variables, FRAMES).values, expected)
    # transformers takes the full length only, so a model with fewer positions has the truth.
    length = np.array([40, 18, 6])
    spoilt = np.where(np.arange(40)[:, None] < length[:, None, None], FRAMES, 1e3)
    values, mask = apply(encoder, variables, spoilt.astype(np.float32), jnp.asarray(length))
    np.testing.assert_array_equal(mask.sum(axis=1), [20, 9, 3])
    for i in (1, 2):
        tokens = int(length[i]) // 2
        whole.config.max_source_positions = tokens
        table = torch.nn.Embedding.from_pretrained(whole.embed_positions.weight[:tokens])
        shorter = whole.embed_positions
        whole.embed_positions = table
        cut = torch.as_tensor(FRAMES[i : i + 1, : length[i]].transpose(0, 2, 1))
        assert_close(values[i : i + 1, :tokens], whole(cut).last_hidden_state)
        whole.embed_positions = shorter


def test_wordllama_gives_the_sentence_embeddings_of_its_package():
    package = importlib.util.find_spec("wordllama")
    if package is None:
        pytest.skip("wordllama is not installed")
    from wordllama import WordLlama

    from mmjax.data.load.subwords import encode_subwords, read_tokenizer_file

    folder = Path(package.origin).parent
    texts = ["A cat sat on the mat.", "Stocks fell.", "x", "Zürich, 東京 and naïve façades!"]
    reference = WordLlama.load(cache_dir=folder, disable_download=True)
    file = folder / "tokenizers" / "l2_supercat_tokenizer_config.json"
    # The package leaves out the special token that the file would put before a text.
    tokenizer = json.dumps({**json.loads(read_tokenizer_file(file)), "post_processor": None})
    rows = [encode_subwords(text, tokenizer, longest=64) for text in texts]
    lengths = jnp.array(list(map(len, rows)))
    ids = jnp.asarray(pad_ragged(rows, (max(map(len, rows)) + 3,), np.int32))
    path = folder / "weights" / "l2_supercat_256.safetensors"
    for normalize in (False, True):
        encoder = token_table(normalize=normalize)
        variables = load_variables(encoder, backbones.token_table_names(), path, ids, lengths)
        got = apply(encoder, variables, ids, lengths).values[:, 0]
        assert_close(got, reference.embed(texts, norm=normalize))


def test_the_speaker_encoder_of_resemblyzer(tmp_path):
    package = importlib.util.find_spec("resemblyzer")
    if package is None:
        pytest.skip("Resemblyzer is not installed")
    import torch
    from safetensors.torch import save_file

    checkpoint = torch.load(
        Path(package.origin).parent / "pretrained.pt", map_location="cpu", weights_only=True
    )
    state = checkpoint["model_state"]
    save_file(state, tmp_path / "speaker.safetensors")
    lstm = torch.nn.LSTM(40, 256, 3, batch_first=True)
    lstm.load_state_dict({k[5:]: v for k, v in state.items() if k.startswith("lstm.")})
    # The power in mel bands of quiet speech is far below 1, and never negative.
    x = np.random.default_rng(0).exponential(0.1, size=(3, 30, 40)).astype(np.float32)
    length = np.array([30, 17, 1])
    encoder = RecurrentEncoder(width=256, layers=3)
    init = functools.partial(encoder.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.asarray(x))["params"]
    params = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    others = ("linear.*", "similarity_*")
    file = weights(
        tmp_path / "speaker.safetensors", recurrent_names(), prefix="lstm.", allow=others
    )
    values = apply(encoder, {"params": file.apply(params)}, x, jnp.asarray(length)).values
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.as_tensor(x), length, batch_first=True)
    assert_close(values[:, 0], lstm(packed)[1][0][-1])
