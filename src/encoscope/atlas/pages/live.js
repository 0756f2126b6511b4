// An image of one's own: sent to the server this page came from, parted there, and kept nowhere.
"use strict";

Atlas.pages.live = {
  title: "Your image",
  async render(main) {
    const live = Atlas.live;
    main.append(h("div", { class: "page-head" }, [h("h1", {}, "Your image")]));
    if (!live) {
      main.append(Atlas.missing("These pages were opened from a folder. To part images of your own, serve them:"), h("pre", {}, "encoscope atlas serve SITE"));
      return null;
    }
    if (!live.available) {
      main.append(Atlas.missing(live.reason));
      return null;
    }
    const [table, classes, images] = await Promise.all(["features", "classes", "images"].map(Atlas.table));
    const round = (size) => Number((size / 1e6).toPrecision(3)); // millions: of bytes, of pixels
    const input = h("input", { type: "file", id: "file", accept: live.types.join(","), class: "visually-hidden", tabindex: -1 });
    const drop = h("label", { class: "drop", for: "file", tabindex: 0 }, [
      input,
      h("span", { class: "drop-title" }, "Drop an image here, or choose one"),
      h("span", { class: "soft" }, `Up to ${round(live.max_bytes)} MB and ${round(live.max_pixels)} megapixels. It is parted in this server's memory and kept nowhere.`),
    ]);
    const status = h("p", { class: "notice", role: "status", hidden: true });
    const result = h("div", {});
    main.append(drop, status, result);
    let [address, turn] = [null, 0];

    const say = (text) => {
      status.textContent = text;
      status.hidden = !text;
    };
    async function send(file) {
      const mine = ++turn;
      result.replaceChildren();
      if (file.size > live.max_bytes) return say(`This file has ${round(file.size)} MB; at most ${round(live.max_bytes)} are taken.`);
      say("Looking at it …");
      try {
        const answer = await fetch("api/segment", { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file });
        const found = await answer.json();
        if (mine !== turn) return null;
        if (!answer.ok) return say(found.error ? sentence(found.error) : `The server answered ${answer.status}.`);
        say("");
        show(file, found);
      } catch (error) {
        if (mine === turn) say("The server does not answer. Is it still running?");
      }
      return null;
    }
    function show(file, found) {
      if (address) URL.revokeObjectURL(address);
      address = URL.createObjectURL(file);
      result.append(
        Atlas.parts.explorer(found, { src: address, alt: "Your image", width: found.width, height: found.height }, { state: {}, changed: () => {}, table, classes, images: live.joint ? images : null }),
        h("div", { class: "columns even" }, [
          (found.predictions || []).length ? Atlas.section("What the network says", null, Atlas.chips(found.predictions, table, classes, images)) : null,
          (found.tops || []).length ? Atlas.section("Features that stand out", null, Atlas.chips(found.tops, table, classes)) : null,
        ]),
      );
    }
    input.addEventListener("change", () => {
      if (input.files[0]) send(input.files[0]);
      input.value = ""; // so that the same file, changed meanwhile, can be chosen again
    });
    drop.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        input.click();
      }
    });
    for (const name of ["dragover", "dragleave", "drop"])
      drop.addEventListener(name, (event) => {
        event.preventDefault();
        drop.classList.toggle("over", name === "dragover");
        if (name === "drop" && event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
      });
    return () => address && URL.revokeObjectURL(address);
  },
};
