// An image of one's own: sent to the server this page came from, segmented there, and kept nowhere.
"use strict";

(() => {
  /**
   * Millions: of bytes, of pixels.
   * @param {number} size
   */
  const millions = (size) => Number((size / 1e6).toPrecision(3));

  /**
   * Where an image is dropped or chosen.
   * @param {Live} live
   * @param {(file: File) => void} send
   */
  function dropZone(live, send) {
    const input = h("input", {
      type: "file",
      id: "file",
      accept: live.types.join(","),
      class: "visually-hidden",
      tabindex: -1,
    });
    const limits = `Up to ${millions(live.max_bytes)} MB and ${millions(live.max_pixels)} megapixels.`;
    const zone = h("label", { class: "drop", for: "file", tabindex: 0 }, [
      input,
      h("span", { class: "drop-title" }, "Drop an image here, or choose one"),
      h("span", { class: "soft" }, `${limits} It is segmented in this server's memory and kept nowhere.`),
    ]);
    input.addEventListener("change", () => {
      const file = input.files?.[0];
      if (file) send(file);
      input.value = ""; // so that the same file, changed meanwhile, can be chosen again
    });
    zone.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        input.click();
      }
    });
    for (const name of /** @type {const} */ (["dragover", "dragleave", "drop"]))
      zone.addEventListener(name, (event) => {
        event.preventDefault();
        zone.classList.toggle("over", name === "dragover");
        const file = event.dataTransfer?.files[0];
        if (name === "drop" && file) send(file);
      });
    return zone;
  }

  /**
   * What the server says of a file.
   * @param {File} file
   * @returns {Promise<{answer: LiveAnswer | null, problem: string}>}
   */
  async function ask(file) {
    const headers = { "Content-Type": "application/octet-stream" };
    const response = await fetch("api/segment", { method: "POST", headers, body: file });
    /** @type {LiveAnswer} */
    const answer = await response.json();
    if (response.ok) return { answer, problem: "" };
    return {
      answer: null,
      problem: answer.error ? toSentence(answer.error) : `The server answered ${response.status}.`,
    };
  }

  Atlas.pages.live = {
    title: "Your image",
    async render(main) {
      const { live } = Atlas;
      main.append(h("div", { class: "page-head" }, [h("h1", {}, "Your image")]));
      if (!live) {
        const text = "These pages were opened from a folder. To segment images of your own, serve them:";
        main.append(Atlas.missing(text), h("pre", {}, "encoscope atlas serve SITE"));
        return null;
      }
      if (!live.available) {
        main.append(Atlas.missing(live.reason));
        return null;
      }
      const [features, classes, images] = await Promise.all([
        Atlas.table("features"),
        Atlas.table("classes"),
        Atlas.table("images"),
      ]);
      const status = h("p", { class: "notice", role: "status", hidden: true });
      const result = h("div", {});
      main.append(dropZone(live, send), status, result);
      /** @type {string | null} */
      let address = null;
      let turn = 0;

      /** @param {string} text */
      function say(text) {
        status.textContent = text;
        status.hidden = !text;
      }

      /** @param {File} file */
      async function send(file) {
        const own = ++turn;
        result.replaceChildren();
        if (live && file.size > live.max_bytes) {
          say(`This file has ${millions(file.size)} MB; at most ${millions(live.max_bytes)} are taken.`);
          return;
        }
        say("Looking at it …");
        try {
          const { answer, problem } = await ask(file);
          if (own !== turn) return;
          say(problem);
          if (answer) show(file, answer);
        } catch {
          if (own === turn) say("The server does not answer. Is it still running?");
        }
      }

      /**
       * @param {File} file
       * @param {LiveAnswer} answer
       */
      function show(file, answer) {
        if (address) URL.revokeObjectURL(address);
        address = URL.createObjectURL(file);
        const source = { src: address, alt: "Your image", width: answer.width, height: answer.height };
        const context = { state: {}, changed: () => {}, features, images: live?.joint ? images : null };
        result.append(
          Atlas.explorer(answer, source, context),
          Atlas.similarPlaces(file, source),
          Atlas.imageLinks(answer, features, classes, images),
        );
      }

      return () => {
        if (address) URL.revokeObjectURL(address);
      };
    },
  };
})();
