
// The lists of spans: sorted by the chosen quantity, and the tokens of the row that is pointed at.
const lists = sections.map((section) => section.querySelector(".spans tbody"));
const listed = lists.map((list) => (list ? [...list.rows] : []));

function sortSpans() {
  lists.forEach((list, index) => {
    if (!list) return;
    const { order, mean, worst } = data[index].spans.by[state.field];
    listed[index].forEach((row, number) => {
      row.querySelector(".mean").textContent = mean[number];
      row.querySelector(".worst").textContent = worst[number];
    });
    list.replaceChildren(...order.map((number) => listed[index][number]));
    for (const name of sections[index].querySelectorAll(".spans .by")) {
      name.textContent = sections[index].querySelector(`tr[data-field="${state.field}"] th`).textContent;
    }
  });
}

function tokensOf(event) {
  const row = event.target.closest?.(".spans tbody tr");
  const index = lists.indexOf(row?.parentElement);
  if (index < 0) return [];
  const [start, stop] = data[index].spans.tokens[listed[index].indexOf(row)];
  return [...texts[index].children].slice(start, stop);
}

function light(event) {
  for (const span of document.querySelectorAll(".lit")) span.classList.remove("lit");
  for (const span of tokensOf(event)) span.classList.add("lit");
}

document.addEventListener("pointerover", light);
document.addEventListener("focusin", light);
document.addEventListener("click", (event) => {
  const [span] = event.target.closest?.(".spans button") ? tokensOf(event) : [];
  if (!span) return;
  span.scrollIntoView({ block: "nearest" });
  remember({ token: show(span) });
});
form.addEventListener("change", sortSpans);
window.addEventListener("hashchange", sortSpans);
sortSpans();
