// Ids of notifications: `<milliseconds>-<sequence>`, compared as two numbers. Pure.

const parse = (id) => /^(\d{1,15})-(\d{1,20})$/.exec(id ?? "")?.slice(1) ?? null;

/** When an id was given, in milliseconds; null for what is no id. */
export function idTime(id) {
  const parts = parse(id);
  return parts && Number(parts[0]);
}

/** The smallest id above this one. */
export function following(id) {
  const [time, sequence] = parse(id);
  return `${time}-${BigInt(sequence) + 1n}`;
}

/** Whether the first of two ids is not below the second. */
export function reaches(id, other) {
  const [[time, sequence], [otherTime, otherSequence]] = [parse(id), parse(other)];
  return Number(time) === Number(otherTime) ? BigInt(sequence) >= BigInt(otherSequence) : Number(time) > Number(otherTime);
}
