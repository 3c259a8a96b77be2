"""Train a classifier on the iris data set, and log and register it so that it can go to devices.

Only the public mlflow client and `edgeflow_mlflow.log_model` are used:

    python examples/train_iris.py --tracking-uri http://127.0.0.1:5000
    mlflow deployments create -t edgeflow --name iris -m models:/iris/1 -C target=robot-07
"""

from __future__ import annotations

import argparse

import mlflow
import mlflow.data
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgeflow_mlflow import log_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tracking-uri", default=None, help="by default MLFLOW_TRACKING_URI")
    parser.add_argument("--experiment", default="iris")
    parser.add_argument("--model-name", default="iris")
    parser.add_argument("--estimator", choices=["logistic", "forest"], default="logistic")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    if args.tracking_uri:
        mlflow.set_tracking_uri(args.tracking_uri)
    mlflow.set_experiment(args.experiment)

    iris = load_iris(as_frame=True)
    features = iris.data.rename(columns=lambda name: name.removesuffix(" (cm)").replace(" ", "_"))
    species = iris.target.map(dict(enumerate(iris.target_names))).rename("species")
    train, test, train_species, test_species = train_test_split(
        features, species, test_size=0.3, random_state=args.seed, stratify=species
    )
    if args.estimator == "logistic":
        params = {"C": 1.0, "max_iter": 500}
        model = make_pipeline(StandardScaler(), LogisticRegression(**params))
    else:
        params = {"n_estimators": 50, "max_depth": 5}
        model = RandomForestClassifier(random_state=args.seed, **params)

    with mlflow.start_run() as run:
        for frame, target, context in ((train, train_species, "training"), (test, test_species, "testing")):
            dataset = mlflow.data.from_pandas(
                frame.assign(species=target),
                targets="species",
                name=f"iris-{context}",
                source="sklearn.load_iris",
            )
            mlflow.log_input(dataset, context=context)
        mlflow.log_params({"estimator": args.estimator, "seed": args.seed, **params})
        model.fit(train, train_species)
        mlflow.log_metrics(
            {
                "accuracy": accuracy_score(test_species, model.predict(test)),
                "log_loss": log_loss(test_species, model.predict_proba(test), labels=model.classes_),
            }
        )
        info = log_model(model, samples=train, registered_model_name=args.model_name)

    print(f"model models:/{args.model_name}/{info.registered_model_version}")
    print(f"run {run.info.run_id}")


if __name__ == "__main__":
    main()
