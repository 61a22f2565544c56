"""The tables, in types that SQLite and PostgreSQL share. Times are UTC unix seconds."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Integer, MetaData, String, Table, Text

ID = String(64)

metadata = MetaData()

participants = Table(
    "participants",
    metadata,
    Column("id", ID, primary_key=True),
    Column("role", String(16), nullable=False),
    Column("address", Text),
    Column("info", Text, nullable=False),  # a JSON object
    Column("first_seen", Double, nullable=False),
    Column("last_seen", Double, nullable=False),
    Column("restarts", Integer),  # how often it came back as another process
)

identities = Table(
    "identities",
    metadata,
    Column("id", ID, primary_key=True),
    Column("role", String(16), nullable=False),
    Column("acts_as", Text, nullable=False),  # a JSON list of participant ids
    Column("runs", Text, nullable=False),  # a JSON list of run names; "*": all
    Column("secret_hash", String(64)),  # sha256, hexadecimal; null: has not enrolled yet
    Column("next_hash", String(64)),  # of the secret that takes the other's place when it is first used
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
)

invitations = Table(
    "invitations",
    metadata,
    Column("token_hash", String(64), primary_key=True),  # sha256, hexadecimal
    Column("identity", ID, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("used_at", Double),
)

# Entries are added and never changed; `trail.py` says how they are hashed.
trail = Table(
    "trail",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", String(64), nullable=False),
    Column("object", Text, nullable=False),
    Column("details", Text, nullable=False),  # a JSON object
    Column("previous", String(64), nullable=False),  # the hash of the entry before
    Column("hash", String(64), nullable=False),
)

# One row: the number and the hash of the last entry.
trail_head = Table(
    "trail_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("name", ID, primary_key=True),
    Column("spec", Text, nullable=False),  # RunSpec.to_json
    Column("state", Text, nullable=False),  # core.rounds.to_json
    Column("revision", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("class_counts", Text),  # JSON: train samples of each class, a list for each client; where they are known
)

rounds = Table(
    "rounds",
    metadata,
    Column("run", ID, ForeignKey("runs.name"), primary_key=True),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("body_version", BigInteger),
    Column("client_version", BigInteger),
    Column("contributions", BigInteger),
    Column("left_out", BigInteger),
    Column("batches", BigInteger),
    Column("started_at", Double),
    Column("synced_at", Double),
    Column("ended_at", Double),
    Column("accuracy", Double),
    Column("accuracy_mean", Double),
    Column("loss", Double),
    Column("train_loss", Double),
    Column("samples", BigInteger),
    Column("seconds", Double),
    Column("samples_per_s", Double),
    Column("trained_at", Double),
    # What the servers took for its sync: JSON objects of seconds and counts by name (services/spent.py).
    Column("reduce_spent", Text),
    Column("aggregate_spent", Text),
    # Clients whose contributions or updates were outliers: JSON lists of {client, norm, median, score}.
    Column("body_outliers", Text),
    Column("client_outliers", Text),
    Column("absent", Text),  # clients that the round went on without: a JSON list of {client, phase, reason}
)

metrics = Table(
    "metrics",
    metadata,
    Column("run", ID, ForeignKey("runs.name"), primary_key=True),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("client", ID, primary_key=True),
    Column("train_loss", Double),
    Column("samples", BigInteger),
    Column("batches", BigInteger),
    Column("seconds", Double),
    Column("bytes_up", BigInteger),
    Column("bytes_down", BigInteger),
    Column("bytes_saved", BigInteger),  # only where the front trains by itself
    Column("spent", Text),  # JSON, as in `rounds`
    Column("started_at", Double),
    # The evaluation comes after the training's report; until then these are null.
    Column("test_loss", Double),
    Column("test_accuracy", Double),
    Column("test_samples", BigInteger),
    Column("eval_seconds", Double),
    Column("eval_bytes_up", BigInteger),
    Column("eval_bytes_down", BigInteger),
    Column("eval_started_at", Double),
    Column("eval_spent", Text),
)
