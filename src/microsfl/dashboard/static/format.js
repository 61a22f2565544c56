// Numbers, bytes and times as people read them. What is not known is a dash.

const NONE = "–";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

const known = (value) => typeof value === "number" && Number.isFinite(value);

export const count = (value) => (known(value) ? whole.format(value) : NONE);

/** 0.9437, or 12.35 for what is larger. */
export const rate = (value) => (known(value) ? value.toFixed(Math.abs(value) < 10 ? 4 : 2) : NONE);

export const percent = (value) => (known(value) ? `${(100 * value).toFixed(1)} %` : NONE);

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

export function bytes(value) {
  if (!known(value)) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let number = value;
  let unit = 0;
  while (number >= 999.5 && unit < units.length - 1) {
    number /= 1000;
    unit += 1;
  }
  return `${unit === 0 || number >= 99.95 ? Math.round(number) : number.toFixed(1)} ${units[unit]}`;
}

/** 0.85 s, 12.3 s, 4 min 05 s, 2 h 03 min, 3 d 4 h. */
export function seconds(value) {
  if (!known(value)) return NONE;
  if (value < 9.995) return `${value.toFixed(2)} s`;
  if (value < 59.95) return `${value.toFixed(1)} s`;
  const total = Math.round(value);
  const two = (number) => String(number).padStart(2, "0");
  if (total < 3600) return `${Math.floor(total / 60)} min ${two(total % 60)} s`;
  if (total < 86400) return `${Math.floor(total / 3600)} h ${two(Math.floor((total % 3600) / 60))} min`;
  return `${Math.floor(total / 86400)} d ${Math.floor((total % 86400) / 3600)} h`;
}

/** How long ago, coarsely: what changes every second draws the eye for nothing. */
export function ago(at, now) {
  if (!known(at)) return NONE;
  const age = Math.max(0, now - at);
  if (age < 5) return "now";
  if (age < 60) return `${5 * Math.floor(age / 5)} s ago`;
  if (age < 3600) return `${Math.floor(age / 60)} min ago`;
  if (age < 86400) return `${Math.floor(age / 3600)} h ago`;
  return `${Math.floor(age / 86400)} d ago`;
}

export const moment = (at) => (known(at) ? local.format(new Date(1000 * at)) : NONE);

/** A value of a specification, as a configuration file has it. */
export function setting(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}
