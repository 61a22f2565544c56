// What is known of a run: its rounds, and what each client reported of each, in columns. Rows come again as they change.

const FIELDS = [
  "train_loss", "samples", "batches", "seconds", "bytes_up", "bytes_down", "started_at",
  "test_loss", "test_accuracy", "test_samples", "eval_seconds", "eval_bytes_up", "eval_bytes_down", "eval_started_at",
];

export class History {
  constructor() {
    this.run = null;
    this.rounds = []; // by round
    this.columns = new Map(); // client -> field -> values by round
    this.clients = []; // sorted
    this.totals = { up: [], down: [], known: 0 }; // bytes by round, over all clients
  }

  /** A run's description; the specification does not change, so events may leave it out. */
  takeRun(run) {
    this.run = { ...this.run, ...run };
  }

  takeRounds(rows) {
    for (const row of rows) this.rounds[row.round] = row;
  }

  takeMetrics(rows) {
    for (const row of rows) {
      const columns = this._columns(row.client);
      const before = bytesOf(columns, row.round);
      for (const field of FIELDS) columns[field][row.round] = row[field];
      const after = bytesOf(columns, row.round);
      this.totals.up[row.round] = (this.totals.up[row.round] || 0) + after.up - before.up;
      this.totals.down[row.round] = (this.totals.down[row.round] || 0) + after.down - before.down;
    }
  }

  _columns(client) {
    let columns = this.columns.get(client);
    if (columns === undefined) {
      columns = Object.fromEntries(FIELDS.map((field) => [field, []]));
      this.columns.set(client, columns);
      this.clients = [...this.columns.keys()].sort();
    }
    return columns;
  }

  value(client, field, round) {
    const columns = this.columns.get(client);
    return columns === undefined ? null : (columns[field][round] ?? null);
  }

  /** The last round of which there is anything. */
  get last() {
    return this.rounds.length - 1;
  }

  /** The newest round that has a result, or null. */
  latest() {
    for (let round = this.rounds.length - 1; round >= 0; round -= 1) {
      const row = this.rounds[round];
      if (row && row.ended_at) return row;
    }
    return null;
  }

  /** Rounds that are over; the next connection asks from the first one that is not. */
  openRound() {
    const row = this.latest();
    return row === null ? 0 : row.round;
  }

  bytes() {
    const sum = (values) => values.reduce((total, value) => total + (value || 0), 0);
    return { up: sum(this.totals.up), down: sum(this.totals.down) };
  }

  /** Client -> the last round in which it was an outlier. */
  outliers() {
    const found = new Map();
    for (const row of this.rounds) for (const client of row?.outliers || []) found.set(client, row.round);
    return found;
  }

  /** Absences of all rounds, the newest first. */
  absences() {
    const found = [];
    for (let round = this.rounds.length - 1; round >= 0; round -= 1) {
      for (const one of this.rounds[round]?.absent || []) found.push({ round, ...one });
    }
    return found;
  }
}

function bytesOf(columns, round) {
  const get = (field) => columns[field][round] || 0;
  return { up: get("bytes_up") + get("eval_bytes_up"), down: get("bytes_down") + get("eval_bytes_down") };
}
