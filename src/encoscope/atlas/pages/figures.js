// Small figures that several pages share: a measure beside its control, a histogram, a picture, a link to a feature.
"use strict";

// A number with its unit, its control and its interval; as a scale where its range is known.
Atlas.measure = (measure, { label, low, high } = {}) => {
  const notes = [];
  if (measure.interval)
    notes.push(`95 % interval ${formatNumber(measure.interval[0])} to ${formatNumber(measure.interval[1])}`);
  if (isKnown(measure.control)) notes.push(`control ${formatNumber(measure.control)}: ${measure.control_name}`);
  return h("div", { class: "measure" }, [
    h("div", { class: "measure-head" }, [
      label ? h("span", { class: "label" }, label) : null,
      h("span", { class: "value" }, formatNumber(measure.value), " ", h("span", { class: "unit" }, measure.unit)),
    ]),
    isKnown(low) && isKnown(high) ? Atlas.scale(measure, low, high) : null,
    notes.length ? h("div", { class: "note" }, notes.join(" · ")) : null,
  ]);
};

// A line from low to high: the interval as a bar, the value as a dot, the control as a tick.
Atlas.scale = (measure, low, high) => {
  /** @param {number} value */
  const at = (value) => `${(100 * (Math.min(high, Math.max(low, value)) - low)) / (high - low)}%`;
  const { value, unit, control, interval } = measure;
  const text = `${formatNumber(value)} ${unit}${isKnown(control) ? `, control ${formatNumber(control)}` : ""}`;
  return svg("svg", { class: "scale", role: "img", "aria-label": text, width: "100%", height: 14 }, [
    svg("line", { class: "axis", x1: "0%", x2: "100%", y1: 7, y2: 7 }),
    isKnown(control) ? svg("line", { class: "gain", x1: at(control), x2: at(value), y1: 7, y2: 7 }) : null,
    interval ? svg("line", { class: "interval", x1: at(interval[0]), x2: at(interval[1]), y1: 7, y2: 7 }) : null,
    isKnown(control) ? svg("line", { class: "control", x1: at(control), x2: at(control), y1: 1, y2: 13 }) : null,
    svg("circle", { class: "dot", cx: at(value), cy: 7, r: 4.5 }),
  ]);
};

// Whether a description may stand as a feature's name: its test beat chance, or it was never tested (older atlases).
Atlas.isProven = (verdict) => !verdict || verdict === "beats its control";

// Ranked terms with bars from zero to the best, and a tick at the control.
Atlas.terms = (terms, description, { struck } = {}) => {
  const control = description.control || 0;
  const highest = Math.max(...terms.map((term) => term.score), control, 1e-9);
  /** @param {number} score */
  const width = (score) => `${(100 * Math.max(0, score)) / highest}%`;
  return h(
    "ol",
    { class: struck ? "terms struck" : "terms" },
    terms.map((term) =>
      h("li", {}, [
        h(
          "a",
          {
            class: "term",
            href: Atlas.link("features", null, { q: term.text }),
            title: "Other features of this word",
          },
          term.text,
        ),
        h("span", { class: "bar", "aria-hidden": true }, [
          h("span", { class: "bar-fill", style: { width: width(term.score) } }),
          control ? h("span", { class: "bar-tick", style: { left: width(control) } }) : null,
        ]),
        h("span", { class: "score" }, formatNumber(term.score)),
      ]),
    ),
  );
};

// How often a unit takes which values; positions: values at which triangles stand.
Atlas.histogram = (histogram, positions) => {
  const [width, height, base] = [640, 170, 146];
  const { edges, counts, mean, std } = histogram;
  const [first, last, top] = [edges[0], edges[edges.length - 1], Math.max(...counts, 1)];
  /** @param {number} value */
  const x = (value) => 8 + ((value - first) / (last - first || 1)) * (width - 16);
  /** @param {number} count */
  const y = (count) => base - (Math.sqrt(count) / Math.sqrt(top)) * (base - 22);
  /** @param {number} value */
  const isInside = (value) => value >= first && value <= last;
  const total = counts.reduce((sum, count) => sum + count, 0);
  const spread = `mean ${formatNumber(mean)}, standard deviation ${formatNumber(std)}`;
  const caption = `${histogram.unit}, over ${formatPlural(total, "image")}; ${spread}`;
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => first + share * (last - first));
  const anchors = ["start", "middle", "middle", "middle", "end"];

  /**
   * @param {number} count
   * @param {number} bin
   */
  function bar(count, bin) {
    const [from, to] = [edges[bin], edges[bin + 1]];
    const text = `${formatPlural(count, "image")} from ${formatNumber(from)} to ${formatNumber(to)}`;
    const size = { x: x(from) + 0.5, width: Math.max(1, x(to) - x(from) - 1), y: y(count), height: base - y(count) };
    return svg("rect", { class: "bin", ...size }, svg("title", {}, text));
  }

  function spreadBox() {
    const [left, right] = [x(Math.max(first, mean - std)), x(Math.min(last, mean + std))];
    return svg("rect", { class: "spread", x: left, width: Math.max(1, right - left), y: 14, height: base - 14 });
  }

  return h("figure", { class: "histogram" }, [
    svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Histogram of ${caption}` }, [
      isInside(mean - std) || isInside(mean + std) ? spreadBox() : null,
      counts.map((count, bin) => (count ? bar(count, bin) : null)),
      svg("text", { x: width - 8, y: 12, "text-anchor": "end" }, `highest bar: ${formatPlural(top, "image")}`),
      svg("line", { class: "axis", x1: 8, x2: width - 8, y1: base, y2: base }),
      svg("line", { class: "mean", x1: x(mean), x2: x(mean), y1: 12, y2: base }),
      svg("text", { x: Math.min(x(mean) + 5, width - 190), y: 12 }, "mean"),
      positions
        .filter(isInside)
        .map((value) => svg("path", { class: "pointer", d: `M${x(value)} ${base - 2}l-4 -8h8z` })),
      ticks.map((tick, order) =>
        svg("text", { x: x(tick), y: base + 17, "text-anchor": anchors[order] }, formatNumber(tick)),
      ),
    ]),
    h(
      "figcaption",
      {},
      `${caption}. Heights grow with the square root of the count; triangles show where the crops above stand.`,
    ),
  ]);
};

// A picture of the site. Its size is known, so that nothing jumps when it arrives.
Atlas.image = (file, alt, properties) =>
  h("img", {
    src: imageSource(file.name),
    width: file.width,
    height: file.height,
    alt,
    decoding: "async",
    loading: "lazy",
    ...properties,
  });

// A crop with the outline of what drives the unit, and the box on a whole image.
Atlas.crop = (crop, unit, { href } = {}) => {
  const { width, height } = crop.picture;
  const overlay = cropOverlay(crop);
  const text = `${formatNumber(crop.value.value)} ${crop.value.unit}`;
  // whole images are shown as squares, so that a row of them is even
  const frame = h("span", { class: "frame", style: { "aspect-ratio": overlay ? `${width} / ${height}` : "1" } }, [
    Atlas.image(crop.picture, `${unit} at ${text}`),
    overlay,
  ]);
  const caption = crop.captions?.[0] ? ` ${crop.captions[0]}` : null;
  return h("figure", { class: "crop" }, [
    href ? h("a", { href, class: "frame-link" }, frame) : frame,
    h("figcaption", {}, [h("b", {}, formatSigned(crop.value)), caption]),
  ]);
};

/**
 * The lines over a crop; null where there are none.
 * @param {CropRecord} crop
 */
function cropOverlay(crop) {
  const { width, height } = crop.picture;
  /** @param {[number, number][]} polygon */
  const path = (polygon) =>
    `M${polygon.map(([x, y]) => `${(x * width).toFixed(1)} ${(y * height).toFixed(1)}`).join("L")}Z`;
  const outline = (crop.outline || []).map(path).join("");
  if (!outline && !crop.box) return null;
  const [left, top, right, bottom] = crop.box || [0, 0, 0, 0];
  const box = { x: left * width, y: top * height, width: (right - left) * width, height: (bottom - top) * height };
  return svg(
    "svg",
    { class: "crop-lines", viewBox: `0 0 ${width} ${height}`, "aria-hidden": true, preserveAspectRatio: "none" },
    [
      outline ? svg("path", { class: "halo", d: outline }) : null,
      outline ? svg("path", { class: "outline", d: outline }) : null,
      crop.box ? svg("rect", { class: "box", ...box }) : null,
    ],
  );
}

// One line on what the numbers below a row of crops are.
Atlas.legend = (measure) =>
  h("p", { class: "note" }, [
    `Numbers: ${measure.unit.replace(/^% /, "share ")}`,
    isKnown(measure.control)
      ? `; control ${formatWithUnit(measure.control, measure.unit)}, ${measure.control_name}`
      : "",
    ".",
  ]);

// What stands for a feature in lists: its picture, or its strongest crops, or its name.
Atlas.face = (row, { lazy } = {}) => {
  const properties = { decoding: "async", ...(lazy === false ? { loading: "eager" } : {}) };
  if (row?.picture) {
    const image = h("img", { src: imageSource(row.picture), alt: `What excites ${row.unit}`, ...properties });
    return h("span", { class: "face" }, image);
  }
  if (row?.crops?.length)
    return h(
      "span",
      { class: `face mosaic of-${Math.min(4, row.crops.length)}` },
      row.crops.slice(0, 4).map((crop, order) =>
        h("img", {
          src: imageSource(crop),
          alt: order ? "" : `Where ${row.unit} is strongest`,
          ...properties,
        }),
      ),
    );
  return h("span", { class: "face empty", "aria-hidden": true });
};

// A link to a feature, or a class, with its face, its concepts and how strongly it is tied. What the atlas holds no
// record of is named and shown by the images that came with the link, and leads nowhere.
Atlas.chip = (link, row, { strongest, examples } = {}) => {
  const isClass = link.target.startsWith("class:");
  const name = isClass ? toPlain(link.target.slice(6)) : link.target;
  const crops = examples || (link.examples || []).map((picture) => picture.name);
  const { value, unit } = link.measure;
  const children = [
    Atlas.face(/** @type {Face} */ (row) || { unit: name, crops }),
    h("span", { class: "chip-text" }, [
      h("span", { class: isClass ? "chip-name" : "chip-name mono" }, name),
      chipConcepts(row, isClass),
      strongest ? chipBar(value, strongest) : null,
    ]),
    h("span", { class: "chip-value", title: `${formatNumber(value)} ${unit}` }, formatSigned(link.measure)),
  ];
  return row
    ? h("a", { class: "chip", href: Atlas.linkTo(link.target) }, children)
    : h("span", { class: "chip" }, children);
};

/**
 * @param {FeatureRow | ClassRow | undefined} row
 * @param {boolean} isClass
 */
function chipConcepts(row, isClass) {
  if (row && "concepts" in row && row.concepts.length)
    return h("span", { class: "chip-words" }, row.concepts.slice(0, 3).join(", "));
  return row || isClass ? null : h("span", { class: "chip-words soft" }, "not described here");
}

/**
 * @param {number} value
 * @param {number} strongest
 */
function chipBar(value, strongest) {
  const width = `${100 * Math.min(1, Math.abs(value) / strongest)}%`;
  return h(
    "span",
    { class: "bar", "aria-hidden": true },
    h("span", { class: value < 0 ? "bar-fill negative" : "bar-fill", style: { width } }),
  );
}

// Chips with one line below on what their numbers are. A class that the atlas does not describe is shown by its images.
Atlas.chips = (links, features, classes, images) => {
  const strongest = Math.max(...links.map((link) => Math.abs(link.measure.value)), 1e-9);
  /** @param {string} target */
  const rowOf = (target) => (target.startsWith("class:") ? classes.by.get(target.slice(6)) : features.by.get(target));
  /** @param {string} target */
  function examplesOf(target) {
    if (!images || !target.startsWith("class:") || rowOf(target)) return null;
    const row = images.rows.find((image) => image.label === target.slice(6) && image.thumbnail);
    return row?.thumbnail ? [row.thumbnail[0]] : [];
  }
  const items = links.map((link) =>
    h("li", {}, Atlas.chip(link, rowOf(link.target), { strongest, examples: examplesOf(link.target) })),
  );
  return h("div", {}, [h("ul", { class: "chips" }, items), links.length ? Atlas.legend(links[0].measure) : null]);
};

Atlas.section = (title, lead, ...children) =>
  h("section", { class: "section" }, [h("h2", {}, title), lead ? h("p", { class: "lead" }, lead) : null, ...children]);

Atlas.missing = (text) => h("p", { class: "notice" }, text);

// Above a page's title: the list that it is in, and its neighbours there.
Atlas.neighbours = (list, before, after) =>
  h("nav", { class: "crumbs", "aria-label": "Neighbours" }, [
    h("a", { href: list.href }, list.text),
    h("span", { class: "spacer" }),
    before ? h("a", { href: before.href, rel: "prev", title: before.title }, `← ${before.text}`) : null,
    after ? h("a", { href: after.href, rel: "next", title: after.title }, `${after.text} →`) : null,
  ]);

Atlas.neighbourKeys = {
  j: () => document.querySelector('a[rel="next"]'),
  k: () => document.querySelector('a[rel="prev"]'),
};

// A list's controls: a search field, and what filters and sorts.
Atlas.searchField = (placeholder, label, value) =>
  h("input", {
    type: "search",
    id: "search",
    placeholder,
    "aria-label": label,
    value: value || "",
    autocomplete: "off",
  });

Atlas.searchKeys = { "/": () => document.getElementById("search") };

Atlas.toolbar = (search, ...children) =>
  h("form", { class: "toolbar", role: "search", onsubmit: (event) => event.preventDefault() }, [
    h("div", { class: "search" }, [search, h("kbd", { "aria-hidden": true }, "/")]),
    ...children,
  ]);

Atlas.select = (name, label, options, chosen, change) =>
  h("label", { class: "field" }, [
    h("span", {}, label),
    h(
      "select",
      { name, onchange: (event) => change(name, event.target.value) },
      options.map(([value, text]) => h("option", { value, selected: (chosen || options[0][0]) === value }, text)),
    ),
  ]);

// How many of a list are shown.
Atlas.countOf = (selected, all, name) =>
  selected === all ? formatPlural(all, name) : `${formatCount(selected)} of ${formatPlural(all, name)}`;
