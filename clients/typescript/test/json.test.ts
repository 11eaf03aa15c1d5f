/** JSON text and JavaScript values: what goes in comes out, and what JSON can't hold is refused by its path. */

import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseJson, writeJson } from "../src/json.js";

/** A value with null prototypes made plain, and -0 made 0, as JSON.stringify writes it. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) {
    return value.map(plain);
  }
  if (typeof value === "object" && value !== null) {
    const result = {};
    for (const [key, entry] of Object.entries(value)) {
      Object.defineProperty(result, key, { value: plain(entry), writable: true, enumerable: true, configurable: true });
    }
    return result;
  }
  if (Number.isInteger(value) && !Number.isSafeInteger(value)) {
    return BigInt(value as number);
  }
  return Object.is(value, -0) ? 0 : value;
}

/** JSON text of a value whose long integers are rounded, as JSON.parse rounds them. */
function rounded(value: unknown): string {
  return JSON.stringify(value, (_, entry) => (typeof entry === "bigint" ? Number(entry) : entry));
}

const ODD_KEYS = ["__proto__", "constructor", "toString", "", "0", "10", "a.b", '"', "\\", "\u2028", "length"];
const text = () => fc.string({ unit: "grapheme" });
const key = () => fc.oneof(text(), fc.constantFrom(...ODD_KEYS));
const long = () =>
  fc.bigInt({ min: -(10n ** 40n), max: 10n ** 40n }).filter((value) => !Number.isSafeInteger(Number(value)));
/** Strings that look like what the reader looks for. */
const lookalike = () =>
  fc.oneof(
    long().map(String),
    long().map((value) => `"${value}"`),
    long().map((value) => `[${value},`),
    long().map((value) => `\\":${value}}`),
    long().map((value) => `${value}n`),
  );
const value = () =>
  fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 6, depthSize: "medium" },
      fc.constantFrom(null, true, false),
      fc.double({ noNaN: true, noDefaultInfinity: true }),
      fc.maxSafeInteger(),
      long(),
      text(),
      lookalike(),
      fc.array(tie("value")),
      fc.dictionary(key(), tie("value")),
    ),
  })).value;

describe("reading", () => {
  test.each([
    ["9007199254740991", 9007199254740991],
    ["-9007199254740991", -9007199254740991],
    ["9007199254740992", 9007199254740992n],
    ["-9007199254740992", -9007199254740992n],
    ["9007199254740993", 9007199254740993n],
    [" \n-9007199254740993\t", -9007199254740993n],
    ["123456789012345678901234567890", 123456789012345678901234567890n],
    ["1e21", 1e21],
    ["1E+400", Number.POSITIVE_INFINITY],
    ["9007199254740993.0", 9007199254740992],
    ["9007199254740993e0", 9007199254740992],
    ["0.12345678901234567", Number("0.12345678901234567")],
    ["1.5e-3", 0.0015],
    ["-0", -0],
    ["0", 0],
    ['"9007199254740993"', "9007199254740993"],
    ["[1,9007199254740993.5,9007199254740993]", [1, 9007199254740994, 9007199254740993n]],
    ['{"a": 9007199254740993, "a": 2}', { a: 2 }],
    ['{"a": 2, "a": 9007199254740993}', { a: 9007199254740993n }],
    ['{"9007199254740993":{"[9007199254740993,":[]}}', { "9007199254740993": { "[9007199254740993,": [] } }],
    ['["\\\\",9007199254740993,"\\\\\\"",{}]', ["\\", 9007199254740993n, '\\"', {}]],
    ['{"a":{"b":[true,false,null,9007199254740993]}}', { a: { b: [true, false, null, 9007199254740993n] } }],
  ])("%s", (source, wanted) => {
    expect(parseJson(source)).toStrictEqual(wanted);
  });

  test("an own key __proto__ is a key like any other", () => {
    const found = parseJson('{"__proto__":{"a":9007199254740993},"b":1}') as object;
    expect(Object.keys(found)).toEqual(["__proto__", "b"]);
    expect(Object.getPrototypeOf(found)).toBe(Object.prototype);
    expect(Object.getOwnPropertyDescriptor(found, "__proto__")?.value).toEqual({ a: 9007199254740993n });
  });

  test("it reads as deep as JSON.parse", () => {
    const depth = 100_000;
    let found = parseJson(`${"[".repeat(depth)}9007199254740993${"]".repeat(depth)}`);
    for (let level = 0; level < depth; level += 1) {
      found = (found as unknown[])[0];
    }
    expect(found).toBe(9007199254740993n);
  });

  test.each(["", "9007199254740993,", "[9007199254740993", "09007199254740993", "{9007199254740993:1}", "1n", "NaN"])(
    "%j is no JSON",
    (source) => {
      expect(() => parseJson(source)).toThrow(SyntaxError);
    },
  );

  test("text without long integers is read as JSON.parse does", () => {
    fc.assert(
      fc.property(fc.json(), (source) => {
        expect(rounded(parseJson(source))).toBe(JSON.stringify(JSON.parse(source)));
      }),
    );
  });

  test("with a long integer beside it, any text is read as JSON.parse does, spaces or none", () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom(undefined, 1, "\t"), (inner, space) => {
        const source = JSON.stringify([inner], null, space).replace(/\]$/, ",9007199254740993]");
        expect(rounded(parseJson(source))).toBe(JSON.stringify(JSON.parse(source)));
      }),
    );
  });

  test("text that is no JSON is refused as JSON.parse refuses it", () => {
    const near = fc.tuple(fc.json(), fc.nat(), fc.constantFrom('"', "\\", "1", ",", "]", "9007199254740993"));
    fc.assert(
      fc.property(near, ([source, at, piece]) => {
        const position = at % (source.length + 1);
        const broken = source.slice(0, position) + piece + source.slice(position);
        let wanted: unknown;
        try {
          wanted = JSON.parse(broken);
        } catch {
          expect(() => parseJson(broken)).toThrow(SyntaxError);
          return;
        }
        expect(rounded(parseJson(broken))).toBe(JSON.stringify(wanted));
      }),
    );
  });
});

describe("writing and reading", () => {
  test("any value comes back, whole numbers beyond 2^53 as bigint", () => {
    fc.assert(
      fc.property(value(), (entry) => {
        expect(isDeepStrictEqual(parseJson(writeJson(entry)), plain(entry))).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  test("values without long integers are written as JSON.stringify does", () => {
    fc.assert(
      fc.property(fc.object({ withDate: true, withNullPrototype: true }), (entry) => {
        let wanted: string;
        try {
          wanted = writeJson(entry);
        } catch (error) {
          expect(error).toBeInstanceOf(TypeError);
          return;
        }
        const hasLong = /\d{16}/.test(wanted);
        fc.pre(!hasLong);
        expect(wanted).toBe(JSON.stringify(entry));
      }),
    );
  });

  test.each([
    ["9007199254740992", 2 ** 53],
    ["-1152921504606846976", -(2 ** 60)],
    ["100000000000000000000", 1e20],
    ["1000000000000000000000", 1e21],
    [BigInt(Number.MAX_VALUE).toString(), Number.MAX_VALUE],
    ["5e-324", Number.MIN_VALUE],
    ["9007199254740991", 9007199254740991],
    ["0", -0],
    ["9007199254740992", 2n ** 53n],
    ["1", 1n],
    [`-1${"0".repeat(30)}`, -(10n ** 30n)],
    ['{"b":[1]}', { a: undefined, b: [1n] }],
    ['"1970-01-01T00:00:00.000Z"', new Date(0)],
    ['{"when":"1970-01-01T00:00:00.000Z","n":1}', { when: new Date(0), n: 1n }],
    ['"boxed"', Object("boxed")],
    ["[1,2,false]", [Object(1), Object(2n), Object(false)]],
    ['{"type":"Buffer","data":[97]}', Buffer.from("a")],
    ['"\u2028\\u0000é😀😀"', "\u2028\u0000é😀\ud83d\ude00"],
    ['"\\\\ud800"', "\\ud800"],
  ])("%s", (wanted, entry) => {
    expect(writeJson(entry)).toBe(wanted);
  });

  test("an object says by toJSON what is written, once", () => {
    class Money {
      constructor(readonly cents: bigint) {}
      toJSON(name: string) {
        return { name, cents: this.cents };
      }
    }
    class Itself {
      a = 1n;
      toJSON() {
        return this;
      }
    }
    expect(writeJson({ price: new Money(2n ** 60n) })).toBe('{"price":{"name":"price","cents":1152921504606846976}}');
    expect(writeJson(new Itself())).toBe('{"a":1}');
    expect(writeJson({ toJSON: () => new Money(1n) })).toBe('{"cents":1}');
  });

  test("an instance of a class is written by its members", () => {
    class Point {
      x = 1;
      y = 2n;
    }
    expect(writeJson([new Point()])).toBe('[{"x":1,"y":2}]');
  });

  test("the same object twice is no cycle", () => {
    const shared = { a: 1n };
    expect(writeJson([shared, shared])).toBe('[{"a":1},{"a":1}]');
  });
});

describe("what JSON can't hold is refused, with its path", () => {
  const itself: Record<string, unknown> = {};
  itself.list = [itself];
  const deep = (levels: number) => {
    let entry: unknown[] = [];
    for (let level = 1; level < levels; level += 1) {
      entry = [entry];
    }
    return entry;
  };
  test.each([
    ["value is NaN", Number.NaN],
    ["value.a[1] is Infinity", { a: [1, Number.POSITIVE_INFINITY] }],
    ['value.a["b c"] is -Infinity', { a: { "b c": Number.NEGATIVE_INFINITY } }],
    ["value is undefined", undefined],
    ["value[1] is undefined", [1, undefined]],
    // biome-ignore lint/suspicious/noSparseArray: the hole is what is tested
    ["value[1] is undefined", [1, , 2]],
    ["value.é is a function", { é: () => 1 }],
    ["value[0] is a symbol", [Symbol("s")]],
    ["value[0] holds a lone surrogate", ["a\ud800b"]],
    ['value["\\udfff"] holds a lone surrogate', { "\udfff": 1 }],
    ["value[1] holds a lone surrogate", ["\\ud800", "\ud800"]],
    ["value.list[0] is an object that it is in", itself],
    ["value.m is of the class Map, which JSON does not have", { m: new Map([[1, 2]]) }],
    ["value is of the class Set, which JSON does not have", new Set([1])],
    ["value is of the class Uint8Array, which JSON does not have", new Uint8Array(2)],
    ["value[0] is of the class Error, which JSON does not have", [new TypeError("text")]],
    ["value.d is an invalid Date", { d: new Date(Number.NaN) }],
    ["value is of the class Promise, which JSON does not have", Promise.resolve()],
    ["is nested more than 1,000 levels deep", deep(1_001)],
  ])("%s", (wanted, entry) => {
    expect(() => writeJson(entry)).toThrow(TypeError);
    expect(() => writeJson(entry)).toThrow(wanted);
    expect(() => writeJson(entry, "metadata")).toThrow(/^metadata is not JSON: metadata/);
  });

  test("1,000 levels are written", () => {
    expect(writeJson(deep(1_000))).toBe("[".repeat(1_000) + "]".repeat(1_000));
  });
});
