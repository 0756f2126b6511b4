// Shards, elements, numbers: what every page stands on. A shard is a script that calls encoscope.shard(name, content);
// that works from a folder without a server, where nothing may be fetched.
"use strict";

const Atlas = { pages: {}, manifest: null, live: null };

const encoscope = (() => {
  const KEPT = 256; // shards in memory
  const held = new Map();
  const waiting = new Map();

  function shard(name, content) {
    held.set(name, content);
    const wanted = waiting.get(name);
    if (wanted) wanted.resolve(content);
  }

  function load(name) {
    if (held.has(name)) {
      const content = held.get(name);
      held.delete(name); // to the end: used last
      held.set(name, content);
      return Promise.resolve(content);
    }
    if (waiting.has(name)) return waiting.get(name).promise;
    const wanted = {};
    wanted.promise = new Promise((resolve, reject) => Object.assign(wanted, { resolve, reject }));
    waiting.set(name, wanted);
    const script = document.createElement("script");
    const done = () => {
      waiting.delete(name);
      script.remove();
      for (const old of held.keys()) {
        if (held.size <= KEPT) break;
        if (old !== "manifest" && !old.includes("table")) held.delete(old);
      }
    };
    script.onload = () => {
      done();
      wanted.reject(new Error(`data/${name}.js holds something else`)); // of no effect where it has been resolved
    };
    script.onerror = () => {
      done();
      wanted.reject(new Error(`data/${name}.js is missing`));
    };
    script.src = `data/${name}.js`;
    document.head.append(script);
    return wanted.promise;
  }

  return { shard, load };
})();

// Elements: h("a", {class: "x", href: "#/"}, "text", child). Text is always text, never markup.
function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  fill(element, properties);
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function svg(tag, properties, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  fill(element, properties);
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function fill(element, properties) {
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
}

// Counts with separators, measured numbers in two or three digits, with a true minus.
const counted = (value) => value.toLocaleString("en");
function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  const text = size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : size >= 0.1 ? value.toFixed(2) : String(Number(value.toPrecision(2)));
  return text.replace(/^-/, "\u2212");
}
// Numbers that may have either sign say which; percentages have their sign beside them.
const ofUnit = (value, unit) => `${number(value)}${unit.startsWith("% ") ? " %" : ""}`;
const signed = ({ value, unit }) => `${value > 0 && /standard deviation|logit/.test(unit) ? "+" : ""}${ofUnit(value, unit)}`;

const percent = (share) => `${share < 0.0995 ? (100 * share).toFixed(1) : Math.round(100 * share)} %`;
const plural = (count, one, many) => `${counted(count)} ${count === 1 ? one : many || one + "s"}`;
const sentence = (text) => `${text.slice(0, 1).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
const imageSource = (name) => `images/${name}`;

// Tables: all rows of a kind, as objects, loaded once.
Atlas.table = (() => {
  const loaded = new Map();
  return (kind) => {
    if (!loaded.has(kind)) loaded.set(kind, read(kind));
    return loaded.get(kind);
  };

  async function read(kind) {
    const count = Atlas.manifest.tables[kind] || 0;
    const names = Array.from({ length: count }, (_, part) => `${kind}-table-${String(part).padStart(3, "0")}`);
    const shards = await Promise.all(names.map(encoscope.load));
    const rows = [];
    for (const { columns, rows: lists } of shards) {
      for (const list of lists) {
        const row = { place: rows.length };
        for (let column = 0; column < columns.length; column++) row[columns[column]] = list[column];
        rows.push(row);
      }
    }
    const key = { features: "unit", images: "id", classes: "name", comparisons: "name" }[kind];
    return { rows, by: new Map(rows.map((row) => [row[key], row])) };
  }
})();

Atlas.record = async (kind, place) => {
  const size = Atlas.manifest.shard[kind];
  const shard = await encoscope.load(`${kind}-${String(Math.floor(place / size)).padStart(6, "0")}`);
  return shard[place % size];
};

// Addresses: #/page/part?name=value
Atlas.link = (page, part, query) => {
  const path = part === undefined || part === null ? page : `${page}/${encode(part)}`;
  const rest = new URLSearchParams(Object.entries(query || {}).filter(([, value]) => value !== "" && value != null));
  return `#/${path}${String(rest) ? `?${rest}` : ""}`;
};
const encode = (text) => encodeURIComponent(text).replaceAll("%3A", ":").replaceAll("%2C", ",").replaceAll("%40", "@");

Atlas.linkTo = (target) =>
  target.startsWith("class:") ? Atlas.link("class", target.slice(6)) : Atlas.link("feature", target);

Atlas.replace = (page, part, query) => {
  const address = Atlas.link(page, part, query);
  if (address !== location.hash) history.replaceState(history.state, "", address);
};
