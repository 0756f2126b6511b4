// Small figures that several pages share: a measure beside its control, a histogram, a picture, a link to a feature.
"use strict";

// A number with its unit, its control and its interval; as a scale where its range is known.
Atlas.measure = (measure, { label, low, high } = {}) => {
  const [value, control] = [measure.value, measure.control];
  const parts = [
    h("div", { class: "measure-head" }, [
      label ? h("span", { class: "label" }, label) : null,
      h("span", { class: "value" }, number(value), " ", h("span", { class: "unit" }, measure.unit)),
    ]),
  ];
  if (low !== undefined) parts.push(Atlas.scale(measure, low, high));
  const notes = [];
  if (measure.interval) notes.push(`95 % interval ${number(measure.interval[0])} to ${number(measure.interval[1])}`);
  if (control !== null && control !== undefined) notes.push(`control ${number(control)}: ${measure.control_name}`);
  if (notes.length) parts.push(h("div", { class: "note" }, notes.join(" · ")));
  return h("div", { class: "measure" }, parts);
};

// A line from low to high: the interval as a bar, the value as a dot, the control as a tick.
Atlas.scale = (measure, low, high) => {
  const at = (value) => `${(100 * (Math.min(high, Math.max(low, value)) - low)) / (high - low)}%`;
  const has = measure.control !== null && measure.control !== undefined;
  const text = `${number(measure.value)} ${measure.unit}${has ? `, control ${number(measure.control)}` : ""}`;
  return svg("svg", { class: "scale", role: "img", "aria-label": text, width: "100%", height: 14 }, [
    svg("line", { class: "axis", x1: "0%", x2: "100%", y1: 7, y2: 7 }),
    has ? svg("line", { class: "gain", x1: at(measure.control), x2: at(measure.value), y1: 7, y2: 7 }) : null,
    measure.interval
      ? svg("line", { class: "interval", x1: at(measure.interval[0]), x2: at(measure.interval[1]), y1: 7, y2: 7 })
      : null,
    has ? svg("line", { class: "control", x1: at(measure.control), x2: at(measure.control), y1: 1, y2: 13 }) : null,
    svg("circle", { class: "dot", cx: at(measure.value), cy: 7, r: 4.5 }),
  ]);
};

// Ranked terms with bars from zero to the best, and a tick at the control.
Atlas.terms = (terms, words, { struck } = {}) => {
  const highest = Math.max(...terms.map((term) => term.score), words.control || 0, 1e-9);
  const tick = words.control ? `${(100 * Math.max(0, words.control)) / highest}%` : null;
  return h(
    "ol",
    { class: struck ? "terms struck" : "terms" },
    terms.map((term) =>
      h("li", {}, [
        h("a", { class: "term", href: Atlas.link("features", null, { q: term.text }), title: "Other features of this word" }, term.text),
        h("span", { class: "bar", "aria-hidden": true }, [
          h("span", { class: "bar-fill", style: { width: `${(100 * Math.max(0, term.score)) / highest}%` } }),
          tick ? h("span", { class: "bar-tick", style: { left: tick } }) : null,
        ]),
        h("span", { class: "score" }, number(term.score)),
      ]),
    ),
  );
};

Atlas.histogram = (histogram, marks) => {
  const [width, height, base] = [640, 170, 146];
  const { edges, counts, mean, std } = histogram;
  const [first, last, top] = [edges[0], edges[edges.length - 1], Math.max(...counts, 1)];
  const x = (value) => 8 + ((value - first) / (last - first || 1)) * (width - 16);
  const y = (count) => base - (Math.sqrt(count) / Math.sqrt(top)) * (base - 22);
  const total = counts.reduce((sum, count) => sum + count, 0);
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => first + share * (last - first));
  const caption = `${histogram.unit}, over ${plural(total, "image")}; mean ${number(mean)}, standard deviation ${number(std)}`;
  const inside = (value) => value >= first && value <= last;
  return h("figure", { class: "histogram" }, [
    svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Histogram of ${caption}` }, [
      inside(mean - std) || inside(mean + std)
        ? svg("rect", {
            class: "spread",
            x: x(Math.max(first, mean - std)),
            width: Math.max(1, x(Math.min(last, mean + std)) - x(Math.max(first, mean - std))),
            y: 14,
            height: base - 14,
          })
        : null,
      counts.map((count, bin) => {
        const [left, right] = [x(edges[bin]), x(edges[bin + 1])];
        const title = svg("title", {}, `${plural(count, "image")} from ${number(edges[bin])} to ${number(edges[bin + 1])}`);
        return count
          ? svg("rect", { class: "bin", x: left + 0.5, width: Math.max(1, right - left - 1), y: y(count), height: base - y(count) }, title)
          : null;
      }),
      svg("text", { x: width - 8, y: 12, "text-anchor": "end" }, `highest bar: ${plural(top, "image")}`),
      svg("line", { class: "axis", x1: 8, x2: width - 8, y1: base, y2: base }),
      svg("line", { class: "mean", x1: x(mean), x2: x(mean), y1: 12, y2: base }),
      svg("text", { x: Math.min(x(mean) + 5, width - 190), y: 12 }, "mean"),
      (marks || []).filter(inside).map((mark) => svg("path", { class: "mark", d: `M${x(mark)} ${base - 2}l-4 -8h8z` })),
      ticks.map((tick, order) =>
        svg("text", { x: x(tick), y: base + 17, "text-anchor": order === 0 ? "start" : order === 4 ? "end" : "middle" }, number(tick)),
      ),
    ]),
    h("figcaption", {}, `${caption}. Heights grow with the square root of the count; triangles mark the crops above.`),
  ]);
};

// A picture of the site. Its size is known, so that nothing jumps when it arrives.
Atlas.picture = (picture, alt, properties) =>
  h("img", {
    src: imageSource(picture.name),
    width: picture.width,
    height: picture.height,
    alt,
    decoding: "async",
    loading: "lazy",
    ...properties,
  });

// A crop with the outline of what drives the unit, and the box on a whole image.
Atlas.crop = (crop, unit, { href, extra } = {}) => {
  const { width, height } = crop.picture;
  const path = (polygon) => `M${polygon.map(([x, y]) => `${(x * width).toFixed(1)} ${(y * height).toFixed(1)}`).join("L")}Z`;
  const outline = (crop.outline || []).map(path).join("");
  const text = `${number(crop.value.value)} ${crop.value.unit}`;
  const marks =
    outline || crop.box
      ? svg("svg", { class: "marks", viewBox: `0 0 ${width} ${height}`, "aria-hidden": true, preserveAspectRatio: "none" }, [
          outline ? svg("path", { class: "halo", d: outline }) : null,
          outline ? svg("path", { class: "outline", d: outline }) : null,
          crop.box
            ? svg("rect", {
                class: "box",
                x: crop.box[0] * width,
                y: crop.box[1] * height,
                width: (crop.box[2] - crop.box[0]) * width,
                height: (crop.box[3] - crop.box[1]) * height,
              })
            : null,
        ])
      : null;
  // whole images are shown as squares, so that a row of them is one
  const frame = h("span", { class: "frame", style: { "aspect-ratio": marks ? `${width} / ${height}` : "1" } }, [
    Atlas.picture(crop.picture, `${unit} at ${text}`),
    marks,
  ]);
  return h("figure", { class: "crop" }, [
    href ? h("a", { href, class: "frame-link" }, frame) : frame,
    h("figcaption", {}, [h("b", {}, signed(crop.value)), extra || (crop.captions && crop.captions[0] ? ` ${crop.captions[0]}` : null)]),
  ]);
};

// One line on what the numbers below a row of crops are.
Atlas.legend = (measure) =>
  h("p", { class: "note" }, [
    `Numbers: ${measure.unit.replace(/^% /, "share ")}`,
    measure.control !== null && measure.control !== undefined ? `; control ${ofUnit(measure.control, measure.unit)}, ${measure.control_name}` : "",
    ".",
  ]);

// What stands for a feature in lists: its picture, or its strongest crops, or its name.
Atlas.face = (row, { lazy } = {}) => {
  const properties = lazy === false ? { loading: "eager" } : {};
  if (row && row.picture)
    return h("span", { class: "face" }, h("img", { src: imageSource(row.picture), alt: `What excites ${row.unit}`, decoding: "async", ...properties }));
  if (row && row.crops && row.crops.length)
    return h(
      "span",
      { class: `face mosaic of-${Math.min(4, row.crops.length)}` },
      row.crops.slice(0, 4).map((crop, place) =>
        h("img", { src: imageSource(crop), alt: place ? "" : `Where ${row.unit} fires most`, decoding: "async", ...properties }),
      ),
    );
  return h("span", { class: "face empty", "aria-hidden": true });
};

// A link to a feature, or a class, with its face, its words and how strongly it is tied. What the atlas holds no record
// of is named and shown by the images that came with the link, and leads nowhere.
Atlas.chip = (link, row, { strongest, examples } = {}) => {
  const isClass = link.target.startsWith("class:");
  const name = isClass ? link.target.slice(6).replaceAll("_", " ") : link.target;
  const words = row && row.concepts && row.concepts.length ? row.concepts.slice(0, 3).join(", ") : "";
  const share = strongest ? Math.min(1, Math.abs(link.measure.value) / strongest) : null;
  const inside = [
    Atlas.face(row || { unit: name, crops: examples || (link.examples || []).map((picture) => picture.name) }),
    h("span", { class: "chip-text" }, [
      h("span", { class: isClass ? "chip-name" : "chip-name mono" }, name),
      words ? h("span", { class: "chip-words" }, words) : row || isClass ? null : h("span", { class: "chip-words soft" }, "not described here"),
      share === null
        ? null
        : h("span", { class: "bar", "aria-hidden": true }, h("span", { class: link.measure.value < 0 ? "bar-fill negative" : "bar-fill", style: { width: `${100 * share}%` } })),
    ]),
    h("span", { class: "chip-value", title: `${number(link.measure.value)} ${link.measure.unit}` }, signed(link.measure)),
  ];
  return row ? h("a", { class: "chip", href: Atlas.linkTo(link.target) }, inside) : h("span", { class: "chip" }, inside);
};

// Chips with one line below on what their numbers are. A class that the atlas does not describe is shown by its images.
Atlas.chips = (links, table, classes, images) => {
  const strongest = Math.max(...links.map((link) => Math.abs(link.measure.value)), 1e-9);
  const row = (target) => (target.startsWith("class:") ? classes && classes.by.get(target.slice(6)) : table.by.get(target));
  const examples = ({ target }) =>
    images && target.startsWith("class:")
      ? images.rows.filter((image) => image.label === target.slice(6) && image.thumbnail).slice(0, 1).map((image) => image.thumbnail[0])
      : null;
  return h("div", {}, [
    h("ul", { class: "chips" }, links.map((link) => h("li", {}, Atlas.chip(link, row(link.target), { strongest, examples: row(link.target) ? null : examples(link) })))),
    links.length ? Atlas.legend(links[0].measure) : null,
  ]);
};

Atlas.section = (title, lead, ...children) =>
  h("section", { class: "section" }, [h("h2", {}, title), lead ? h("p", { class: "lead" }, lead) : null, ...children]);

Atlas.missing = (text) => h("p", { class: "notice" }, text);
