// Shards, elements, numbers: what every page needs. A shard is a script that calls encoscope.shard(name, content);
// that works from a folder without a server, where nothing may be fetched.
"use strict";

// The scripts that follow add their functions and pages to it.
/** @type {AtlasPages} */
const Atlas = /** @type {AtlasPages} */ ({ pages: {}, live: null });

const encoscope = (() => {
  const KEPT = 256; // shards in memory
  /** @type {Map<string, any>} */
  const loaded = new Map();
  /** @type {Map<string, Promise<any>>} */
  const requests = new Map();
  /** @type {Map<string, (content: any) => void>} */
  const receivers = new Map();

  /**
   * What a shard's script calls.
   * @param {string} name
   * @param {any} content
   */
  function shard(name, content) {
    loaded.set(name, content);
    receivers.get(name)?.(content);
  }

  /**
   * The content of a shard.
   * @param {string} name
   * @returns {Promise<any>}
   */
  function load(name) {
    if (loaded.has(name)) {
      const content = loaded.get(name);
      loaded.delete(name); // to the end: used last
      loaded.set(name, content);
      return Promise.resolve(content);
    }
    const pending = requests.get(name);
    if (pending) return pending;
    const request = new Promise((resolve, reject) => {
      receivers.set(name, resolve);
      runScript(name, (reason) => {
        requests.delete(name);
        receivers.delete(name);
        forgetOldest();
        reject(new Error(`data/${name}.js ${reason}`)); // of no effect where it has been resolved
      });
    });
    requests.set(name, request);
    return request;
  }

  /**
   * @param {string} name
   * @param {(reason: string) => void} ended is told what is wrong if the script did not hold the shard
   */
  function runScript(name, ended) {
    const script = document.createElement("script");
    script.onload = () => {
      script.remove();
      ended("holds something else");
    };
    script.onerror = () => {
      script.remove();
      ended("is missing");
    };
    script.src = `data/${name}.js`;
    document.head.append(script);
  }

  function forgetOldest() {
    for (const name of loaded.keys()) {
      if (loaded.size <= KEPT) break;
      if (name !== "manifest" && !name.includes("table")) loaded.delete(name);
    }
  }

  return { shard, load };
})();

/**
 * An element: h("a", {class: "x", href: "#/"}, "text", child). Text is always text, never markup.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Properties} properties
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  fill(element, properties);
  appendChildren(element, children);
  return element;
}

/**
 * The same for a graphic.
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Properties} properties
 * @param {...Child} children
 * @returns {SVGElementTagNameMap[Tag]}
 */
function svg(tag, properties, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  fill(element, properties);
  appendChildren(element, children);
  return element;
}

/**
 * @param {Element} element
 * @param {Child[]} children
 */
function appendChildren(element, children) {
  for (const child of children) {
    if (Array.isArray(child)) appendChildren(element, child);
    else if (child !== null && child !== undefined && child !== false)
      element.append(child instanceof Node ? child : String(child));
  }
}

/**
 * Attributes, styles and listeners ("onclick").
 * @param {HTMLElement | SVGElement} element
 * @param {Properties} properties
 */
function fill(element, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (typeof value === "object")
      for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
}

/**
 * @template Value
 * @param {Value | null | undefined} value
 * @returns {value is Value}
 */
const isKnown = (value) => value !== null && value !== undefined;

/**
 * A count with separators.
 * @param {number} value
 */
const formatCount = (value) => value.toLocaleString("en");

/**
 * A measured number in two or three digits, with a true minus.
 * @param {number | null | undefined} value
 */
function formatNumber(value) {
  if (!isKnown(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  const text = size >= 0.1 ? value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2) : String(Number(value.toPrecision(2)));
  return text.replace(/^-/, "\u2212");
}

/**
 * A number of a unit; percentages have their sign beside them.
 * @param {number} value
 * @param {string} unit
 */
const formatWithUnit = (value, unit) => `${formatNumber(value)}${unit.startsWith("% ") ? " %" : ""}`;

/**
 * Numbers that may have either sign say which.
 * @param {Measure} measure
 */
const formatSigned = ({ value, unit }) =>
  `${value > 0 && /standard deviation|logit/.test(unit) ? "+" : ""}${formatWithUnit(value, unit)}`;

/** @param {number} share */
const formatPercent = (share) => `${share < 0.0995 ? (100 * share).toFixed(1) : Math.round(100 * share)} %`;

/**
 * @param {number} count
 * @param {string} singular
 * @param {string} [several]
 */
const formatPlural = (count, singular, several) =>
  `${formatCount(count)} ${count === 1 ? singular : several || `${singular}s`}`;

/** @param {string} text */
const toSentence = (text) => `${text.slice(0, 1).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;

/**
 * A class's or a file's name as it is read.
 * @param {string} name
 */
const toPlain = (name) => name.replaceAll("_", " ");

/** @param {string} name */
const imageSource = (name) => `images/${name}`;

// Tables: all rows of a kind, as objects, loaded once.
Atlas.table = (() => {
  const KEYS = { features: "unit", images: "id", classes: "name", comparisons: "name" };
  /** @type {Map<Kind, Promise<any>>} */
  const loaded = new Map();

  /** @param {Kind} kind */
  async function read(kind) {
    const count = Atlas.manifest.tables[kind] || 0;
    const names = Array.from({ length: count }, (_, number) => `${kind}-table-${String(number).padStart(3, "0")}`);
    const shards = await Promise.all(names.map(encoscope.load));
    /** @type {any[]} */
    const rows = [];
    for (const { columns, rows: lists } of shards) {
      for (const list of lists) {
        /** @type {Record<string, any>} */
        const row = { position: rows.length };
        for (let column = 0; column < columns.length; column++) row[columns[column]] = list[column];
        rows.push(row);
      }
    }
    return { rows, by: new Map(rows.map((row) => [row[KEYS[kind]], row])) };
  }

  return (kind) => {
    const table = loaded.get(kind) || read(kind);
    loaded.set(kind, table);
    return table;
  };
})();

Atlas.record = async (kind, position) => {
  const size = Atlas.manifest.shard[kind];
  const shard = await encoscope.load(`${kind}-${String(Math.floor(position / size)).padStart(6, "0")}`);
  return shard[position % size];
};

/** @param {string} text */
const encode = (text) => encodeURIComponent(text).replaceAll("%3A", ":").replaceAll("%2C", ",").replaceAll("%40", "@");

// Addresses: #/page/part?name=value
Atlas.link = (page, part, query) => {
  const path = isKnown(part) ? `${page}/${encode(part)}` : page;
  const entries = Object.entries(query || {}).filter(([, value]) => isKnown(value) && value !== "");
  const rest = String(new URLSearchParams(entries.map(([name, value]) => [name, String(value)])));
  return `#/${path}${rest ? `?${rest}` : ""}`;
};

Atlas.linkTo = (target) =>
  target.startsWith("class:") ? Atlas.link("class", target.slice(6)) : Atlas.link("feature", target);

Atlas.replace = (page, part, query) => {
  const address = Atlas.link(page, part, query);
  if (address !== location.hash) history.replaceState(history.state, "", address);
};
