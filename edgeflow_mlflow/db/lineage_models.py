"""Tables of where models come from, which device served what and when, and recalls."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from edgeflow_mlflow.db.base import ID, PREFIX, Base

# A node of the lineage graph as text: see domain/lineage.py. A model's name alone may have 256 characters.
NODE = String(320)


class Dataset(Base):
    """A version of a data set, in whatever experiments it was logged. `digest` is MLflow's, which sees the
    first rows only; `content` is the SHA-256 of everything, empty when nobody has computed it."""

    __tablename__ = PREFIX + "datasets"
    __table_args__ = (
        Index("ix_edgeflow_datasets_name", "name", "digest"),
        Index("ix_edgeflow_datasets_digest", "digest"),
        Index("ix_edgeflow_datasets_content", "content"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(String(512))
    digest: Mapped[str] = mapped_column(ID)
    content: Mapped[str] = mapped_column(ID, default="")
    source_type: Mapped[str] = mapped_column(default="")
    source: Mapped[str] = mapped_column(Text, default="")
    first_seen_at: Mapped[datetime]


class LineageEdge(Base):
    """`child` was made from `parent`. Read from MLflow, and kept when MLflow forgets."""

    __tablename__ = PREFIX + "lineage_edges"
    __table_args__ = (Index("ix_edgeflow_lineage_edges_parent", "parent"),)

    child: Mapped[str] = mapped_column(NODE, primary_key=True)
    parent: Mapped[str] = mapped_column(NODE, primary_key=True)
    how: Mapped[str] = mapped_column(ID, primary_key=True)
    # Of a data set in a run: what for, in the words of whoever logged it.
    context: Mapped[str] = mapped_column(primary_key=True, default="")
    # The experiment that the child belongs to, empty for a registered version.
    experiment_id: Mapped[str] = mapped_column(ID, default="")


class Served(Base):
    """A device served a bundle from one moment to another, by the server's clock; `until` is null as long as
    it does. `bundle_id` is empty when this server knows no bundle of that digest."""

    __tablename__ = PREFIX + "served"
    __table_args__ = (
        Index("ix_edgeflow_served_target", "target_id", "since"),
        Index("ix_edgeflow_served_bundle", "bundle_id", "target_id", "since"),
        Index("ix_edgeflow_served_until", "until"),
        Index(
            "ix_edgeflow_served_open",
            "bundle_id",
            "target_id",
            sqlite_where=text("until IS NULL"),
            postgresql_where=text("until IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    target_id: Mapped[str] = mapped_column(ID)
    digest: Mapped[str] = mapped_column(ID)
    bundle_id: Mapped[str] = mapped_column(ID, default="")
    execution_id: Mapped[str] = mapped_column(ID, default="")
    since: Mapped[datetime]
    until: Mapped[datetime | None]


class Recall(Base):
    """A data set was found bad. Until a recall is lifted, nothing trained on its data sets is deployed."""

    __tablename__ = PREFIX + "recalls"
    __table_args__ = (Index("ix_edgeflow_recalls_lifted", "lifted_at"),)

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    datasets: Mapped[list[Any]]
    any_use: Mapped[bool] = mapped_column(Boolean, default=False)
    why: Mapped[str] = mapped_column(Text)
    # Of every bundle that was made from the data: digest -> the model's name.
    digests: Mapped[dict[str, Any]]
    # What was found at the moment of the decision: data sets, versions with the way to each, where to go.
    plan: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    lifted_at: Mapped[datetime | None]
    lifted_by: Mapped[str] = mapped_column(default="")
    lift_why: Mapped[str] = mapped_column(Text, default="")


class RecallTarget(Base):
    """A device that a recall found, and what was decided for it."""

    __tablename__ = PREFIX + "recall_targets"
    __table_args__ = (Index("ix_edgeflow_recall_targets_target", "target_id"),)

    recall_id: Mapped[str] = mapped_column(ID, primary_key=True)
    target_id: Mapped[str] = mapped_column(ID, primary_key=True)
    deployment_id: Mapped[str] = mapped_column(ID, default="")
    # What it served, was to serve, or kept to fall back on.
    bonds: Mapped[list[Any]]
    model_name: Mapped[str] = mapped_column(default="")
    model_version: Mapped[str] = mapped_column(ID, default="")
    # See domain/recalls.py.
    remedy: Mapped[str] = mapped_column(ID)
    goes_to: Mapped[str] = mapped_column(Text, default="")
    error: Mapped[str] = mapped_column(Text, default="")
