// From the address to a page, and what all pages share: header, colours, keys, places to come back to.
"use strict";

(() => {
  const main = document.getElementById("main");
  const places = new Map(); // address -> how far it was scrolled
  let close = null;
  let turn = 0;
  let clicked = false;
  let page = null;

  function parse(hash) {
    const [path, query] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
    const [name, ...rest] = path.split("/");
    let part = rest.join("/");
    try {
      part = decodeURIComponent(part);
    } catch {
      // an address somebody wrote by hand
    }
    return { name: name || "features", part: part || null, query: Object.fromEntries(new URLSearchParams(query || "")) };
  }

  async function open(event) {
    const mine = ++turn;
    if (event) places.set(new URL(event.oldURL).hash, scrollY);
    const { name, part, query } = parse(location.hash);
    page = Atlas.pages[name] || null;
    document.title = `${page ? page.title : "Not found"} · ${Atlas.manifest.title} · Encoscope atlas`;
    for (const link of document.querySelectorAll("#nav a")) {
      const own = link.dataset.page.split(" ").includes(name);
      if (own) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const fresh = h("div", { class: `page page-${name}` });
    if (close) close();
    close = null;
    const [comesBack, first] = [!clicked, !event];
    clicked = false;
    main.replaceChildren(fresh);
    main.setAttribute("aria-busy", "true");
    delete main.dataset.drawn;
    try {
      if (page) {
        const done = await page.render(fresh, part, query);
        if (mine === turn) close = done;
        else if (done) done();
      } else fresh.append(h("h1", {}, "There is no such page"), h("p", {}, h("a", { href: "#/features" }, "All features")));
    } catch (error) {
      fresh.replaceChildren(
        h("h1", {}, "This page could not be drawn"),
        Atlas.missing(error.message),
        h("p", {}, "If the atlas was copied, part of it may be missing; building it again writes what is not there."),
      );
    }
    if (mine !== turn) return;
    main.removeAttribute("aria-busy");
    main.dataset.drawn = location.hash.split("?")[0]; // what is shown, which an address that just changed is not yet
    scrollTo(0, comesBack && !first ? places.get(location.hash) || 0 : 0);
    if (!first) main.focus({ preventScroll: true });
  }

  function header() {
    const { counts, title } = Atlas.manifest;
    document.getElementById("title").textContent = title;
    const links = [
      ["features", "Features", "features feature", true],
      ["images", "Images", "images image", counts.images],
      ["classes", "Classes", "classes class", counts.classes],
      ["compare", "Compare", "compare", counts.comparisons],
      ["live", "Your image", "live", Atlas.live],
      ["about", "About", "about", true],
    ];
    document.getElementById("nav").replaceChildren(
      ...links.filter(([, , , there]) => there).map(([name, text, pages]) => h("a", { href: `#/${name}`, "data-page": pages }, text)),
    );
    const { model, data, versions } = Atlas.manifest;
    document.getElementById("foot").textContent = [model && model.source, data.source, `encoscope ${versions.encoscope || ""}`].filter(Boolean).join(" · ");
  }

  // Colours: as the system, or chosen; a browser may forbid keeping the choice.
  const THEMES = ["system", "light", "dark"];
  const button = document.getElementById("theme");
  function paint(theme) {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.setAttribute("aria-label", `Colours: ${theme === "system" ? "as the system" : theme}`);
    try {
      localStorage.setItem("atlas-theme", theme);
    } catch {
      // it is chosen anew next time
    }
  }
  function stored() {
    try {
      return THEMES.includes(localStorage.getItem("atlas-theme")) ? localStorage.getItem("atlas-theme") : "system";
    } catch {
      return "system";
    }
  }
  let theme = stored();
  paint(theme);
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    paint(theme);
  });

  addEventListener("keydown", (event) => {
    const typing = event.target.closest && event.target.closest("input:not([type=range]):not([type=checkbox]), select, textarea");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "t") button.click();
    const target = page && page.keys && page.keys[event.key] && page.keys[event.key]();
    if (!target) return;
    event.preventDefault();
    if (target.matches("a")) target.click();
    else target.focus();
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest('a[href^="#/"]')) clicked = true;
    const skip = event.target.closest("a.skip");
    if (skip) {
      event.preventDefault(); // the hash names pages here
      main.focus();
    }
  });
  if ("scrollRestoration" in history) history.scrollRestoration = "manual";
  addEventListener("hashchange", open);

  (async () => {
    try {
      [Atlas.manifest, Atlas.live] = await Promise.all([encoscope.load("manifest"), encoscope.load("live").catch(() => null)]);
    } catch (error) {
      main.replaceChildren(h("h1", {}, "There is no atlas here"), Atlas.missing(`${error.message}. Keep index.html together with its folders.`));
      return;
    }
    header();
    await open();
  })();
})();
