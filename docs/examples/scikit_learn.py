"""A linear model of scikit-learn, learned by partial_fit. No torch is imported anywhere."""

import numpy as np
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss

import fluvial

DATA = "digits"
CONFIG = {"epochs": 3}


def model():
    return fluvial.fitted(
        SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.02), features=64, classes=10
    )


def train(model, data, config):
    for _ in range(config.epochs):
        order = np.random.permutation(len(data))
        model.partial_fit(data.x[order], data.y[order])
    return {"loss": log_loss(data.y, model.predict_proba(data.x), labels=model.classes_)}


def evaluate(model, data):
    return {
        "loss": log_loss(data.y, model.predict_proba(data.x), labels=model.classes_),
        "accuracy": model.score(data.x, data.y),
    }
