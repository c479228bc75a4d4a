"""Tests that the towers of transformers are mmjax's: equal parameters and equal predictions."""

import jax
import numpy as np
import pytest

from mmjax.pretrained import weights
from mmjax.pretrained.backbones import bert_names, vit_names

pytestmark = [pytest.mark.reference, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_two_towers_predict_the_same(tmp_path):
    pytest.importorskip("transformers")
    import torch
    from versus import torch_steps, torch_towers
    from versus.cases import two_towers as case

    model, batch = case.make_model(), case.make_batches()[0]
    batch = jax.tree.map(lambda x: x[:2], batch)
    batch.lengths["text"][:] = 32, 5
    init = jax.jit(lambda key: model.init(key, batch, method="call_all_parts"))
    params = init(jax.random.key(0))["params"]
    net = torch_towers.TwoTowers(case.TASKS, case.PIXELS, case.WIDTH, case.HIDDEN, frozen=True)
    assert sum(p.numel() for p in net.parameters()) == sum(x.size for x in jax.tree.leaves(params))
    assert sum(p.requires_grad for p in net.parameters()) == 2 * len(case.TASKS)
    for modality, names in (("image", vit_names()), ("text", bert_names())):
        folder = tmp_path / modality
        getattr(net, modality).save_pretrained(folder)
        key = f"encoders_{modality}"
        params[key] = weights(folder, names).apply(params[key])
    for task, head in net.heads.items():
        (ours,) = params[f"heads_{task}"].values()
        head.weight.data = torch.tensor(np.asarray(ours["kernel"]).T)
        head.bias.data = torch.tensor(np.asarray(ours["bias"]))
    expected = model.apply({"params": params}, *batch[:3], train=False)
    for task, prediction in net(torch_steps.convert_to_tensors([batch])[0]).items():
        np.testing.assert_allclose(prediction.detach().cpu(), expected[task], rtol=1e-3, atol=1e-4)
