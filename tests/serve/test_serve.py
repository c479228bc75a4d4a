"""A served model answers as `predict` does, and refuses every other request with a message."""

import io
import json

import numpy as np
import pytest

from mmjax import encoders, fusion, heads
from mmjax.data.dataset import Modality, Preparation, Task
from mmjax.data.kinds import Image, Numbers, Text
from mmjax.data.spec import Spec
from mmjax.model import Model
from mmjax.runs.trained import Trained

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

MAX_BYTES = 50_000


@pytest.fixture(scope="module")
def trained():
    """A model of a table with numbers, notes and photos, with its initial parameters."""
    import jax

    spec = Spec(
        "pets",
        {
            "body": Modality((2,)),
            "note": Modality((4,), True, ("padding", "unknown", "purrs", "barks")),
            "photo": Modality((4, 4, 3)),
        },
        {
            "kind": Task("classification", ("cat", "dog")),
            "age": Task("regression", unit="years"),
        },
        {
            "body": Preparation(Numbers(("weight", "height"))),
            "note": Preparation(
                Text("note", level="word"),
                {"words": {"purrs": 2, "barks": 3}},
                "int32",
            ),
            "photo": Preparation(Image("file", size=(4, 4), channels=3), dtype="uint8"),
        },
    )
    model = Model(
        encoders={
            "body": encoders.MLPEncoder((4,)),
            "note": encoders.TextEncoder(4, 4, encoders.RecurrentEncoder(width=4)),
            "photo": encoders.MLPEncoder((4,)),
        },
        fusion=fusion.Concat(),
        heads={"kind": heads.Classification(2), "age": heads.Regression(mean=3.0, scale=2.0)},
    )
    inputs = {
        "body": np.ones((2, 2), np.float32),
        "note": np.ones((2, 4), np.int32),
        "photo": np.ones((2, 4, 4, 3), np.uint8),
    }
    present = dict.fromkeys(inputs, np.ones(2, bool))
    lengths = {"note": np.full(2, 3, np.int32)}
    variables = model.init(jax.random.key(0), inputs, present, lengths, train=False)
    return Trained(model, spec, (0,), jax.device_get(variables), "float32", 32, lambda: None)


@pytest.fixture(scope="module")
def client(trained):
    from fastapi.testclient import TestClient

    from mmjax.serve import make_app

    return TestClient(make_app(trained, max_examples=3, max_bytes=MAX_BYTES))


def make_png():
    from PIL import Image as Pillow

    pixels = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    Pillow.fromarray(pixels).save(content := io.BytesIO(), "PNG")
    return content.getvalue()


def test_health_and_interface(client):
    assert client.get("/health").json() == {"status": "ok"}
    interface = client.get("/spec").json()
    assert interface["columns"]["file"] == {"modality": "photo", "file": True, "shape": "4 x 4 x 3"}
    assert interface["tasks"]["age"] == {"kind": "regression", "classes": [], "unit": "years"}
    assert interface["max_examples"] == 3


@pytest.mark.filterwarnings("ignore:column .* is missing")
def test_examples_in_json_are_predicted(client, trained):
    examples = [
        {"weight": 3, "height": 0.5, "note": "purrs"},
        {"weight": 3.5, "height": 0.25},
        {"note": None},
    ]
    reply = client.post("/predict", json={"examples": examples})
    assert reply.status_code == 200
    columns = {n: [x.get(n) for x in examples] for n in ("weight", "height", "note")}
    expected = trained.predict(columns)
    predictions = reply.json()["predictions"]
    for i in range(2):
        assert predictions[i]["kind/prediction"] == expected["kind"].names[i]
        assert predictions[i]["age/prediction"] == pytest.approx(expected["age"].values[i], 1e-5)
    assert predictions[2]["kind/prediction"] is None and predictions[2]["age/prediction"] is None
    assert "without modality 'photo'" in reply.json()["warnings"][0]


@pytest.mark.filterwarnings("ignore:column .* is missing")
def test_a_form_with_a_file_is_one_example(client, trained, tmp_path):
    (tmp_path / "pet.png").write_bytes(make_png())
    reply = client.post(
        "/predict", data={"note": "barks"}, files={"file": ("../../evil.png", make_png())}
    )
    assert reply.status_code == 200, reply.text
    expected = trained.predict({"note": ["barks"], "file": [str(tmp_path / "pet.png")]})
    (prediction,) = reply.json()["predictions"]
    assert prediction["age/prediction"] == pytest.approx(expected["age"].values[0], 1e-5)


REQUESTS = {
    "no JSON": (b"{", 400, "not JSON"),
    "deep JSON": (b"[" * 40_000, 400, "not JSON"),
    "a list": ([1], 422, "must be"),
    "another key": ({"examples": [{}], "path": "x"}, 422, "must be"),
    "no examples": ({"examples": []}, 422, "no examples"),
    "no columns": ({"examples": [{}]}, 422, "every example is empty"),
    "no objects": ({"examples": [1]}, 422, "list of objects"),
    "too many": ({"examples": [{"note": "x"}] * 4}, 413, "at most 3"),
    "too large": (b"x" * (MAX_BYTES + 1), 413, "larger than"),
    "an unknown column": (
        {"examples": [{"nose": 1}]},
        422,
        "'nose' is unknown; the columns are body",
    ),
    "some columns": ({"examples": [{"weight": 1}]}, 422, "column 'height'"),
    "a text as a number": ({"examples": [{"weight": "big", "height": 1}]}, 422, "row 0"),
    "an object as a number": ({"examples": [{"weight": {"a": 1}, "height": 1}]}, 422, "row 0"),
    "an infinite number": (
        b'{"examples": [{"weight": 1e999, "height": 1}]}',
        422,
        "row 0",
    ),
    "a path": ({"examples": [{"file": "/etc/passwd"}]}, 422, "multipart/form-data"),
    "paths": ({"examples": [{"file": ["/etc/passwd"]}]}, 422, "multipart/form-data"),
    "the modality of a path": ({"examples": [{"photo": "/etc/passwd"}]}, 422, "'photo' is unknown"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_other_requests_are_refused_with_a_message(client, name):
    content, status, message = REQUESTS[name]
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    reply = client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == status, reply.text
    assert message in reply.json()["detail"]


def test_other_forms_are_refused_with_a_message(client):
    def refuse(status, message, **options):
        reply = client.post("/predict", **options)
        assert reply.status_code == status, reply.text
        assert message in reply.json()["detail"]
        assert "/tmp" not in reply.text

    np.save(pickled := io.BytesIO(), np.array([{}], object), allow_pickle=True)
    refuse(422, "not a .npy array", files={"weight": ("x.npy", pickled.getvalue())})
    refuse(422, "not a whole image", files={"file": ("x.png", make_png()[:45])})
    refuse(422, "column 'files' is unknown", files={"files": ("x.png", make_png())})
    refuse(422, "holds files", data={"file": "/etc/passwd"}, files={"note": ("x", b"")})
    refuse(400, "multipart", content=b"x", headers={"content-type": "multipart/form-data"})
    refuse(415, "send application/json", content=b"x", headers={"content-type": "text/plain"})
    twice = [("file", ("a.png", make_png())), ("file", ("b.png", make_png()))]
    refuse(422, "comes twice", files=twice)
