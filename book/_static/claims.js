// Filters and sorts the table of claims on the front page. Without it the table is as it is written.
(() => {
  const form = document.querySelector(".claims-filter");
  const body = document.querySelector(".claims-table tbody");
  const rows = [...body.rows];
  const claims = rows.filter((row) => !row.classList.contains("question"));
  const order = [...form.elements.verdict.options].map((option) => option.value);

  // The verdict of a row in a profile; that of planned claims is "not run".
  const verdict = (row, profile) =>
    row.querySelector(`[data-verdict][data-profile="${profile}"]`)?.dataset.verdict ?? "not run";

  function update() {
    const [paper, profile, wanted, by] = ["paper", "profile", "verdict", "order"].map(
      (name) => form.elements[name].value,
    );
    const first = form.elements.profile.options[0].value;
    for (const row of claims) {
      row.hidden =
        (paper && row.dataset.paper !== paper) ||
        (wanted && verdict(row, profile) !== wanted) ||
        (profile !== first && !row.dataset.profiles.split(" ").includes(profile));
      for (const part of row.querySelectorAll(".of-profile:not([data-verdict])"))
        part.hidden = part.dataset.profile !== profile;
    }
    const place = (row) =>
      by === "verdict" ? order.indexOf(verdict(row, profile)) : row.dataset.paper;
    const sorted = by
      ? [...claims].sort((a, b) => (place(a) < place(b) ? -1 : place(a) > place(b) ? 1 : 0))
      : rows;
    body.append(...sorted);
    // A question stands above its claims, as long as one of them is shown.
    let question = null;
    for (const row of rows) {
      if (row.classList.contains("question")) {
        question = row;
        row.hidden = true;
      } else if (!by && !row.hidden) question.hidden = false;
    }
    const shown = claims.filter((row) => !row.hidden).length;
    form.querySelector("output").textContent = `${shown} of ${claims.length} claims`;
  }

  form.hidden = false;
  form.addEventListener("change", update);
  update();
})();
