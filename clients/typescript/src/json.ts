/** JSON text and JavaScript values: integers of any size keep their value, and nothing is lost without an error. */

// Whether the text may hold an integer that a number can't: digits in a row, and then such a literal outside of strings. A string that
// looks like one costs only time.
const LONG_DIGITS = /\d{16}/;
const LONG_INTEGER = /(?:^|[[,:\s])-?\d{16,}(?![\d.eE])/;
const INTEGER = /^-?\d+$/;
// A number or a word, in text that is known to be JSON.
const LITERAL = /[^\s,\]}]+/y;

/** How deep arrays and objects may be nested in what is written. */
const DEEPEST = 1_000;
// What JSON.stringify writes a lone surrogate as; the text of an escaped backslash may look so too.
const ESCAPED_SURROGATE = /\\ud[89a-f]/;
const LONE_SURROGATE = /\p{Surrogate}/u;
const NAME = /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u;

// JSON.stringify makes `{}` of these, or an object of numbers: what is in them would be lost.
const REFUSED: ReadonlySet<string> = new Set([
  "ArrayBuffer",
  "DataView",
  "Error",
  "Map",
  "Promise",
  "RegExp",
  "Set",
  "SharedArrayBuffer",
  "WeakMap",
  "WeakRef",
  "WeakSet",
]);

/**
 * Read JSON text as `JSON.parse` does, except that an integer outside of ±(2^53 - 1) is a `bigint`, with its exact value. A number that is
 * written with a fraction or an exponent is always a `number`.
 *
 * Throws SyntaxError for text that is no JSON.
 */
export function parseJson(text: string): unknown {
  const value: unknown = JSON.parse(text);
  return LONG_DIGITS.test(text) && LONG_INTEGER.test(text) ? readExactly(text) : value;
}

/** Read text that is known to be JSON. It keeps no call open per level, so that it reads as deep as JSON.parse. */
function readExactly(text: string): unknown {
  const outer: object[] = [];
  let root: unknown;
  let container: object | undefined;
  let key: string | undefined;
  const add = (value: unknown) => {
    if (container === undefined) {
      root = value;
    } else if (Array.isArray(container)) {
      container.push(value);
    } else if (key === "__proto__") {
      Object.defineProperty(container, key, { value, writable: true, enumerable: true, configurable: true });
    } else {
      (container as Record<string, unknown>)[key as string] = value;
    }
    key = undefined;
  };
  for (let at = 0; at < text.length; ) {
    const char = text[at];
    switch (char) {
      case " ":
      case "\t":
      case "\n":
      case "\r":
      case ",":
      case ":":
        at += 1;
        break;
      case "{":
      case "[": {
        const inner = char === "[" ? [] : {};
        add(inner);
        if (container !== undefined) {
          outer.push(container);
        }
        container = inner;
        at += 1;
        break;
      }
      case "}":
      case "]":
        container = outer.pop();
        at += 1;
        break;
      case '"': {
        const end = endOfString(text, at);
        const string: string = JSON.parse(text.slice(at, end));
        if (container === undefined || Array.isArray(container) || key !== undefined) {
          add(string);
        } else {
          key = string;
        }
        at = end;
        break;
      }
      default: {
        LITERAL.lastIndex = at;
        const literal = LITERAL.exec(text)?.[0] ?? "";
        add(readLiteral(literal));
        at += literal.length;
      }
    }
  }
  return root;
}

/** The position after the quote that ends a string, which begins at `start`. */
function endOfString(text: string, start: number): number {
  for (let at = start + 1; ; at += 1) {
    at = text.indexOf('"', at);
    let backslashes = 0;
    while (text[at - 1 - backslashes] === "\\") {
      backslashes += 1;
    }
    if (backslashes % 2 === 0) {
      return at + 1;
    }
  }
}

function readLiteral(literal: string): unknown {
  const value: unknown = JSON.parse(literal);
  return typeof value === "number" && !Number.isSafeInteger(value) && INTEGER.test(literal) ? BigInt(literal) : value;
}

/**
 * Write a value as JSON text, as `JSON.stringify` does (members that are undefined are left out, `toJSON` is called), except that nothing
 * turns into null or `{}` by itself: a bigint is written as an integer, a whole number beyond ±(2^53 - 1) with all of its digits, so that
 * `parseJson` gives back a bigint of its value, and what JSON can't hold is refused.
 *
 * @param value The value.
 * @param name What the value is, for the error.
 * @throws TypeError, with the path and the reason, for NaN, an infinity, undefined as the value or in an array, a function, a symbol, a
 *   lone surrogate, a cycle, more than 1,000 levels, and objects whose content JSON.stringify drops, such as a Map.
 */
export function writeJson(value: unknown, name = "value"): string {
  if (isSimple(value, 0)) {
    const text = JSON.stringify(value);
    if (!ESCAPED_SURROGATE.test(text)) {
      return text;
    }
  }
  return new Writer(name).write(value);
}

/** Whether JSON.stringify writes a value with nothing lost, but for lone surrogates. It is made to be fast, since most values are. */
function isSimple(value: unknown, depth: number): boolean {
  switch (typeof value) {
    case "string":
    case "boolean":
      return true;
    case "number":
      return Number.isInteger(value) ? Number.isSafeInteger(value) : Number.isFinite(value);
    case "object": {
      if (value === null) {
        return true;
      }
      if (depth === DEEPEST || typeof (value as { toJSON?: unknown }).toJSON === "function") {
        return false;
      }
      if (Array.isArray(value)) {
        for (const entry of value) {
          if (!isSimple(entry, depth + 1)) {
            return false;
          }
        }
        return true;
      }
      const prototype = Object.getPrototypeOf(value);
      if (prototype !== Object.prototype && prototype !== null) {
        return false;
      }
      for (const key of Object.keys(value)) {
        const member = (value as Record<string, unknown>)[key];
        if (member !== undefined && !isSimple(member, depth + 1)) {
          return false;
        }
      }
      return true;
    }
    default:
      return false;
  }
}

/** Writes what JSON.stringify can't, and finds what is wrong with the rest. */
class Writer {
  // The arrays and objects around the value that is being written, and the keys that lead to it.
  private readonly around: object[] = [];
  private readonly keys: (string | number)[] = [];

  constructor(private readonly name: string) {}

  /** Write a value, which is under this key. */
  write(value: unknown, key = ""): string {
    const stand = this.standing(value, key);
    switch (typeof stand) {
      case "string":
        return this.text(stand);
      case "boolean":
        return String(stand);
      case "number":
        return this.number(stand);
      case "bigint":
        return stand.toString();
      case "object":
        return stand === null ? "null" : this.object(stand);
      case "undefined":
        return this.refuse("is undefined");
      default:
        return this.refuse(`is a ${typeof stand}`);
    }
  }

  /** What is written in place of a value: what its toJSON gives, or the primitive that an object wraps. */
  private standing(value: unknown, key: string): unknown {
    if (typeof value !== "object" || value === null) {
      return value;
    }
    if (value instanceof Date && Number.isNaN(value.valueOf())) {
      return this.refuse("is an invalid Date");
    }
    const { toJSON } = value as { toJSON?: unknown };
    const stand: unknown = typeof toJSON === "function" ? toJSON.call(value, key) : value;
    const wraps =
      stand instanceof Number || stand instanceof String || stand instanceof Boolean || stand instanceof BigInt;
    return wraps ? stand.valueOf() : stand;
  }

  private text(value: string): string {
    return LONE_SURROGATE.test(value) ? this.refuse("holds a lone surrogate") : JSON.stringify(value);
  }

  private number(value: number): string {
    if (!Number.isFinite(value)) {
      return this.refuse(`is ${value}`);
    }
    return Number.isInteger(value) && !Number.isSafeInteger(value) ? BigInt(value).toString() : JSON.stringify(value);
  }

  private object(value: object): string {
    if (this.around.includes(value)) {
      return this.refuse("is an object that it is in");
    }
    if (this.around.length === DEEPEST) {
      return this.refuse(`is nested more than ${DEEPEST.toLocaleString("en")} levels deep`);
    }
    const kind = Object.prototype.toString.call(value).slice("[object ".length, -1);
    if (REFUSED.has(kind) || ArrayBuffer.isView(value)) {
      return this.refuse(`is of the class ${kind}, which JSON does not have`);
    }
    this.around.push(value);
    const text = Array.isArray(value) ? this.entries(value) : this.members(value);
    this.around.pop();
    return text;
  }

  private entries(values: unknown[]): string {
    const texts: string[] = [];
    // By index, since holes are to be found too.
    for (let index = 0; index < values.length; index += 1) {
      this.keys.push(index);
      texts.push(this.write(values[index], String(index)));
      this.keys.pop();
    }
    return `[${texts.join(",")}]`;
  }

  private members(value: object): string {
    const texts: string[] = [];
    for (const key of Object.keys(value)) {
      const member = (value as Record<string, unknown>)[key];
      if (member !== undefined) {
        this.keys.push(key);
        texts.push(`${this.text(key)}:${this.write(member, key)}`);
        this.keys.pop();
      }
    }
    return `{${texts.join(",")}}`;
  }

  private refuse(why: string): never {
    const steps = this.keys.map((key) =>
      typeof key === "string" && NAME.test(key) ? `.${key}` : `[${JSON.stringify(key)}]`,
    );
    // What is nested far too deeply needs no path of all its levels.
    const path = steps.length > 20 ? `${steps.slice(0, 10).join("")} ... ${steps.slice(-10).join("")}` : steps.join("");
    throw new TypeError(`${this.name} is not JSON: ${this.name}${path} ${why}`);
  }
}
