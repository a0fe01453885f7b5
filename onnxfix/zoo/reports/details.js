"use strict";
// What a row opens into: all that is known of one model, as elements. Texts are texts: nothing is taken for HTML.
const { make, sections } = (() => {
  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
    element.append(...children.filter((child) => child !== null && child !== ""));
    return element;
  }

  function sections(told) {
    const made = [];
    const add = (title, kind, ...children) => {
      const inside = children.filter(Boolean);
      if (inside.length) made.push(make("section", { class: kind }, make("h2", {}, title), ...inside));
    };
    const { error, proof } = told;
    if (error) {
      const kind = error.kind ? make("p", {}, make("b", {}, error.kind)) : null;
      add(error.kind ? "Error" : "Why", "wide error", kind, make("p", {}, error.text), error.hint && make("p", { class: "hint" }, error.hint));
    }
    add("Log", "wide", told.log && make("pre", {}, told.log));
    add("Notes", "wide", list(told.notes));
    add("Plan", "wide", told.plan && make("pre", {}, told.plan.join("\n")));
    add("Inputs", "wide", portLists(told.inputs));
    add("Outputs", "wide", portLists(told.outputs));
    if (proof) add("Proof", "wide", ...proofParts(proof));
    add("Nodes", "", steps(told.nodes), told.cancelled && make("p", {}, make("small", {}, `Cancelled: ${told.cancelled}`)));
    add("Cache copied in each step", "", steps(told.copied), told.kept && make("p", {}, "Adapters are left, since"), list(told.kept));
    add("Asked for", "", pairs(told.asked));
    add("Time", "", pairs(told.times));
    add("Source", "wide", fileList(told.source));
    add("Written", "wide", fileList(told.results));
    return made;
  }

  function list(texts) {
    return texts && make("ul", {}, ...texts.map((text) => make("li", {}, text)));
  }

  function pairs(told) {
    return told && make("dl", {}, ...told.flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, value)]));
  }

  function steps(told) {
    if (!told) return null;
    const parts = told.flatMap(([station, value], index) => [
      index ? make("span", { "aria-hidden": "true" }, " → ") : "", index ? make("span", { class: "unseen" }, ", then ") : "",
      make("b", {}, value), station ? ` ${station}` : "",
    ]);
    return make("p", {}, ...parts);
  }

  function fileList(told) {
    const item = ([path, size, digest]) =>
      make("li", {}, make("code", {}, path), ` ${size} `, digest && make("code", { class: "digest" }, digest));
    return told && make("ul", { class: "files" }, ...told.map(item));
  }

  const MARKS = { "-": ["−", "gone"], "+": ["+", "new"], "~": ["~", "changed"], "": ["", ""] };
  const FEW = 12;

  function portLists(told) {
    if (!told) return null;
    const titles = told.length === 1 ? ["As they were"] : ["Before", "After"];
    const columns = told.map((ports, column) => make("div", {}, make("h3", {}, `${titles[column]} (${ports.length})`), portList(ports)));
    return make("div", { class: "ports" }, ...columns);
  }

  function portList(ports) {
    const items = ports.map(([mark, name, kind]) => {
      const [sign, word] = MARKS[mark];
      const parts = [make("code", {}, name), " ", make("small", {}, kind)];
      if (sign) parts.unshift(make("span", { class: "sign", "aria-hidden": "true" }, sign), make("span", { class: "unseen" }, `${word}: `));
      return make("li", { class: word }, ...parts);
    });
    if (items.length <= FEW + 3) return make("ul", {}, ...items);
    const rest = make("details", {}, make("summary", {}, `and ${items.length - FEW} more`), make("ul", {}, ...items.slice(FEW)));
    return make("div", {}, make("ul", {}, ...items.slice(0, FEW)), rest);
  }

  function plot(drawing) {
    // The report's own drawing, of numbers: nothing of what a model says is in it.
    const holder = make("span", { class: "plot" });
    holder.innerHTML = drawing;
    return holder;
  }

  function proofParts(proof) {
    const wrong = (proof.wrong || []).map(([name, words, drawing]) =>
      make("li", {}, plot(drawing), make("span", {}, make("code", {}, name), " ", make("small", {}, words))));
    return [
      make("div", { class: "proof" }, plot(proof.plot), make("p", {}, proof.text)),
      wrong.length && make("ul", { class: "wrong" }, ...wrong),
      proof.more && make("p", {}, `and ${proof.more} more outputs that differ`),
      proof.evidence && make("p", {}, proof.evidence),
      proof.hidden && make("details", {}, make("summary", {}, `Not observable in the outputs (${proof.hidden.length})`), list(proof.hidden)),
      make("p", {}, make("small", {}, [proof.how, proof.fed && `fed ${proof.fed}`].filter(Boolean).join("; "))),
      list(proof.notes),
    ];
  }

  return { make, sections };
})();
