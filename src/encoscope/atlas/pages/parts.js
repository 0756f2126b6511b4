// The parts of an image: labels from a shard, regions at any granularity from the tree, drawn over the picture.
"use strict";

Atlas.parts = (() => {
  // The labels of a map from its runs, row by row.
  function decode(map) {
    const cells = new Uint8Array(map.rows * map.columns);
    let place = 0;
    for (let run = 0; run < map.runs.length; run += 2) {
      cells.fill(map.runs[run], place, place + map.runs[run + 1]);
      place += map.runs[run + 1];
    }
    return cells;
  }

  const leavesOf = (merges) => merges.length + 1;

  // The node of every leaf when so many regions remain: the first merges are done.
  function cut(merges, regions) {
    const leaves = leavesOf(merges);
    const nodes = Array.from({ length: leaves }, (_, leaf) => leaf);
    for (let step = 0; step < leaves - regions; step++)
      for (let leaf = 0; leaf < leaves; leaf++) if (merges[step].includes(nodes[leaf])) nodes[leaf] = leaves + step;
    return nodes;
  }

  // A region has the colour of its largest leaf, so that colours stay as the granularity changes.
  function colours(nodes, sizes) {
    const best = new Map();
    nodes.forEach((node, leaf) => {
      if (!best.has(node) || sizes[leaf] > sizes[best.get(node)]) best.set(node, leaf);
    });
    return best;
  }

  function count(cells, leaves) {
    const sizes = new Array(leaves).fill(0);
    for (const leaf of cells) sizes[leaf]++;
    return sizes;
  }

  // Colours and outlines of regions on a canvas over a picture. only: the nodes that are lit, the others are dimmed.
  function draw(canvas, map, cells, nodes, colour, { strength = 0.55, only = null } = {}) {
    const scale = Math.max(2, Math.ceil(720 / Math.max(map.rows, map.columns)));
    canvas.width = map.columns * scale;
    canvas.height = map.rows * scale;
    const context = canvas.getContext("2d");
    const palette = Atlas.manifest.palette;
    for (let row = 0; row < map.rows; row++) {
      for (let column = 0; column < map.columns; ) {
        const node = nodes[cells[row * map.columns + column]];
        let end = column + 1;
        while (end < map.columns && nodes[cells[row * map.columns + end]] === node) end++;
        const lit = !only || only.has(node);
        context.globalAlpha = lit ? (only ? strength * 0.55 : strength) : 0.78;
        context.fillStyle = lit ? palette[colour.get(node) % palette.length] : "#1a1a18";
        context.fillRect(column * scale, row * scale, (end - column) * scale, scale);
        column = end;
      }
    }
    const lines = new Path2D();
    const side = (first, second) => first !== second && (!only || only.has(first) || only.has(second));
    for (let row = 0; row < map.rows; row++) {
      for (let column = 0; column < map.columns; column++) {
        const here = nodes[cells[row * map.columns + column]];
        if (column + 1 < map.columns && side(here, nodes[cells[row * map.columns + column + 1]])) {
          lines.moveTo((column + 1) * scale, row * scale);
          lines.lineTo((column + 1) * scale, (row + 1) * scale);
        }
        if (row + 1 < map.rows && side(here, nodes[cells[(row + 1) * map.columns + column]])) {
          lines.moveTo(column * scale, (row + 1) * scale);
          lines.lineTo((column + 1) * scale, (row + 1) * scale);
        }
      }
    }
    context.globalAlpha = 1;
    context.lineCap = "round";
    context.strokeStyle = "rgba(0,0,0,.55)";
    context.lineWidth = 4.5;
    context.stroke(lines);
    context.strokeStyle = "#fff";
    context.lineWidth = 1.8;
    context.stroke(lines);
  }

  const treeOf = (part) =>
    part.merges && part.merges.length
      ? part.merges
      : (Atlas.manifest.segmentations.find((info) => info.id === part.segmentation) || {}).merges || [];

  const infoOf = (part) => Atlas.manifest.segmentations.find((info) => info.id === part.segmentation) || { scope: "image", layers: [part.segmentation] };

  const nameOf = (info) => `${info.layers.join(" + ")}, ${info.scope === "joint" ? "all images together" : "this image alone"}`;

  // The explorer: picture, slider, choice of layer, regions with their features, and the same cluster elsewhere.
  function explorer(record, source, { state, changed, table, classes, images }) {
    const parts = record.parts || [];
    if (!parts.length) return Atlas.missing("This image has not been parted yet.");
    let part = parts.find((one) => one.segmentation === state.s) || parts[0];
    let [cells, tree, sizes, nodes, colour] = [];
    let [hovered, pinned] = [null, null];

    const canvas = h("canvas", { class: "overlay", "aria-hidden": true });
    const picture = h("img", { src: source.src, alt: source.alt, width: source.width, height: source.height, class: "photo" });
    const stage = h("div", { class: "photo-stage", style: { "aspect-ratio": `${source.width} / ${source.height}` } }, [picture, canvas]);
    // as large as the window is high, and at most twice as large as the picture is
    const room = `min(${((76 * source.width) / source.height).toFixed(1)}vh, ${Math.max(320, 2 * source.width)}px)`;
    const slider = h("input", { type: "range", id: "granularity", min: 2, step: 1 });
    const output = h("output", { for: "granularity" });
    const strength = h("input", { type: "range", id: "strength", min: 0, max: 100, step: 5, value: 50 });
    const share = h("output", { for: "strength" }, "50 %");
    const choose = h("select", { id: "layer", "aria-label": "Layer" },
      parts.map((one) => h("option", { value: one.segmentation, selected: one === part }, nameOf(infoOf(one)))));
    const list = h("ul", { class: "regions" });
    const elsewhere = h("div", { class: "elsewhere" });
    const elsewhereLead = h("p", { class: "lead" });

    const lit = () => hovered ?? pinned;
    function redraw() {
      const node = lit();
      draw(canvas, part.labels, cells, nodes, colour, { strength: strength.value / 100, only: node === null ? null : new Set([node]) });
      for (const item of list.children) item.classList.toggle("lit", Number(item.dataset.node) === node);
    }

    function take() {
      tree = treeOf(part);
      cells = decode(part.labels);
      const info = infoOf(part);
      const here = count(cells, leavesOf(tree));
      sizes = info.sizes && info.sizes.length ? info.sizes : here;
      slider.max = Math.min(20, leavesOf(tree));
      slider.value = Math.min(Number(slider.max), Math.max(2, Number(state.k) || 5));
      regions();
    }

    function regions() {
      nodes = cut(tree, Number(slider.value));
      colour = colours(nodes, sizes);
      const here = count(cells, leavesOf(tree));
      const areas = new Map();
      here.forEach((area, leaf) => areas.set(nodes[leaf], (areas.get(nodes[leaf]) || 0) + area));
      const present = [...areas].filter(([, area]) => area > 0).sort((a, b) => b[1] - a[1]);
      const joint = infoOf(part).scope === "joint";
      output.textContent = joint ? `${slider.value} clusters, ${present.length} here` : plural(Number(slider.value), "region");
      if (!areas.has(hovered)) hovered = null;
      if (!areas.get(pinned)) pinned = null;
      const tops = new Map((part.tops || []).map((top) => [top.node, top.features]));
      list.replaceChildren(...present.map(([node, area]) => region(node, area / cells.length, tops.get(node) || [])));
      redraw();
      neighbours();
    }

    function region(node, area, features) {
      const button = h("button", { type: "button", class: "region", "aria-pressed": node === pinned }, [
        h("span", { class: "swatch", style: { background: Atlas.manifest.palette[colour.get(node) % Atlas.manifest.palette.length] } }),
        h("span", { class: "region-share" }, `${percent(area)} of the image`),
      ]);
      const enter = () => {
        hovered = node;
        redraw();
        soon();
      };
      const leave = () => {
        hovered = null;
        redraw();
        soon();
      };
      button.addEventListener("click", () => {
        pinned = pinned === node ? null : node;
        for (const one of list.querySelectorAll(".region")) one.setAttribute("aria-pressed", one === button && pinned !== null);
        redraw();
        soon();
      });
      return h("li", { "data-node": node, onpointerenter: enter, onpointerleave: leave, onfocusin: enter, onfocusout: leave }, [
        button,
        features.length
          ? h("ul", { class: "region-features" }, features.slice(0, 3).map((link) => {
              const row = table.by.get(link.target);
              const inside = [h("span", { class: "mono" }, link.target), row && row.concepts[0] ? ` ${row.concepts[0]}` : "", h("b", {}, ` ${signed(link.measure)} σ`)];
              return h("li", {}, row ? h("a", { href: Atlas.linkTo(link.target) }, inside) : h("span", {}, inside));
            }))
          : h("p", { class: "region-features soft" }, "no feature of this atlas stands out here"),
      ]);
    }

    // The images that hold most of the lit cluster, with nothing else lit.
    let [timer, turn] = [0, 0];
    const soon = () => {
      clearTimeout(timer);
      timer = setTimeout(neighbours, 90);
    };
    async function neighbours() {
      const mine = ++turn;
      if (!images) return elsewhere.parentElement && (elsewhere.parentElement.hidden = true);
      const node = lit();
      const shared = node === null ? null : infoOf(part).scope === "joint" ? { part, nodes, node, colour } : standIn(node);
      if (!shared) {
        elsewhereLead.textContent = parts.some((one) => infoOf(one).scope === "joint")
          ? "Point at a region, or choose it with Tab and Enter, to see the same cluster in other images."
          : "Images were parted one by one, so regions have no namesakes in other images.";
        elsewhere.replaceChildren();
        return null;
      }
      const leaves = shared.nodes.map((one, leaf) => (one === shared.node ? leaf : -1)).filter((leaf) => leaf >= 0);
      const has = (row) => leaves.reduce((sum, leaf) => sum + (((row.shares || {})[shared.part.segmentation] || [])[leaf] || 0), 0);
      const best = images.rows.filter((row) => row.id !== record.id).map((row) => [has(row), row]).filter(([much]) => much > 0).sort((a, b) => b[0] - a[0]).slice(0, 8);
      const named = shared.part === part
        ? "The same cluster"
        : `Of the ${plural(leavesOf(treeOf(shared.part)), "cluster")} of all images, the one that covers most of this region (${percent(shared.share)} of it)`;
      elsewhereLead.textContent = best.length ? `${named}, where it takes up most of other images:` : `${named}: no other image holds it.`;
      const found = await Promise.all(best.map(([, row]) => Atlas.record("images", row.place).catch(() => null)));
      if (mine !== turn) return null;
      elsewhere.replaceChildren(...found.map((other, place) => other && small(other, best[place], shared)).filter(Boolean));
      return null;
    }
    // A region of an image that was parted alone has no namesakes: the cluster of all images that covers most of it does.
    function standIn(node) {
      const joint = parts.find((one) => {
        const info = infoOf(one);
        return info.scope === "joint" && String(info.layers) === String(infoOf(part).layers) && one.labels.rows === part.labels.rows && one.labels.columns === part.labels.columns;
      });
      if (!joint) return null;
      const theirs = decode(joint.labels);
      const held = theirs.filter((_, cell) => nodes[cells[cell]] === node);
      const counts = count(held, leavesOf(treeOf(joint)));
      const most = counts.indexOf(Math.max(...counts));
      const leaves = counts.map((_, leaf) => leaf);
      return { part: joint, nodes: leaves, node: most, share: counts[most] / held.length, colour: new Map([[most, colour.get(node)]]) };
    }
    function small(other, [much, row], shared) {
      const same = (other.parts || []).find((one) => one.segmentation === shared.part.segmentation);
      const shown = other.thumbnail || other.picture;
      if (!same || !shown) return null;
      const over = h("canvas", { class: "overlay", "aria-hidden": true });
      draw(over, same.labels, decode(same.labels), shared.nodes, shared.colour, { strength: 0.5, only: new Set([shared.node]) });
      const name = (row.label || row.name).replaceAll("_", " ");
      return h("a", { class: "other", href: Atlas.link("image", other.id, { s: shared.part.segmentation, k: shared.part === part ? slider.value : shared.nodes.length }) }, [
        h("span", { class: "photo-stage", style: { "aspect-ratio": `${shown.width} / ${shown.height}`, height: `min(var(--high), calc(var(--broad) * ${(shown.height / shown.width).toFixed(3)}))` } }, [Atlas.picture(shown, name, { class: "photo", loading: "eager" }), over]),
        h("span", { class: "other-name" }, `${name}: ${percent(much / 1000)}`),
      ]);
    }

    slider.addEventListener("input", () => {
      state.k = slider.value;
      regions();
      changed(state);
    });
    strength.addEventListener("input", () => {
      share.textContent = `${strength.value} %`;
      redraw();
    });
    choose.addEventListener("change", () => {
      part = parts.find((one) => one.segmentation === choose.value);
      state.s = choose.value;
      [hovered, pinned] = [null, null];
      take();
      changed(state);
    });
    // the region under the pointer
    const under = (event) => {
      const box = stage.getBoundingClientRect();
      const column = Math.floor(((event.clientX - box.left) / box.width) * part.labels.columns);
      const row = Math.floor(((event.clientY - box.top) / box.height) * part.labels.rows);
      const leaf = cells[Math.min(part.labels.rows - 1, Math.max(0, row)) * part.labels.columns + Math.min(part.labels.columns - 1, Math.max(0, column))];
      return nodes[leaf];
    };
    stage.addEventListener("pointermove", (event) => {
      const node = under(event);
      if (node !== hovered) {
        hovered = node;
        redraw();
        soon();
      }
    });
    stage.addEventListener("pointerleave", () => {
      hovered = null;
      redraw();
      soon();
    });
    stage.addEventListener("click", (event) => {
      const node = under(event);
      pinned = pinned === node ? null : node;
      for (const item of list.children) item.firstChild.setAttribute("aria-pressed", Number(item.dataset.node) === pinned);
      redraw();
      soon();
    });

    const measured = (part.tops || [])[0] && part.tops[0].features[0] ? part.tops[0].features[0].measure.unit : null;
    const view = h("div", { class: "explorer" }, [
      h("div", { class: "columns photo-columns", style: { "--photo": room } }, [
        h("div", { class: "column" }, [
          stage,
          h("div", { class: "controls" }, [
            h("label", { class: "slider", for: "granularity" }, [h("span", {}, "Granularity"), slider, output]),
            h("label", { class: "slider", for: "strength" }, [h("span", {}, "Colour"), strength, share]),
            h("label", { class: "field" }, [h("span", {}, "Layer"), choose]),
          ]),
        ]),
        h("div", { class: "column" }, [
          h("h2", {}, "Regions"),
          h("p", { class: "note" }, ["Parts the network treats alike (NAVE); finer cuts divide coarser ones. ", measured ? `σ: ${measured}.` : ""]),
          list,
        ]),
      ]),
      h("section", { class: "section" }, [h("h2", {}, "The same cluster elsewhere"), elsewhereLead, elsewhere]),
    ]);
    take();
    return view;
  }

  return { explorer, cut, decode };
})();
