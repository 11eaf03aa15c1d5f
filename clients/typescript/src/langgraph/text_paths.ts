/** The texts of a value that are embedded, by paths as LangGraph's stores have them. */

/** Divide a path into its steps: names, `[0]`, `[-1]`, `[*]`, `*` and `{a,b.c}`. The whole value, `"$"`, has none. */
export function pathSteps(path: string): string[] {
  // Names end at a dot or a bracket; brackets and braces are steps with all that is in them.
  return path === "$" ? [] : (path.match(/\[[^\]]*\]?|\{[^}]*\}?|[^.[{]+/g) ?? []);
}

/** Give the texts at a path of a value: what is no text is one as JSON; null and what is absent have none. */
export function textsAt(value: unknown, steps: readonly string[]): string[] {
  const [step, ...rest] = steps;
  if (step === undefined) {
    return textOf(value);
  }
  if (step.startsWith("[")) {
    return Array.isArray(value) ? entriesAt(value, step).flatMap((entry) => textsAt(entry, rest)) : [];
  }
  if (typeof value !== "object" || value === null) {
    return [];
  }
  if (step === "*") {
    return Object.values(value).flatMap((entry) => textsAt(entry, rest));
  }
  if (Array.isArray(value)) {
    return [];
  }
  if (step.startsWith("{")) {
    const fields = step.slice(1, step.endsWith("}") ? -1 : undefined).split(",");
    return fields.flatMap((field) => textsAt(value, [...pathSteps(field.trim()), ...rest]));
  }
  return Object.hasOwn(value, step) ? textsAt((value as Record<string, unknown>)[step], rest) : [];
}

function entriesAt(entries: unknown[], step: string): unknown[] {
  const index = step.slice(1, -1);
  if (index === "*") {
    return entries;
  }
  const entry = /^-?\d+$/.test(index) ? entries.at(Number(index)) : undefined;
  return entry === undefined ? [] : [entry];
}

function textOf(value: unknown): string[] {
  switch (typeof value) {
    case "string":
      return [value];
    case "number":
    case "boolean":
    case "bigint":
      return [String(value)];
    case "object":
      return value === null
        ? []
        : [JSON.stringify(value, (_, entry) => (typeof entry === "bigint" ? `${entry}` : entry), 2)];
    default:
      return [];
  }
}
