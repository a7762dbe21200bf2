// Figures that a reader can explore (ntklib/explore.py): a slider that chooses the frame shown.
// What each frame shows is in the figure, as JSON. The slider is a native one, so that it works
// with a keyboard, a mouse, a finger and a screen reader.
for (const figure of document.querySelectorAll("figure.explore")) {
  const { label, ticks, across, start, images, values } = JSON.parse(
    figure.querySelector("script").textContent
  );
  const id = `${figure.id}-slider`;
  const control = document.createElement("p");
  control.className = "explore-control";
  const name = document.createElement("label");
  name.htmlFor = id;
  name.textContent = label;
  const slider = document.createElement("input");
  Object.assign(slider, { id, type: "range", min: 0, max: ticks.length - 1, value: start });
  const output = document.createElement("output");
  output.htmlFor = id;
  control.append(name, slider, output);
  figure.prepend(control);

  const pictures = figure.querySelectorAll("img");
  const cursor = figure.querySelector(".explore-cursor");
  const heading = figure.querySelector(".explore-now thead th:last-child");
  const cells = figure.querySelectorAll(".explore-now td");
  const rows = figure.querySelectorAll(".explore-all tbody tr");

  function show() {
    const frame = slider.valueAsNumber;
    output.textContent = ticks[frame];
    slider.setAttribute("aria-valuetext", `${label} ${ticks[frame]}`);
    heading.textContent = `${label} = ${ticks[frame]}`;
    pictures.forEach((picture, i) => (picture.src = images[i][frame]));
    cells.forEach((cell, i) => (cell.textContent = values[i][frame]));
    cursor.setAttribute("d", cursor.getAttribute("d").replace(/^M\S+/, `M${across[frame]}`));
    rows.forEach((row, i) => row.classList.toggle("explore-current", i === frame));
  }

  slider.addEventListener("input", show);
  show(); // a browser that goes back keeps where the slider was
}
