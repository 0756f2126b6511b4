"use strict";
(() => {
  const study = window.STUDY;
  const FORMAT = "encoscope.study-answers/1";
  const ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
  const AGES = ["under 18", "18-24", "25-34", "35-44", "45-54", "55-64", "65 or older"];
  const GENDERS = ["female", "male", "other"];
  const LETTERS = "ABCDEFGH";

  // What follows from the participant's code. Whoever evaluates the answers works the same orders out again.

  const mixed = (value) => {
    value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
    value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
    return (value ^ (value >>> 16)) >>> 0;
  };
  const hashed = (text) => {
    let state = 0x811c9dc5;
    for (const byte of new TextEncoder().encode(text)) state = Math.imul(state ^ byte, 0x01000193);
    return mixed(state);
  };
  const shuffled = (items, label) => {
    const found = [...items];
    let state = hashed(label);
    for (let last = found.length - 1; last > 0; last--) {
      state = (state + 0x9e3779b9) >>> 0;
      const other = mixed(state) % (last + 1);
      [found[last], found[other]] = [found[other], found[last]];
    }
    return found;
  };
  const drawnCode = () => {
    const drawn = crypto.getRandomValues(new Uint8Array(8));
    return [...drawn].map((value) => ALPHABET[value % ALPHABET.length]).join("");
  };
  const askedCode = () => {
    const given = decodeURIComponent(location.hash.slice(1)).trim().toUpperCase();
    return /^[A-Z0-9-]{1,32}$/.test(given) ? given : null;
  };

  const code = askedCode() ?? drawnCode();
  if (askedCode() !== code) history.replaceState(null, "", `#${code}`);
  addEventListener("hashchange", () => location.reload());

  // What is shown, screen after screen

  const planned = (part) => {
    const order = shuffled(part.questions.map((question) => question.name), `${study.study}/${code}/${part.kind}/questions`);
    const byName = new Map(part.questions.map((question) => [question.name, question]));
    return order.map((name) => {
      const question = byName.get(name);
      const label = `${study.study}/${code}/${name}/pictures`;
      if (part.kind === "words" || part.kind === "examples") return { ...question, shown: shuffled(question.pictures, label) };
      const subset = hashed(`${study.study}/${code}/${part.kind}/subset`) % question.pictures.length;
      const choices = part.kind === "match" ? shuffled(question.choices, label) : [];
      return { ...question, picture: question.pictures[subset], shown: part.kind === "match" ? choices : [question.pictures[subset]] };
    });
  };
  const parts = study.parts.map((part) => ({ kind: part.kind, questions: planned(part) }));
  const screens = [{ kind: "welcome" }];
  parts.forEach((part, number) => {
    screens.push({ kind: "instructions", part, number });
    part.questions.forEach((question, place) => screens.push({ kind: part.kind, part, question, number, place }));
  });
  screens.push({ kind: "about" }, { kind: "end" });

  // What was answered so far lives in this tab only, so that loading the page again loses nothing

  const home = `study-${study.study}-${code}`;
  const restored = () => {
    try {
      const kept = JSON.parse(sessionStorage.getItem(home));
      return kept && kept.place < screens.length ? kept : null;
    } catch {
      return null;
    }
  };
  const state = restored() ?? { place: 0, answers: {}, demographics: { age: null, gender: null } };
  const keep = () => {
    try {
      sessionStorage.setItem(home, JSON.stringify(state));
    } catch {
      // private windows may refuse: then answers live as long as the page
    }
  };
  let shownAt = 0;
  let saved = false;
  const answerOf = (question) => (state.answers[question.name] ??= { shown: question.shown, seconds: 0 });

  // Building blocks

  const element = (name, options = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(options)) {
      if (key in made && key !== "list" && key !== "style") made[key] = value;
      else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  };
  const picture = (name, alt) => element("img", { src: `pictures/${name}`, alt, draggable: false });
  const heading = (text) => element("h1", { tabIndex: -1 }, text);
  const radios = (name, options, chosen, choose, kind = "scores") => {
    const box = element("div", { className: kind, style: `--count: ${options.length}` });
    for (const [value, text] of options) {
      const input = element("input", { type: "radio", name, value: String(value), checked: value === chosen });
      input.addEventListener("change", () => choose(value));
      box.append(element("label", { className: "option" }, input, element("span", {}, text)));
    }
    return box;
  };
  const step = (screen) => element("p", { className: "step" }, `Part ${screen.number + 1} of ${parts.length} · question ${screen.place + 1} of ${screen.part.questions.length}`);
  const scored = (screen) => {
    const answer = answerOf(screen.question);
    answer.scores ??= {};
    const box = element("div", { className: "pictures" });
    screen.question.shown.forEach((name, place) => {
      const options = [1, 2, 3, 4, 5].map((value) => [value, String(value)]);
      const set = element("fieldset", { className: "rated" }, element("legend", {}, `Picture ${LETTERS[place]}`));
      set.append(picture(name, `Picture ${LETTERS[place]}`));
      set.append(radios(`score-${place}`, options, answer.scores[name], (value) => { answer.scores[name] = value; keep(); }));
      set.append(element("p", { className: "ends" }, element("span", {}, "1: worst"), element("span", {}, "5: best")));
      box.append(set);
    });
    return box;
  };

  // The screens: each gives what it shows

  const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
  const INSTRUCTIONS = {
    words: [
      "How well does each picture show the word?",
      "You will see a word, and some pictures that were made by a computer. Give each picture a score for how well it shows what the word stands for.",
    ],
    examples: [
      "How well does each picture go with the real images?",
      "You will see parts of real photographs, and some pictures that were made by a computer. Look for what the photographs have in common, and give each picture a score for how well it shows that.",
    ],
    describe: [
      "What does the picture show?",
      "You will see one picture at a time, made by a computer. Write in English what you think it shows: a word, or a few. If nothing comes to mind, write your best guess.",
    ],
    match: [
      "Which image goes with the picture?",
      "You will see a picture that was made by a computer, and two parts of real photographs. Choose the one that goes better with the picture, and say how sure you are.",
    ],
  };
  const SCREENS = {
    welcome: () => {
      const list = element("ol");
      for (const part of parts) list.append(element("li", {}, `${INSTRUCTIONS[part.kind][0]} (${count(part.questions.length, "question")})`));
      return [
        heading(study.title),
        element("p", {}, "Thank you for taking part. Computers that recognise images can be made to draw pictures of what they look for. We would like to know how well people understand such pictures. There are no right or wrong answers that you could be judged by: the pictures are tested, not you."),
        element("p", {}, parts.length === 1 ? "There is one part:" : `There are ${parts.length} parts:`),
        list,
        element("p", {}, "At the end you may tell your age range and gender, and save your answers as a file. Nothing is sent anywhere: only you hand that file on. You can stop at any time by closing this page."),
        element("p", { className: "soft" }, "Your participant code: ", element("span", { className: "code" }, code)),
      ];
    },
    instructions: (screen) => {
      const [title, text] = INSTRUCTIONS[screen.part.kind];
      const found = [element("p", { className: "step" }, `Part ${screen.number + 1} of ${parts.length} · ${count(screen.part.questions.length, "question")}`), heading(title), element("p", {}, text)];
      if (screen.part.kind === "words" || screen.part.kind === "examples") {
        found.push(element("p", {}, "Scores go from 1 (worst) to 5 (best). Pictures may get the same score. On a keyboard, the numbers 1 to 5 give the next picture its score, and Enter goes on."));
      }
      return found;
    },
    words: (screen) => [step(screen), heading("How well does each picture show this word?"), element("p", { className: "word" }, screen.question.word), scored(screen)],
    examples: (screen) => {
      const list = element("ul", { className: "examples" });
      screen.question.examples.forEach((name, place) => list.append(element("li", {}, picture(name, `Real image ${place + 1}`))));
      return [step(screen), heading("How well does each picture go with these real images?"), element("h2", {}, "Real images"), list, element("h2", {}, "Pictures"), scored(screen)];
    },
    describe: (screen) => {
      const answer = answerOf(screen.question);
      const field = element("input", { type: "text", id: "text", value: answer.text ?? "", maxLength: 200, autocomplete: "off", spellcheck: true });
      field.addEventListener("input", () => { answer.text = field.value; keep(); });
      const side = element("div", {}, element("label", { className: "text", htmlFor: "text" }, "A word or a short description"), field);
      return [step(screen), heading("What does this picture show?"), element("div", { className: "beside" }, element("div", { className: "single" }, picture(screen.question.picture, "The picture to describe")), side)];
    },
    match: (screen) => {
      const answer = answerOf(screen.question);
      const two = element("div", { className: "two" });
      screen.question.shown.forEach((name, place) => {
        const input = element("input", { type: "radio", name: "choice", value: name, checked: answer.choice === name });
        input.addEventListener("change", () => { answer.choice = name; keep(); });
        const frame = element("span", { className: "frame" }, picture(name, ""), element("b", {}, `Image ${place + 1}`));
        two.append(element("label", { className: "choice" }, input, frame));
      });
      const sure = [[1, "not sure"], [2, "fairly sure"], [3, "very sure"]];
      const chosen = element("fieldset", { className: "plain" }, element("legend", {}, "The image that goes better with it"), two);
      const confidence = element("fieldset", { className: "plain" }, element("legend", {}, "How sure are you?"), radios("confidence", sure, answer.confidence, (value) => { answer.confidence = value; keep(); }));
      return [step(screen), heading("Which image goes with this picture?"), element("div", { className: "beside" }, element("div", { className: "single" }, picture(screen.question.picture, "The picture")), element("div", {}, chosen, confidence))];
    },
    about: () => {
      const asked = (name, title, options) => {
        const set = element("fieldset", { className: "plain" }, element("legend", {}, title));
        const choose = (value) => { state.demographics[name] = value; keep(); };
        set.append(radios(name, [...options.map((option) => [option, option]), [null, "no answer"]], state.demographics[name], choose, "flow"));
        return set;
      };
      return [
        heading("About you"),
        element("p", {}, "You may leave these two questions out."),
        asked("age", "Your age", AGES),
        asked("gender", "Your gender", GENDERS),
      ];
    },
    end: () => {
      const said = element("p", { className: "soft", role: "status" });
      const button = element("button", { type: "button", className: "main", id: "save" }, "Save my answers");
      button.addEventListener("click", () => {
        download();
        said.textContent = `Saved as ${fileName()}. Please hand this file to whoever invited you; then you can close the page.`;
      });
      return [
        heading("Thank you"),
        element("p", {}, "All questions are answered. Save your answers as a file now, and hand it to whoever invited you. Nothing has been sent."),
        element("div", { className: "moves" }, button),
        said,
      ];
    },
  };

  // Going on and back

  const missing = (screen) => {
    const answer = screen.question && answerOf(screen.question);
    if (screen.kind === "words" || screen.kind === "examples") {
      const open = screen.question.shown.findIndex((name) => !answer.scores?.[name]);
      return open < 0 ? null : [`Please give picture ${LETTERS[open]} a score.`, `input[name="score-${open}"]`];
    }
    if (screen.kind === "describe" && !answer.text?.trim()) return ["Please write a word or a short description.", "#text"];
    if (screen.kind === "match" && !answer.choice) return ["Please choose one of the two images.", 'input[name="choice"]'];
    if (screen.kind === "match" && !answer.confidence) return ["Please say how sure you are.", 'input[name="confidence"]'];
    return null;
  };
  const clocked = () => {
    const screen = screens[state.place];
    if (screen.question) answerOf(screen.question).seconds += (performance.now() - shownAt) / 1000;
    shownAt = performance.now();
  };
  const move = (by) => {
    clocked();
    state.place += by;
    keep();
    draw();
  };
  const next = () => {
    const screen = screens[state.place];
    if (screen.kind === "end") return;
    const open = missing(screen);
    if (open) {
      document.getElementById("warning").textContent = open[0];
      document.querySelector(open[1]).focus();
    } else {
      move(1);
    }
  };
  const draw = () => {
    const screen = screens[state.place];
    const form = element("form", { noValidate: true });
    form.addEventListener("submit", (event) => { event.preventDefault(); next(); });
    form.append(...SCREENS[screen.kind](screen));
    const moves = element("div", { className: "moves" });
    if (state.place > 0) {
      const back = element("button", { type: "button" }, "Back");
      back.addEventListener("click", () => move(-1));
      moves.append(back);
    }
    if (screen.kind !== "end") {
      moves.append(element("button", { type: "submit", className: "main" }, screen.kind === "welcome" ? "Start" : "Next"));
      form.append(element("p", { className: "warn", id: "warning", role: "alert" }));
    }
    form.append(moves);
    document.getElementById("main").replaceChildren(form);
    document.getElementById("progress").value = state.place / (screens.length - 1);
    document.title = `${form.querySelector("h1").textContent} · ${study.title}`;
    shownAt = performance.now();
    scrollTo(0, 0);
    (screen.kind === "describe" ? document.getElementById("text") : form.querySelector("h1")).focus({ preventScroll: true });
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.type === "text") return;
    if (event.key === "Enter" && !event.target.closest("button, form input")) {
      event.preventDefault();
      next();
    }
    if (!/^[1-5]$/.test(event.key)) return;
    const sets = [...document.querySelectorAll("fieldset.rated")];
    const set = document.activeElement.closest("fieldset.rated") ?? sets.find((one) => !one.querySelector(":checked"));
    const input = set?.querySelector(`input[value="${event.key}"]`);
    if (!input) return;
    input.click();
    const open = sets.find((one) => !one.querySelector(":checked"));
    if (open) open.querySelector("input").focus();
    else document.querySelector("button.main").focus();
  });
  addEventListener("beforeunload", (event) => {
    clocked();
    keep();
    if (screens[state.place].kind === "end" && !saved) event.preventDefault();
  });

  // The file

  const fileName = () => `answers-${study.study}-${code}.json`;
  const answered = () => {
    const answers = {};
    for (const part of parts) {
      for (const question of part.questions) {
        const { shown, seconds, scores, text, choice, confidence } = answerOf(question);
        const given = { shown, seconds: Math.round(seconds * 10) / 10 };
        if (part.kind === "words" || part.kind === "examples") given.scores = scores;
        if (part.kind === "describe") given.text = text.trim();
        if (part.kind === "match") Object.assign(given, { picture: question.picture, choice, confidence });
        answers[question.name] = given;
      }
    }
    const orders = Object.fromEntries(parts.map((part) => [part.kind, part.questions.map((question) => question.name)]));
    return { format: FORMAT, study: study.study, participant: code, orders, answers, demographics: state.demographics };
  };
  const download = () => {
    const file = new Blob([JSON.stringify(answered(), null, 1)], { type: "application/json" });
    const address = URL.createObjectURL(file);
    element("a", { href: address, download: fileName() }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
    saved = true;
  };

  draw();
})();
