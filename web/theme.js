// The theme that was chosen, set before the page is drawn. Both pages load this file.

const KEY = "edgellm.theme";

/** "light", "dark", or "" for that of the system. */
export const theme = () => localStorage.getItem(KEY) ?? "";

/** Chooses a theme and keeps the choice. */
export function setTheme(name) {
  localStorage.setItem(KEY, name);
  show();
}

function show() {
  document.documentElement.dataset.theme = theme();
}

show();
