"""scikit-learn's estimators: every activation, task and scaler, against their own predictions."""

import numpy as np
import pytest
from agree import held
from scipy.special import expit, log_softmax, logit
from sklearn import linear_model, preprocessing
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from recon import exact, oracles
from recon.victims import brought

X, Y = load_wine(return_X_y=True)
Z = (X - X.mean(0)) / X.std(0)
BINARY = (Y > 0).astype(int)
MANY = np.stack([Y > 0, Y > 1, X[:, 0] > 13], 1).astype(int)  # labels that do not exclude others
FEW = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")


def fitted(model, y, x=Z):
    return model.set_params(max_iter=5, random_state=0).fit(x, y)


@FEW
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("y", [Y, BINARY, MANY], ids=["three", "binary", "many labels"])
def test_a_classifier_answers_its_logits(activation, y):
    model = fitted(MLPClassifier((7, 5), activation=activation), y)
    taken = brought.bring(model)
    assert (taken.dim, taken.oracle.view) == (13, oracles.View())
    assert "before the softmax or sigmoid" in taken.note

    def forward(x):  # logits of several classes are known up to a constant
        odds = model.predict_proba(x)
        return logit(odds if y is MANY else odds[:, 1:]) if y is not Y else np.log(odds)

    if y is not Y:
        held(taken.oracle, forward, 13)
    else:
        x = np.random.default_rng(0).standard_normal((5, 13))
        values = brought.oracle(model).values(x.astype(np.float32))
        np.testing.assert_allclose(log_softmax(values, axis=1), forward(x), rtol=1e-4)
        shown = brought.oracle(model, view=oracles.View("probabilities", of="probabilities"))
        held(shown, model.predict_proba, 13)


@FEW
@pytest.mark.parametrize("y", [X[:, 0], X[:, :2]], ids=["one", "two"])
def test_a_regressor_answers_its_predictions(y):
    model = fitted(MLPRegressor(hidden_layer_sizes=(9,)), y)
    held(brought.oracle(model), model.predict, 13)


@FEW
def test_a_regressor_with_exponential_outputs_answers_its_predictions():
    try:
        model = fitted(MLPRegressor(hidden_layer_sizes=(9,), loss="poisson"), X[:, 0])
    except TypeError:
        pytest.skip("this scikit-learn has no such loss")
    held(brought.oracle(model), model.predict, 13)


@FEW
def test_a_model_trained_in_float32_is_evaluated_in_float64():
    model = fitted(MLPClassifier(9), BINARY, Z.astype(np.float32))
    reply = held(brought.oracle(model), lambda x: logit(model.predict_proba(x)[:, 1]), 13)
    assert reply.value.dtype == np.float64


@pytest.mark.parametrize("y", [X[:, 0], X[:, :2]], ids=["one", "two"])
@pytest.mark.parametrize("kind", ["LinearRegression", "Ridge", "Lasso", "ElasticNet"])
def test_linear_regressions(kind, y):
    options = {} if kind == "LinearRegression" else {"alpha": 0.01}
    model = getattr(linear_model, kind)(**options).fit(Z, y + Z[:, 3:4] if y.ndim == 2 else y)
    held(brought.oracle(model), model.predict, 13)


@pytest.mark.parametrize("y", [Y, BINARY], ids=["three", "binary"])
def test_a_logistic_regression_answers_its_decision_function(y):
    model = linear_model.LogisticRegression(fit_intercept=y is Y).fit(Z, y)
    held(brought.oracle(model), model.decision_function, 13)
    model.sparsify()
    held(brought.oracle(model), model.decision_function, 13)
    if y is BINARY:
        shown = brought.oracle(model, view=oracles.View("probabilities", of="probabilities"))
        held(shown, lambda x: expit(model.decision_function(x)), 13)


@FEW
@pytest.mark.parametrize(
    "scaler",
    [
        preprocessing.StandardScaler(),
        preprocessing.StandardScaler(with_mean=False),
        preprocessing.StandardScaler(with_std=False),
        preprocessing.MinMaxScaler((-2, 3)),
        preprocessing.MaxAbsScaler(),
        preprocessing.RobustScaler(),
        preprocessing.RobustScaler(with_centering=False),
        "passthrough",
    ],
    ids=str,
)
def test_scalers_in_front_are_part_of_the_function(scaler):
    mlp = MLPRegressor(hidden_layer_sizes=(9,), random_state=0, max_iter=5)
    model = make_pipeline(preprocessing.MinMaxScaler(), scaler, mlp).fit(X, X[:, 0])
    held(brought.oracle(model), model.predict, 13)


@FEW
def test_what_is_not_supported_is_named():
    mlp = fitted(MLPClassifier(9), Y)
    clipped = preprocessing.MinMaxScaler(clip=True)
    for model, sentence in (
        (DecisionTreeClassifier().fit(Z, Y), "DecisionTreeClassifier is not supported; there are"),
        (LinearSVC().fit(Z, Y), "LinearSVC is not supported"),
        (make_pipeline(PCA(3), mlp), "the step PCA is not supported; there are StandardScaler"),
        (make_pipeline(clipped, mlp).fit(Z, Y), r"MinMaxScaler\(clip=True\) is not supported"),
        (MLPClassifier(), "MLPClassifier is not fitted"),
        (linear_model.LinearRegression(), "LinearRegression is not fitted"),
        (make_pipeline(preprocessing.StandardScaler(), mlp), "StandardScaler is not fitted"),
    ):
        with pytest.raises(ValueError, match=sentence):
            brought.oracle(model)


def test_a_pipeline_is_recovered_from_raw_features_and_itself_left_alone():
    mlp = MLPClassifier(30, max_iter=600, random_state=0)
    model = make_pipeline(preprocessing.StandardScaler(), mlp).fit(X, Y)
    before = [a.copy() for a in (*mlp.coefs_, *mlp.intercepts_)]
    found = exact.recover(brought.oracle(model), dim=13, key=0, data=X)
    assert found.ok, str(found)
    assert found.network.width <= 30
    np.testing.assert_array_equal(found.network(X).argmax(1), model.predict(X))
    for a, b in zip(before, (*mlp.coefs_, *mlp.intercepts_), strict=True):
        np.testing.assert_array_equal(a, b)
