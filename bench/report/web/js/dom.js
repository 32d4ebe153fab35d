/* Elements. Text of data enters the document as text nodes only. */

export const byId = (id) => document.getElementById(id);
export const narrow = () => window.innerWidth < 620;

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, value);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined),
  );
  return element;
}

/* A row of buttons of which one is pressed. */
export function switchButtons(labels, pressed, choose) {
  const buttons = labels.map((label, i) =>
    h(
      "button",
      { type: "button", "aria-pressed": String(i === pressed), onclick: () => press(i) },
      label,
    ),
  );
  const press = (i) => {
    buttons.forEach((button, k) => {
      button.setAttribute("aria-pressed", String(k === i));
    });
    choose(i);
  };
  return buttons;
}

/* Colours of the theme. They are kept, since asking makes the browser compute all styles again. */
const colours = new Map();
export function colour(name) {
  if (!colours.has(name)) {
    const style = getComputedStyle(document.documentElement);
    colours.set(name, style.getPropertyValue(`--${name}`).trim());
  }
  return colours.get(name);
}
export const forgetColours = () => colours.clear();

/* Plotly reads a few tags in its texts. */
export const escaped = (text) =>
  String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
