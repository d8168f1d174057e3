"use strict";
// The state is in the address: #field=total&response=2&token=2.17 (response.token, both counted from 1).
const data = JSON.parse(document.getElementById("data").textContent);
const sections = [...document.querySelectorAll("main > section")];
const texts = sections.map((section) => section.querySelector(".tokens"));
const form = document.querySelector("form");
const state = { field: form.elements.field.value ?? "", response: "all", token: "" };

function paint() {
  for (const mark of document.querySelectorAll("p.scale")) mark.hidden = mark.dataset.field !== state.field;
  for (const row of document.querySelectorAll("tr[data-field]")) {
    row.classList.toggle("chosen", row.dataset.field === state.field);
  }
  sections.forEach((section, index) => {
    section.hidden = state.response !== "all" && state.response !== String(index + 1);
    if (section.hidden) return;
    const levels = data[index].levels[state.field];
    let token = 0;
    for (const span of texts[index].children) span.dataset.level = levels[token++];
  });
}

function describe(index, token) {
  const { ids, tokens } = data[index];
  const code = document.createElement("code");
  code.textContent = JSON.stringify(tokens[token]);
  const name = document.createElement("bdi");
  name.append(code);
  const facts = document.createElement("small");
  facts.textContent = ` id ${ids[token]}, token ${token + 1} of ${ids.length}`;
  if (tokens[token].includes("\ufffd")) facts.textContent += ", bytes of a character that several tokens spell";
  return [name, facts];
}

function show(span) {
  const index = texts.indexOf(span.parentElement);
  const token = [...span.parentElement.children].indexOf(span);
  document.querySelector("[aria-current]")?.removeAttribute("aria-current");
  span.setAttribute("aria-current", "true");
  span.tabIndex = 0; // one tab stop for each response; an element that loses it loses the focus too
  for (const other of span.parentElement.querySelectorAll("[tabindex]")) {
    if (other !== span) other.removeAttribute("tabindex");
  }
  sections[index].querySelector(".token").replaceChildren(...describe(index, token));
  for (const row of sections[index].querySelectorAll("tr[data-field]")) {
    row.querySelector(".now").textContent = data[index].values[row.dataset.field]?.[token] ?? "–";
  }
  return `${index + 1}.${token + 1}`;
}

function remember(changes) {
  Object.assign(state, changes);
  const known = Object.entries(state).filter(([, value]) => value);
  history.replaceState(null, "", `#${new URLSearchParams(known)}`);
}

function restore() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  for (const name of ["field", "response"]) {
    const control = form.elements[name];
    const options = control ? [...(control.options ?? control.length ? control : [control])] : [];
    if (options.some((option) => option.value === wanted.get(name))) control.value = state[name] = wanted.get(name);
  }
  paint();
  const [index, token] = (wanted.get("token") ?? "").split(".");
  const span = texts[index - 1]?.children[token - 1];
  if (span) state.token = show(span);
}

function focus(span) {
  span.tabIndex = 0;
  span.focus();
}

function spanOf(event) {
  return event.target.closest?.(".tokens > span");
}

const steps = {
  ArrowRight: (span) => span.nextElementSibling,
  ArrowLeft: (span) => span.previousElementSibling,
  Home: (span) => span.parentElement.firstElementChild,
  End: (span) => span.parentElement.lastElementChild,
};

form.addEventListener("change", (event) => {
  remember({ [event.target.name]: event.target.value });
  paint();
});
form.addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("pointerover", (event) => {
  const span = spanOf(event);
  if (span) show(span);
});
document.addEventListener("focusin", (event) => {
  const span = spanOf(event);
  if (span) remember({ token: show(span) });
});
document.addEventListener("click", (event) => {
  const span = spanOf(event);
  if (span) focus(span);
});
document.addEventListener("keydown", (event) => {
  const span = spanOf(event);
  const next = span && steps[event.key]?.(span);
  if (!next) return;
  event.preventDefault();
  focus(next);
});
window.addEventListener("hashchange", restore);

for (const hidden of document.querySelectorAll("form > [hidden], .token > [hidden]")) hidden.hidden = false;
for (const text of texts) if (text.firstElementChild) text.firstElementChild.tabIndex = 0;
restore();
