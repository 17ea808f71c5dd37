// Before the first paint, and therefore no module: the theme that a person chose here, else the system's.
(() => {
  const NAME = "fluvial-theme";
  const root = document.documentElement;
  try {
    const chosen = localStorage.getItem(NAME);
    if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
  } catch {
    // Storage may be forbidden; then the system's theme holds.
  }
})();
