const form = document.getElementById("filters");
const cards = [...document.querySelectorAll(".card")];
const shown = document.getElementById("shown");
const allMaps = document.getElementById("all-maps");
function apply() {
  const want = Object.fromEntries(new FormData(form));
  let count = 0;
  for (const card of cards) {
    const has = card.dataset;
    const fits = (!want.result || has.result === want.result)
      && (!want.organ || has.organ === want.organ)
      && (!want.twin || has.twin === want.twin)
      && (!want.type || has.types.split("|").includes(want.type));
    card.hidden = !fits;
    count += fits;
  }
  shown.textContent = `${count} of ${cards.length} shown`;
}
function fromAddress() {  // report.html#result=wrong&organ=HEAD&type=PRES&twin=1
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const select of form.querySelectorAll("select")) {
    select.value = asked.get(select.name) ?? select.value;
    if (select.selectedIndex < 0) select.value = "";
  }
  apply();
}
form.addEventListener("input", apply);
form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("reset", () => setTimeout(apply));
allMaps?.addEventListener("click", () => {
  const now = allMaps.getAttribute("aria-pressed") !== "true";
  allMaps.setAttribute("aria-pressed", now);
  for (const details of document.querySelectorAll(".card details")) details.open = now;
});
addEventListener("hashchange", fromAddress);
form.hidden = false;
fromAddress();
// a table that is wider than its place says so
const sizes = new ResizeObserver(entries => {
  for (const { target } of entries) {
    const scroll = target.closest(".scroll");
    scroll.classList.toggle("wide", scroll.scrollWidth > scroll.clientWidth);
  }
});
for (const scroll of document.querySelectorAll(".scroll")) {
  sizes.observe(scroll);
  sizes.observe(scroll.firstElementChild);
}
