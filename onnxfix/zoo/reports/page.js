"use strict";
// The table: which models are shown, in which order, and what people do with it.
(() => {
  const find = (id) => document.getElementById(id);
  const about = JSON.parse(find("about").textContent);
  const blocks = [...document.querySelectorAll("script.details")];
  const [search, convention, folder] = ["search", "convention", "folder"].map(find);
  const [body, count, more, heads, chips] = [
    find("rows"), find("count"), find("more"), [...find("heads").children], [...find("outcomes").children],
  ];
  const LABELS = ["Outcome", "Convention", "Nodes", "Difference", "Time"];
  const SIZES = new Intl.NumberFormat("en");
  const STEP = 100;
  const WORST = ["refused", "failed", "waiting", "would-change", "skipped", "converted", "unchanged", "verified"];
  const DEFAULT = "outcome";

  // What is known of each model.

  const rows = [...document.querySelectorAll("script.rows")]
    .flatMap((block) => JSON.parse(block.textContent))
    .map(([path, word, from, to, before, after, proof, seconds, reason], index) => {
      const [speaks, target] = [about.conventions[from], about.conventions[to]];
      const slash = path.lastIndexOf("/") + 1;
      return {
        index, path, folder: path.slice(0, slash), name: path.slice(slash), word: about.words[word], speaks, target,
        before, after, proof, seconds, reason, text: [path, speaks, target, reason].join("\n").toLowerCase(),
      };
    });
  const ranks = new Map([...about.conventions].sort().map((name, rank) => [name, rank]));

  // The larger a key, the later its row. Null stays at the end, whichever way the rows are sorted.
  const KEYS = {
    path: (row) => row.index,
    outcome: (row) => WORST.indexOf(row.word),
    convention: (row) => (row.speaks ? ranks.get(row.speaks) * 1e5 + ranks.get(row.target) : null),
    nodes: (row) => row.after ?? null,
    proof: (row) => (row.proof === null ? null : row.proof < 0 ? Infinity : row.proof),
    time: (row) => row.seconds || null,
  };

  // What is to be shown; the address keeps it.

  const view = { query: "", words: new Set(), convention: "", folder: "", sort: DEFAULT, isBackward: false, open: new Set() };
  let shown = [];
  let drawn = 0;
  let current = 0;
  let saving = 0;

  function readAddress() {
    const told = new URLSearchParams(location.hash.slice(1));
    const sort = told.get("sort") || DEFAULT;
    view.query = told.get("q") || "";
    view.words = new Set((told.get("outcome") || "").split(",").filter((word) => about.words.includes(word)));
    view.convention = told.get("convention") || "";
    view.folder = told.get("folder") || "";
    view.isBackward = sort.startsWith("-");
    view.sort = sort.replace(/^-/, "") in KEYS ? sort.replace(/^-/, "") : DEFAULT;
    view.open = new Set(told.getAll("open"));
  }

  function writeAddress() {
    const told = new URLSearchParams();
    const sort = (view.isBackward ? "-" : "") + view.sort;
    if (view.query) told.set("q", view.query);
    if (view.words.size) told.set("outcome", [...view.words].join(","));
    if (view.convention) told.set("convention", view.convention);
    if (view.folder) told.set("folder", view.folder);
    if (sort !== DEFAULT) told.set("sort", sort);
    for (const path of view.open) told.append("open", path);
    const hash = String(told);
    if (hash === location.hash.slice(1)) return;
    try {
      history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
    } catch {
      // Some viewers show the page where there is no address to keep.
    }
  }

  function changed() {
    show();
    clearTimeout(saving);
    saving = setTimeout(writeAddress, 250);
  }

  // Which models are shown, and in which order.

  function isWanted(row, words) {
    return (
      (!view.words.size || view.words.has(row.word)) &&
      (!view.convention || row.speaks === view.convention || row.target === view.convention) &&
      (!view.folder || row.folder.startsWith(view.folder)) &&
      words.every((word) => row.text.includes(word))
    );
  }

  function sorted(wanted) {
    const [key, sign] = [KEYS[view.sort], view.isBackward ? -1 : 1];
    const keys = new Map(wanted.map((row) => [row, key(row)]));
    return wanted.sort((one, other) => {
      const [a, b] = [keys.get(one), keys.get(other)];
      if (a === null || b === null) return (a === null) - (b === null) || one.index - other.index;
      return a < b ? -sign : a > b ? sign : one.index - other.index;
    });
  }

  function show() {
    const words = view.query.toLowerCase().split(/\s+/).filter(Boolean);
    shown = sorted(rows.filter((row) => isWanted(row, words)));
    search.value === view.query || (search.value = view.query);
    choose(convention, view.convention);
    choose(folder, view.folder);
    for (const chip of chips) chip.setAttribute("aria-pressed", view.words.has(chip.dataset.word));
    for (const head of heads) {
      const isSorted = head.dataset.key === view.sort;
      if (isSorted) head.setAttribute("aria-sort", view.isBackward ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    const all = `${SIZES.format(rows.length)} ${rows.length === 1 ? "model" : "models"}`;
    count.textContent = shown.length === rows.length ? `All ${all}` : `${SIZES.format(shown.length)} of ${all}`;
    body.parentElement.setAttribute("aria-rowcount", shown.length + 1);
    body.replaceChildren();
    [drawn, current] = [0, 0];
    draw(STEP);
    if (!shown.length) body.append(make("tr", { class: "none", role: "row" }, cell("", "No model is like that.", 6)));
  }

  function choose(select, value) {
    // What the address asks for may be no choice: it is shown all the same, and finds nothing.
    if (![...select.options].some((option) => option.value === value)) select.add(new Option(value, value));
    select.value = value;
  }

  // Rows, some at a time.

  function cell(kind, child, span) {
    const attributes = { role: "cell" };
    if (kind) attributes["data-name"] = kind;
    if (!child) attributes.class = "empty";
    if (span) attributes.colspan = span;
    return make("td", attributes, child);
  }

  function draw(most) {
    const fragment = document.createDocumentFragment();
    const end = Math.min(shown.length, drawn + most);
    for (let place = drawn; place < end; place++) {
      const row = element(shown[place], place);
      fragment.append(row);
      if (view.open.has(shown[place].path)) open(row, shown[place]);
    }
    body.append(fragment);
    drawn = end;
    more.hidden = drawn === shown.length;
    more.textContent = `Show ${SIZES.format(Math.min(STEP, shown.length - drawn))} more of ${SIZES.format(shown.length - drawn)}`;
  }

  function element(row, place) {
    const name = [make("span", { class: "folder" }, row.folder), make("span", { class: "name" }, row.name)];
    const button = make("button", { type: "button", class: "open", "aria-expanded": "false" }, ...name);
    button.tabIndex = place === current ? 0 : -1;
    const head = make("th", { role: "rowheader", scope: "row" }, button);
    if (row.reason) head.append(make("span", { class: "reason" }, row.reason));
    const label = row.word === "waiting" ? "not done" : row.word.replace("-", " ");
    const cells = [
      make("span", { class: `word ${row.word}` }, make("span", { class: "dot", "aria-hidden": "true" }), label),
      row.speaks && row.target && row.speaks !== row.target ? arrow(row.speaks, row.target) : row.speaks,
      row.before === null || row.after === null ? "" : arrow(SIZES.format(row.before), SIZES.format(row.after)),
      differenceText(row.proof),
      secondsText(row.seconds),
    ];
    const made = make("tr", { role: "row", "aria-rowindex": place + 2, class: row.word }, head);
    made.append(...cells.map((child, column) => cell(LABELS[column], child)));
    made.dataset.place = place;
    return made;
  }

  function arrow(from, to) {
    const middle = [make("span", { "aria-hidden": "true" }, " → "), make("span", { class: "unseen" }, " to ")];
    return make("span", { class: "arrow" }, from, ...middle, make("b", {}, to));
  }

  function secondsText(seconds) {
    if (!seconds) return "";
    if (seconds < 0.1) return `${(1000 * seconds).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
    return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  }

  function differenceText(proof) {
    if (proof === null) return "";
    return proof === 0 ? "none" : proof < 0 ? "infinite" : proof.toPrecision(3);
  }

  // What a row opens into.

  const unpacked = new Map();

  async function detailsOf(row) {
    const block = Math.floor(row.index / about.block);
    if (!unpacked.has(block)) unpacked.set(block, unpack(blocks[block].textContent));
    return (await unpacked.get(block))[row.index % about.block];
  }

  async function unpack(text) {
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }

  function open(element, row) {
    const button = element.querySelector("button.open");
    const panel = make("div", { class: "panel", "aria-busy": "true" });
    const id = `model-${row.index}`;
    const detail = make("tr", { role: "row", class: "detail", id }, make("td", { role: "cell", colspan: 6 }, panel));
    button.setAttribute("aria-expanded", "true");
    button.setAttribute("aria-controls", id);
    element.after(detail);
    detailsOf(row).then(
      (told) => panel.append(...sections(told)),
      (error) => panel.append(make("p", {}, `This browser cannot read the details: ${error.message}`)),
    ).finally(() => panel.removeAttribute("aria-busy"));
  }

  function close(element) {
    const button = element.querySelector("button.open");
    button.setAttribute("aria-expanded", "false");
    button.removeAttribute("aria-controls");
    element.nextElementSibling.remove();
  }

  function toggle(element) {
    const row = shown[element.dataset.place];
    if (view.open.delete(row.path)) close(element);
    else {
      view.open.add(row.path);
      open(element, row);
    }
    clearTimeout(saving);
    saving = setTimeout(writeAddress, 250);
  }

  // What people do.

  const buttons = () => [...body.querySelectorAll("button.open")];

  function focusOn(place) {
    if (place >= drawn) draw(STEP);
    const all = buttons();
    const next = Math.max(0, Math.min(place, all.length - 1));
    if (!all.length) return;
    if (all[current]) all[current].tabIndex = -1;
    current = next;
    all[next].tabIndex = 0;
    all[next].focus();
  }

  // Who marks a name to copy it does not want the row to open; what is marked in the search is none of it.
  function isSelecting() {
    const selection = getSelection();
    return !selection.isCollapsed && body.contains(selection.anchorNode);
  }

  body.addEventListener("click", (event) => {
    const element = event.target.closest("tr");
    if (!element || !element.dataset.place || isSelecting()) return;
    const button = element.querySelector("button.open");
    const [old] = buttons().slice(current, current + 1);
    if (old) old.tabIndex = -1;
    button.tabIndex = 0;
    current = Number(element.dataset.place);
    toggle(element);
  });
  body.addEventListener("keydown", (event) => {
    if (!event.target.matches("button.open") || event.ctrlKey || event.metaKey || event.altKey) return;
    const element = event.target.closest("tr");
    const place = Number(element.dataset.place);
    const isOpen = view.open.has(shown[place].path);
    const acts = {
      ArrowDown: () => focusOn(place + 1), ArrowUp: () => focusOn(place - 1), Home: () => focusOn(0), End: () => focusOn(drawn - 1),
      ArrowRight: () => isOpen || toggle(element), ArrowLeft: () => isOpen && toggle(element),
    };
    if (!(event.key in acts)) return;
    event.preventDefault();
    acts[event.key]();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    search.focus();
    search.select();
  });
  search.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown") return;
    event.preventDefault();
    focusOn(0);
  });
  search.addEventListener("input", () => {
    view.query = search.value;
    changed();
  });
  convention.addEventListener("change", () => {
    view.convention = convention.value;
    changed();
  });
  folder.addEventListener("change", () => {
    view.folder = folder.value;
    changed();
  });
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      if (!view.words.delete(chip.dataset.word)) view.words.add(chip.dataset.word);
      changed();
    });
  }
  for (const head of heads) {
    head.firstElementChild.addEventListener("click", () => {
      view.isBackward = view.sort === head.dataset.key && !view.isBackward;
      view.sort = head.dataset.key;
      changed();
    });
  }
  find("filters").addEventListener("submit", (event) => event.preventDefault());
  find("filters").addEventListener("reset", (event) => {
    event.preventDefault();
    Object.assign(view, { query: "", words: new Set(), convention: "", folder: "" });
    changed();
  });
  more.addEventListener("click", () => {
    const place = drawn;
    draw(STEP);
    focusOn(place);
  });
  new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && !more.hidden && draw(STEP), {
    rootMargin: "800px",
  }).observe(more);
  addEventListener("beforeprint", () => draw(shown.length));
  addEventListener("hashchange", () => {
    readAddress();
    show();
  });

  // What can be chosen.

  function offer(select, counts) {
    for (const [name, number] of [...counts].sort(([one], [other]) => (one < other ? -1 : 1)))
      select.add(new Option(`${name} (${SIZES.format(number)})`, name));
  }

  function tally(names) {
    const counts = new Map();
    for (const name of names) counts.set(name, (counts.get(name) || 0) + 1);
    return counts;
  }

  function above(path) {
    return [...path.matchAll(/\//g)].map((slash) => path.slice(0, slash.index + 1));
  }

  offer(convention, tally(rows.flatMap((row) => [...new Set([row.speaks, row.target])].filter(Boolean))));
  offer(folder, tally(rows.flatMap((row) => above(row.folder))));
  readAddress();
  show();
  document.documentElement.dataset.ready = "";
})();
