// Point at a place of an image of one's own: the server compares its features with those of every other place.
"use strict";

(() => {
  // brighter as they go up, as in encoscope.plots
  const HEAT = [
    [0, 0, 4],
    [87, 16, 110],
    [188, 55, 84],
    [249, 142, 9],
    [252, 255, 164],
  ];
  const STEP = 0.02; // of the image, for a key
  const OPACITY = 0.65;

  /**
   * The color of a value.
   * @param {number} value from 0 to 1
   */
  function heat(value) {
    const position = Math.min(1, Math.max(0, value)) * (HEAT.length - 1);
    const index = Math.min(HEAT.length - 2, Math.floor(position));
    return HEAT[index].map((low, channel) => Math.round(low + (HEAT[index + 1][channel] - low) * (position - index)));
  }

  /**
   * A pixel of the canvas for each cell, which the browser enlarges smoothly.
   * @param {HTMLCanvasElement} canvas
   * @param {SimilarAnswer} answer
   */
  function draw(canvas, { rows, columns, values, typical }) {
    canvas.width = columns;
    canvas.height = rows;
    const context = canvas.getContext("2d");
    if (!context) return;
    const pixels = context.createImageData(columns, rows);
    values.forEach((value, cell) => {
      pixels.data.set([...heat((value - typical) / Math.max(1e-6, 1 - typical)), Math.round(255 * OPACITY)], 4 * cell);
    });
    context.putImageData(pixels, 0, 0);
  }

  /**
   * @param {File} file
   * @param {{x: number, y: number}} place in pixels of the image
   * @returns {Promise<{answer: SimilarAnswer | null, problem: string}>}
   */
  async function ask(file, { x, y }) {
    const headers = { "Content-Type": "application/octet-stream" };
    const response = await fetch(`api/similar?x=${x}&y=${y}`, { method: "POST", headers, body: file });
    /** @type {SimilarAnswer} */
    const answer = await response.json();
    if (response.ok) return { answer, problem: "" };
    const problem = answer.error ? toSentence(answer.error) : `The server answered ${response.status}.`;
    return { answer: null, problem };
  }

  Atlas.similarPlaces = (file, source) => {
    const { src, alt, width, height } = source;
    const canvas = h("canvas", { class: "overlay", "aria-hidden": true });
    const mark = h("span", { class: "place-mark", hidden: true, "aria-hidden": true });
    const stage = h(
      "div",
      {
        class: "image-stage similar-stage",
        tabindex: 0,
        role: "application",
        "aria-label": "Point at a place: arrow keys move, Enter asks",
        style: { "aspect-ratio": `${width} / ${height}` },
      },
      [h("img", { src, alt, width, height, class: "image" }), canvas, mark],
    );
    const said = h(
      "p",
      { class: "note", role: "status" },
      "Click on a place, or move with arrow keys and press Enter.",
    );
    const point = { x: 0.5, y: 0.5 };
    let turn = 0;

    /**
     * @param {number} x share of the width
     * @param {number} y share of the height
     */
    function move(x, y) {
      point.x = Math.min(1, Math.max(0, x));
      point.y = Math.min(1, Math.max(0, y));
      mark.hidden = false;
      mark.style.setProperty("left", `${100 * point.x}%`);
      mark.style.setProperty("top", `${100 * point.y}%`);
    }

    async function search() {
      const own = ++turn;
      const place = {
        x: Math.min(width - 1, Math.floor(point.x * width)),
        y: Math.min(height - 1, Math.floor(point.y * height)),
      };
      said.textContent = "Comparing …";
      try {
        const { answer, problem } = await ask(file, place);
        if (own !== turn) return;
        if (answer) draw(canvas, answer);
        said.textContent = answer
          ? `Cosine with ${place.x}, ${place.y} (column, row), by ${answer.layers.join(" + ")}: ` +
            `yellow is 1, the place itself; black is ${formatNumber(answer.typical)}, the median of random places.`
          : problem;
      } catch {
        if (own === turn) said.textContent = "The server does not answer. Is it still running?";
      }
    }

    stage.addEventListener("click", (event) => {
      const box = stage.getBoundingClientRect();
      move((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
      search();
    });
    stage.addEventListener("keydown", (event) => {
      /** @type {Record<string, [number, number]>} */
      const steps = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
      const step = steps[event.key];
      if (!step && event.key !== "Enter") return;
      event.preventDefault();
      if (step) move(point.x + step[0], point.y + step[1]);
      else search();
    });
    const room = `min(${((76 * width) / height).toFixed(1)}vh, ${Math.max(320, 2 * width)}px)`;
    return h("section", { class: "section", style: { "--image": room } }, [
      h("h2", {}, "Similar places"),
      said,
      h("div", { class: "columns image-columns" }, [h("div", { class: "column" }, [stage])]),
    ]);
  };
})();
