"""Victims over HTTP: contracts, adapters and errors, by replies as recorded."""

import json
import time

import numpy as np
import pytest
from served import DIM, OUTPUTS, Counted, X, httpx

from recon import service
from recon.oracles import View
from recon.replies import ReplyError
from recon.victims.brought import web

URL = "http://service.test/models"
TOP = View(explanation="top")


def mocked(handler, **how):
    """An oracle of web whose requests go to handler(path, JSON) -> JSON or an httpx.Response."""

    def transport(request):
        reply = handler(request.url.path, json.loads(request.content))
        return reply if isinstance(reply, httpx.Response) else httpx.Response(200, json=reply)

    client = httpx.Client(transport=httpx.MockTransport(transport))
    return web.oracle(how.pop("url", URL), client=client, **how)


# --- contracts


def test_the_contract_is_as_documented():
    asked = []

    def handler(path, request):
        asked.append((path, request))
        x = np.array(request["inputs"])
        reply = {"values": x[:, :2].tolist(), "outputs": "logits"}
        if request.get("explain", True):
            reply["explanations"] = np.repeat(np.eye(2, DIM)[None], len(x), 0).tolist()
        return reply

    oracle = mocked(handler)
    value, gradient = oracle(X)
    assert value.dtype == gradient.dtype == np.float64
    assert np.array_equal(value, X[:, :2])
    assert np.array_equal(gradient, np.repeat(np.eye(2, DIM)[None], 5, 0))
    assert np.array_equal(oracle.values(X), X[:, :2])
    assert asked == [
        ("/models", {"inputs": X.tolist()}),
        ("/models", {"inputs": X.tolist(), "explain": False}),
    ]
    few = mocked(handler, most_rows=2)
    assert np.array_equal(few(X).value, X[:, :2])
    assert [len(request["inputs"]) for _, request in asked[2:]] == [2, 2, 1]
    assert np.array_equal(mocked(handler, most_rows=2).values(X), X[:, :2])


@pytest.mark.parametrize(
    ("view", "reply", "shapes"),
    [
        (View("label", "none"), {"values": [0, 1, 2, 0, 1]}, ((5, 1), None)),
        (View("none", "top"), {"explanations": X.tolist()}, (None, (5, DIM))),
        (View(explanation="top"), {"values": [[1, 2]] * 5, "explanations": X.tolist()},
         ((5, 2), (5, DIM))),
    ],
)  # fmt: skip
def test_a_service_may_show_less(view, reply, shapes):
    got = mocked(lambda *_: reply, view=view)(X)
    assert tuple(None if a is None else a.shape for a in got) == shapes


def torchserve(path, request):
    """As a handler with Captum answers: one target at a time, rows as pictures of 2 by 4."""
    x = np.array([each["data"] for each in request["instances"]])
    if path == "/predictions/net":
        return {"predictions": np.float32(x[:, :OUTPUTS]).tolist()}
    assert path == "/explanations/net"
    targets = [each.get("target", 0) for each in request["instances"]]
    assert len({*targets}) == 1
    return np.eye(DIM)[targets].reshape(-1, 2, DIM // 2).tolist()


def test_torchserve_is_asked_once_for_each_output():
    asked, wrapped = [], False

    def handler(path, request):
        asked.append(path)
        reply = torchserve(path, request)
        return {"explanations": reply} if wrapped and path != "/predictions/net" else reply

    for each in (False, True):
        asked.clear()
        wrapped = each
        oracle = mocked(handler, url="http://t.test/explanations/net", contract="torchserve")
        value, gradient = oracle(X)
        assert np.array_equal(value, np.float32(X[:, :OUTPUTS]))
        assert np.array_equal(gradient, np.repeat(np.eye(OUTPUTS, DIM)[None], 5, 0))
        assert asked == ["/predictions/net"] + ["/explanations/net"] * OUTPUTS
        assert np.array_equal(oracle.values(X), value)
        assert asked[-1] == "/predictions/net"
    top = mocked(torchserve, url="http://t.test/explanations/net", contract="torchserve", view=TOP)
    assert np.array_equal(top(X).gradient, np.eye(DIM)[[0] * 5])


def vertex(path, request, outputs=(2, 0, 1), features=("x",)):
    """As an endpoint with topK = 3 answers: attributions from the largest output down."""
    assert path == "/v1/endpoints/7:explain"
    n = len(request["instances"])
    attributions = [
        {
            "baselineOutputValue": 0.1,
            "instanceOutputValue": 0.7,
            "outputIndex": [k],
            "outputName": "logits",
            "approximationError": 0.002,
            "featureAttributions": {name: np.eye(DIM)[k].tolist() for name in features},
        }
        for k in outputs
    ]
    return {
        "deployedModelId": "42",
        "predictions": np.array(request["instances"])[:, :OUTPUTS].tolist(),
        "explanations": [{"attributions": attributions}] * n,
    }


def test_vertex_attributions_are_put_in_the_order_of_the_outputs():
    how = {"url": "https://v.test/v1/endpoints/7:explain", "contract": "vertex"}
    value, gradient = mocked(vertex, **how)(X)
    assert np.array_equal(value, X[:, :OUTPUTS])
    assert np.array_equal(gradient, np.repeat(np.eye(OUTPUTS, DIM)[None], 5, 0))
    one = mocked(lambda *a: vertex(*a, outputs=(2,)), **how, view=TOP)
    assert np.array_equal(one(X).gradient, np.eye(DIM)[[2] * 5])
    with pytest.raises(ReplyError, match=r"outputs \[2\] alone"):
        mocked(lambda *a: vertex(*a, outputs=(2,)), **how)(X)
    with pytest.raises(ReplyError, match="2 named features"):
        mocked(lambda *a: vertex(*a, features=("age", "height")), **how)(X)
    paths = []
    other = mocked(lambda path, _: paths.append(path) or {"predictions": [[1.0]] * 5}, **how)
    assert other.values(X).shape == (5, 1)
    assert paths == ["/v1/endpoints/7:predict"]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"url": "service.test"}, "no address of a service"),
        ({"contract": "grpc"}, "no contract 'grpc'; there are recon, torchserve, vertex"),
        ({"most_rows": 0}, "most_rows must be a whole number"),
        ({"contract": "torchserve"}, "ends in /explanations/NAME"),
        ({"contract": "vertex"}, "ends in :explain"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(how, sentence):
    with pytest.raises(ValueError, match=sentence):
        mocked(lambda *_: {}, **how)


# --- errors


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (httpx.Response(401, json={"error": "no such key"}), "401 Unauthorized: no such key"),
        (httpx.Response(400, json={"error": {"code": 400, "message": "too wide"}}), ": too wide"),
        (httpx.Response(404, html="<h1>Not\n here</h1>"), "404 Not Found: Not here"),
        (httpx.Response(302, headers={"location": "/login"}), "302 Found: no more than that"),
        (httpx.Response(200, text="Welcome"), "no JSON: Welcome"),
        ([1, 2], "something else than the contract 'recon' has"),
        ({"values": [[1.0]] * 5}, "KeyError: 'explanations'"),
        ({"values": [[1.0], [1.0, 2.0]], "explanations": []}, "values of the reply are no array"),
        ({"values": [["a"]] * 5, "explanations": []}, "values of the reply are no array"),
        ({"values": [[1.0]] * 4, "explanations": []}, r"shape \(4, 1\), expected \(5, K\)"),
        ({"values": [[1.0]] * 5, "outputs": "probabilities"}, "its values are probabilities"),
    ],
)
def test_what_cannot_be_used_is_said_in_the_services_words(reply, sentence):
    with pytest.raises(ReplyError, match=sentence):
        mocked(lambda *_: reply)(X)


def test_a_value_that_is_not_finite_names_its_row():
    reply = {
        "values": [[0.0]] * 3 + [[None]] + [[0.0]],
        "explanations": np.zeros((5, 1, 8)).tolist(),
    }
    with pytest.raises(ReplyError, match="query row 3: the value is not finite"):
        mocked(lambda *_: reply)(X)


def failing(failures):
    """A handler that fails in these ways, then answers; and what it was asked."""
    left, asked = iter(failures), []

    def handler(path, request):
        asked.append(path)
        match next(left, None):
            case None:
                n = len(request["inputs"])
                return {"values": [[1.0]] * n, "explanations": np.zeros((n, 1, DIM)).tolist()}
            case int(status):
                return httpx.Response(status, text="one moment")
            case error:
                raise error

    return handler, asked


PASSING = [
    (503, web.Unavailable, "503 Service Unavailable: one moment"),
    (429, web.Unavailable, "429"),
    (httpx.ReadTimeout("slow"), TimeoutError, "did not answer in time"),
    (httpx.ConnectError("refused"), web.Unavailable, "cannot be reached: refused"),
    (httpx.RemoteProtocolError("cut off"), web.Unavailable, "cut off"),
]


@pytest.mark.parametrize(("failure", "error", "sentence"), PASSING)
def test_errors_that_pass_are_told_from_others(failure, error, sentence):
    with pytest.raises(error, match=sentence) as raised:
        mocked(failing([failure])[0])(X)
    assert not isinstance(raised.value, ReplyError)


def test_errors_that_pass_are_waited_out(monkeypatch):
    pytest.importorskip("tenacity", reason="needs the http extra")
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    handler, asked = failing([failure for failure, *_ in PASSING[:4]])
    assert service.patient(mocked(handler))(X).value.shape == (5, 1)
    assert len(asked) == 5
    assert len(waits) == 4
    handler, asked = failing([503] * 9)
    with pytest.raises(web.Unavailable):
        service.patient(mocked(handler), attempts=3)(X)
    assert len(asked) == 3
    handler, asked = failing([403])
    with pytest.raises(ReplyError, match="403"):
        service.patient(mocked(handler))(X)
    assert len(asked) == 1


def test_the_practice_service_says_what_is_wrong():
    served = Counted().inner
    for path, body, status, words in (
        ("/", b"{", 400, "no request"),
        ("/", b'{"inputs": [[1, 2]]}', 400, r"shape (1, 2), expected (n, 8)"),
        ("/", b'{"inputs": [[1, 2], [3]]}', 400, "no request"),
        ("/", json.dumps({"inputs": [[float("nan")] * DIM]}).encode(), 400, "finite"),
        ("/noise", b"{}", 404, "only /jacobian, /saliency; the others need pip install"),
        ("/shap", b"{}", 404, "there is no /shap here"),
    ):
        got, reply = served.answer(path, body)
        assert got == status
        assert words in json.loads(reply)["error"]
